"""Lines of daemon and relay where standard error is the journal: with fields, nothing secret in them, and as text when there
is no journal any more."""

import os
import socket
import threading

import pytest

from lab import Gateway
from lab.process import wait_for

PORT = 8110


class Journal:
    """A stand-in for journald's socket: keeps the records, each a dict of its fields."""

    def __init__(self, directory):
        directory.mkdir(exist_ok=True)  # a second try comes to the same place
        (directory / "socket").unlink(missing_ok=True)
        directory.chmod(0o755)
        self.directory, self.records = directory, []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "socket"))
        (directory / "socket").chmod(0o666)
        # Read at once, as the journal does: only a few datagrams wait in a socket.
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while data := self.socket.recv(65536):
            self.records.append(fields_of(data))

    def read(self):
        """What has come so far."""
        return list(self.records)

    def close(self):
        """Nobody is there any more."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.socket.close()

    def find(self, **wanted):
        """The records that have these fields."""
        return [record for record in self.read() if all(record.get(key) == value for key, value in wanted.items())]


def fields_of(data):
    """A record of the native protocol, taken apart."""
    fields = {}
    while data:
        line, data = data.split(b"\n", 1)
        if b"=" in line:
            key, value = line.split(b"=", 1)
        else:
            key, length, data = line, int.from_bytes(data[:8], "little"), data[8:]
            value, data = data[:length], data[length + 1:]
        assert key.decode() not in fields
        fields[key.decode()] = value.decode()
    return fields


class Service(Gateway):
    """A gateway as a service manager starts it: its standard error is the journal, or so it is told, and the stand-in is in
    the place of journald's socket, for these processes alone."""

    def __init__(self, lab, journal, **options):
        self.journal = journal
        super().__init__(lab, **options)

    def command(self, *more, **options):
        """With a /run of its own, where the journal is."""
        place = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && exec \"$@\""
        return ["unshare", "--mount", "sh", "-ec", place, self.journal.directory, *super().command(*more, **options)]

    def environment(self):
        """The stream that is the journal."""
        self.log.touch()
        found = os.stat(self.log)
        return {**super().environment(), "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


@pytest.fixture
def journal(lab, request):
    """The stand-in."""
    return Journal(lab.directory / f"journal-{request.node.name}")


def test_fields(lab, journal):
    """Both programs write there and nowhere else; lines can be found by what they are about; secrets are in none."""
    with Service(lab, journal) as gateway, lab.server.listen(lab.server.v4, PORT) as server:
        token = gateway.must("POST", "tokens", {"name": "secretive", "role": "admin"})["token"]
        gateway.upstream("pool", [(lab.server.v4, PORT), ("10.71.2.3", 9)],
                         health={"type": "tcp", "interval_ms": 100, "timeout_ms": 100, "fall": 1})
        gateway.listener("web", ports=[str(PORT)], upstream="pool")
        revision = str(gateway.status()["revision"])
        wait_for(lambda: journal.find(GATEWAY_LISTENER="web", GATEWAY_REVISION=revision, SYSLOG_IDENTIFIER="gatewayd",
                                      PRIORITY="6"), 5, "the revision")
        wait_for(lambda: journal.find(GATEWAY_UPSTREAM="pool", GATEWAY_TARGET="10.71.2.3:9", PRIORITY="5"), 10, "the target's end")
        with lab.client.connect(lab.server.v4, PORT), server.accept()[0]:
            flow = wait_for(lambda: gateway.must("GET", "flows?listener=web")["items"], 5, "the flow")[0]["id"]
            assert gateway.api("DELETE", f"flows/{flow}").status == 204
        killed = wait_for(lambda: journal.find(GATEWAY_FLOW=flow, GATEWAY_LISTENER="web", GATEWAY_CLIENT=lab.client.v4), 5,
                          "the end of the flow")
        assert len(killed) == 1 and flow in killed[0]["MESSAGE"]
        was = gateway.relay_pid()
        gateway.must("POST", "relay/restart")
        wait_for(lambda: gateway.relay_pid_quietly() not in (0, None, was), 10, "another relay")
        wait_for(lambda: journal.find(SYSLOG_IDENTIFIER="gateway-relay"), 5, "a line of the relay")
        assert all(record["MESSAGE"] and record["PRIORITY"] in "34567" for record in journal.read())
        written = gateway.log.read_text() + str(journal.read())
        assert token not in written and gateway.token() not in written
        # A sanitizer may have something to say there, but no line of the programs is.
        assert "gatewayd:" not in gateway.log.read_text() and "gateway-relay:" not in gateway.log.read_text()
        # Without a journal the lines are where a service manager would look for them.
        journal.close()
        gateway.must("PATCH", "listeners/web", {"comment": "no journal"})
        assert "<6>gatewayd: revision " in gateway.log.read_text()
