"""GET /events as curl reads it: what is told, going on after a break, signs of life, and the end."""

import re
import subprocess
import time

import pytest

from api.contract import observe
from lab.process import wait_for

pytestmark = pytest.mark.shared_gateway


class Stream:
    """curl -N on the stream; `events` has (id, type, data) so far."""

    def __init__(self, gateway, *headers, query=""):
        self.file = gateway.directory / f"stream{time.monotonic_ns()}"
        path = "/api/v1/events" + query
        arguments = [part for header in headers for part in ("-H", header)]
        with open(self.file, "wb") as output:
            self.popen = subprocess.Popen(
                ["curl", "-sS", "-N", "-i", "--unix-socket", gateway.socket, *arguments, "http://localhost" + path],
                stdout=output, stderr=subprocess.DEVNULL)
        head = wait_for(lambda: self.text().partition("\r\n\r\n")[1] and self.text().partition("\r\n\r\n")[0], 5, "an answer")
        lines = head.split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        observe(gateway.socket, "GET", path, dict(header.split(": ", 1) for header in headers), b"", self.status,
                self.headers, b"stream" if self.status == 200 else None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()

    def text(self):
        """All that came."""
        return self.file.read_bytes().decode("utf-8", "replace")

    @property
    def events(self):
        """Whole events only."""
        body = self.text().partition("\r\n\r\n")[2]
        return [(int(number), kind, data)
                for number, kind, data in re.findall(r"id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n", body)]

    def wait(self, kind, words="", seconds=10):
        """The first event of a type with these words in its data."""
        return wait_for(lambda: next((e for e in self.events if e[1] == kind and words in e[2]), None), seconds,
                        f"{kind} {words} in {self.text()}")


def test_revision_and_pending(gateway):
    """Each write, who made it, and what waits to be confirmed or was settled."""
    with Stream(gateway) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream" and stream.headers["Cache-Control"] == "no-store"
        revision = gateway.api("PUT", "listeners/web", {"ports": ["80"]}).headers["Gateway-Revision"]
        stream.wait("revision", f'"revision":{revision}')
        assert '"actor":"uid 0"' in stream.events[0][2] and "PUT listeners/web" in stream.events[0][2]
        assert gateway.api("PUT", "listeners/web", {"ports": ["80"]}).status == 200  # the same again: no revision
        gateway.must("PUT", "listeners/bad?dry_run=true", {})
        waiting = gateway.api("PUT", "listeners/two?confirm_within=60", {"ports": ["81"]}).headers["Gateway-Revision"]
        stream.wait("pending", f'"revision":{waiting}')
        gateway.must("POST", f"revisions/{waiting}/confirm")
        assert f'"outcome":"confirmed","settled":{waiting}' in stream.wait("pending", '"revision":0')[2]
        assert [kind for _, kind, _ in stream.events].count("revision") == 2
        numbers = [number for number, _, _ in stream.events]
        assert numbers == sorted(set(numbers))


def test_relay(gateway):
    """The death of the relay and its successor."""
    with Stream(gateway, query="?types=relay") as stream:
        pid = gateway.kill_relay()
        gateway.wait_relay(not_pid=pid)
        stream.wait("relay")
        gateway.listener("web", ports=["80"])
        assert {kind for _, kind, _ in stream.events} == {"relay"}


def test_drift(gateway):
    """Somebody else's hands."""
    gateway.listener("web", ports=["80"])
    with Stream(gateway) as stream:
        gateway.lab.gateway.run("nft", "flush", "ruleset")
        stream.wait("drift")
        wait_for(lambda: gateway.api("GET", "/readyz").status == 200, 5, "the healing")


def test_going_on(gateway):
    """Last-Event-ID: what came meanwhile, in order, nothing twice; and the same with ?after=."""
    with Stream(gateway) as stream:
        gateway.listener("first", ports=["1000"])
        seen = stream.wait("revision", "listeners/first")[0]
    for i in range(5):
        gateway.listener(f"l-{i}", ports=[str(2000 + i)])
    for headers, query in (((f"Last-Event-ID: {seen}",), ""), ((), f"?after={seen}")):
        with Stream(gateway, *headers, query=query) as again:
            again.wait("revision", "listeners/l-4")
            summaries = [re.search(r"listeners/[a-z0-9-]+", data).group(0) for _, kind, data in again.events if kind == "revision"]
            assert summaries == [f"listeners/l-{i}" for i in range(5)]
            assert all(number > seen for number, _, _ in again.events)


def test_missed(gateway):
    """A reader from before a restart is told that it missed something, and that the rest is there."""
    with Stream(gateway, "Last-Event-ID: 5") as stream:
        assert "event: missed" in wait_for(lambda: stream.text() if "event:" in stream.text() else None, 5, "an event")
        gateway.listener("web", ports=["80"])
        stream.wait("revision", "listeners/web")


def test_refused(gateway):
    """Places and types that are none."""
    for headers, query in ((("Last-Event-ID: x",), ""), ((), "?after=-1"), ((), "?types=A"), ((), "?kind=relay")):
        with Stream(gateway, *headers, query=query) as stream:
            assert stream.status == 400


@pytest.mark.timeout(60)
def test_signs_of_life(gateway):
    """A silent stream says a comment now and then, so that a dead connection is noticed."""
    with Stream(gateway, query="?types=relay") as stream:
        def comments():
            return stream.text().partition("\r\n\r\n")[2].count(":\n\n")

        first = comments()
        wait_for(lambda: comments() > first, 25, "a comment")
        assert stream.popen.poll() is None and stream.events == []


def test_stop(gateway):
    """Open streams end with the daemon, at once and in good order."""
    streams = [Stream(gateway) for _ in range(10)]
    try:
        assert gateway.stop() == 0
        for stream in streams:
            stream.popen.wait(5)
    finally:
        for stream in streams:
            stream.__exit__()
