"""What the tests of the control plane share: events as they come, the kernel against what is desired, the database."""

import contextlib
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time

from lab import kernel
from lab.gateway import ROOT, UnixConnection
from lab.process import wait_for


class Events:
    """The event stream, read in a thread: `seen` has (type, data) in order."""

    def __init__(self, gateway, types=""):
        self.seen = []
        self.connection = UnixConnection(gateway.socket, timeout=600)
        self.connection.request("GET", "/api/v1/events" + (f"?types={types}" if types else ""))
        self.sock = self.connection.sock
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)  # or close() would wait for the reader's next line
        self.connection.close()

    def _read(self):
        kind = None
        try:
            for line in self.answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    self.seen.append((kind, json.loads(line[6:])))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass

    def of(self, kind):
        """The data of all events of a type so far."""
        return [data for seen, data in list(self.seen) if seen == kind]

    def wait(self, kind, holds=lambda data: True, seconds=5):
        """The first event of a type for which holds(data)."""
        return wait_for(lambda: next((d for d in self.of(kind) if holds(d)), None), seconds,
                        f"event {kind} among {self.seen}")


def desired(lab, gateway):
    """What `?format=desired` makes of an empty kernel, comparable: the text is loaded in a namespace of its own."""
    text = gateway.api("GET", "ruleset?format=desired").text
    scratch = lab.scratch if hasattr(lab, "scratch") else make_scratch(lab)
    scratch.run("nft", "flush", "ruleset")
    scratch.nft(text)
    return kernel.our_table(scratch)


def make_scratch(lab):
    """A namespace without anything, for rulesets that are only looked at."""
    lab.scratch = lab._host("scratch")
    return lab.scratch


def expect_kernel_as_desired(lab, gateway):
    """The table in the kernel is what the configuration says, element by element."""
    wanted, found = desired(lab, gateway), kernel.our_table(lab.gateway)
    assert set(found) == set(wanted), difference(found, wanted)
    assert found == wanted


def difference(found, wanted):
    """The first few objects that only one side has."""
    return "only in the kernel: %s\nonly desired: %s" % (
        [o[:1500] for o in found if o not in wanted][:4], [o[:1500] for o in wanted if o not in found][:4])


@contextlib.contextmanager
def database(gateway, write=False):
    """The database, for looking into it."""
    mode = "rw" if write else "ro"
    opened = sqlite3.connect(f"file:{gateway.state}/gateway.db?mode={mode}", uri=True, timeout=10)
    try:
        yield opened
        if write:
            opened.commit()
    finally:
        opened.close()


def expect_sound(gateway):
    """The file passes SQLite's own checks."""
    with database(gateway) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []


def target_of(lab, address="10.71.2.2", port=8000, timeout=5):
    """Which server answers a connection to an address."""
    with lab.client.connect(address, port, timeout=timeout) as connection:
        connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        return connection.recv(4096).decode().split("\r\n\r\n")[1].split(f":{port} ")[0]


def processor_seconds(pid):
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def redirect(gateway, first="10.71.2.3", second="10.71.2.4"):
    """Listener web on port 8000 to upstream first; second is there to be changed to."""
    gateway.upstream("first", [(first, 0)])
    gateway.upstream("second", [(second, 0)])
    gateway.listener("web", ports=["8000"], upstream="first")
    return gateway.status()["revision"]


@contextlib.contextmanager
def taken_table(lab, gateway):
    """Somebody else owns the table in place of ours, from when the gateway knows it; with the owner it goes."""
    owner = subprocess.Popen(lab.gateway.command("nft", "-i"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, text=True)
    try:
        owner.stdin.write("delete table inet gatewayd; add table inet gatewayd { flags owner; }\n")
        owner.stdin.flush()
        wait_for(lambda: gateway.api("GET", "/readyz").status == 503, 5, "the alarm")
        yield
    finally:
        owner.communicate(timeout=10)


def release_or_default():
    """The release build for load; the lab's default if that is not there."""
    return "release" if (ROOT / "build/release/bin/gatewayd").exists() else None


def fastest_quarter(times):
    """The slowest of the fastest quarter: what a timer of the kernel's holds back shows here as well, and what others do on
    the machine hardly ever."""
    return sorted(times)[len(times) // 4]


def timed(function):
    """(result, seconds)"""
    started = time.monotonic()
    result = function()
    return result, time.monotonic() - started
