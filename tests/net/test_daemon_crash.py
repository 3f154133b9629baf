"""kill -9 of the daemon in the midst of writes, fifty times in a long run."""

import http.client
import json
import random
import sqlite3
import subprocess
import threading
import time

import pytest

from lab import kernel
from lab.gateway import end_process
from lab.process import amount, wait_for

KILLS = amount(15, 50)
BASE_PORT = 20000
# Listeners with which a relay is configured for longer than connections wait for one.
SLOW = 3000


class Writer:
    """Creates and deletes listeners as fast as the API answers; knows what was acknowledged and what was under way.

    Listener lN has port BASE_PORT + N, so a port found in the kernel names its listener."""

    def __init__(self, gateway, source):
        self.gateway, self.source = gateway, source
        self.present = set()
        self.uncertain = None
        self.acknowledged = 0
        self.unexpected = []
        self.stopping = False

    def run(self):
        """Writes until the daemon is gone."""
        while not self.stopping:
            number = self.source.randrange(40)
            try:
                self._one(number)
            except (OSError, http.client.HTTPException):
                return

    def _one(self, number):
        self.uncertain = number
        if number in self.present:
            answer = self.gateway.api("DELETE", f"listeners/l{number}", timeout=10)
            good = answer.status == 204
        else:
            body = {"name": f"l{number}", "ports": [str(BASE_PORT + number)]}
            answer = self.gateway.api("PUT", f"listeners/l{number}", body, timeout=10)
            good = answer.status == 201
        if good:
            self.present ^= {number}
            self.acknowledged += 1
        else:
            self.unexpected.append(answer)
        self.uncertain = None


def listeners_in_api(gateway):
    """Numbers of the listeners the API has."""
    found, after = set(), ""
    while True:
        document = gateway.must("GET", f"listeners?limit=100&after={after}")
        items = document["items"] if isinstance(document, dict) else document
        if not items:
            return found
        found |= {int(item["name"][1:]) for item in items}
        after = items[-1]["name"]


def listeners_in_database(gateway):
    """The same from the database, which must be sound."""
    database = sqlite3.connect(f"file:{gateway.state}/gateway.db?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        return {int(name[1:]) for (name,) in database.execute("SELECT name FROM listener")}
    finally:
        database.close()


def listeners_in_kernel(lab):
    """The same from the elements in the kernel's maps, by port."""
    found = set()
    for element in kernel.our_elements(lab.gateway):
        for number in numbers(json.loads(element.split(" ", 1)[1])):
            if BASE_PORT <= number < BASE_PORT + 1000:
                found.add(number - BASE_PORT)
    return found


def numbers(value):
    """All integers in a JSON value."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in (value.values() if isinstance(value, dict) else value):
            yield from numbers(inner)


@pytest.mark.timeout(400)
def test_kill_9_during_writes(lab, make_gateway, figure):
    """After each start: database sound, every acknowledged write there, API, database and kernel agree."""
    gateway = make_gateway()
    source = random.Random("kill -9")
    writer = Writer(gateway, source)
    starts = []
    for number in range(KILLS):
        thread = threading.Thread(target=writer.run)
        wanted = writer.acknowledged + source.randrange(4)
        thread.start()
        wait_for(lambda: writer.acknowledged >= wanted, 15, "writes", interval=0.001)
        time.sleep(source.uniform(0, 0.04))
        gateway.kill()
        thread.join(15)
        uncertain = {writer.uncertain} - {None}
        started = time.monotonic()
        gateway.start()
        starts.append(time.monotonic() - started)
        found = listeners_in_api(gateway)
        assert found - uncertain == writer.present - uncertain, f"kill {number}: lost or resurrected"
        assert listeners_in_database(gateway) == found, f"kill {number}"
        assert listeners_in_kernel(lab) == found, f"kill {number}"
        writer.present, writer.uncertain = found, None
    figure("acknowledged writes", writer.acknowledged)
    figure("start after a kill", f"{sorted(starts)[len(starts) // 2] * 1000:.0f} ms median (sanitized build)")
    assert not writer.unexpected, writer.unexpected[:3]
    assert writer.acknowledged > KILLS / 2
    check_against_fresh_render(lab, gateway)


def test_a_relay_that_is_found_serves(lab, make_gateway):
    """A daemon that takes its time to tell the relay it found so many listeners does not take it for one that serves nobody:
    nothing goes past it."""
    gateway = make_gateway()
    rows = [{"name": f"l{i}", "ports": [str(BASE_PORT + i)], "on_worker_down": "direct"} for i in range(SLOW)]
    gateway.must("PUT", "config", {**gateway.must("GET", "config"), "listeners": rows}, timeout=120)
    before = gateway.log.read_text()
    gateway.stop()
    gateway.start()
    said = gateway.log.read_text().removeprefix(before)
    assert "found relay" in said and f"serves generation {gateway.status()['revision']}" in said
    assert "no relay serves" not in said
    gateway.wait_relay(gateway.kill_relay())


def check_against_fresh_render(lab, gateway):
    """What the crashes left in the kernel is what a start from nothing makes."""
    survived = kernel.our_elements(lab.gateway)
    relay = gateway.relay_pid()
    gateway.stop()
    gateway.run_once("--cleanup")
    end_process(relay)
    gateway.start()
    ours = lambda elements: [e for e in elements if "generation" not in e]
    assert ours(kernel.our_elements(lab.gateway)) == ours(survived)


WEB = "tcp4_d0_s0_exact_relay"
HOLD_NAME = """
import os, socket, time
os.setuid(65534)
made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made.bind(b"\\0gatewayd/network")
made.listen(16)
print("held", flush=True)
time.sleep(60)
"""


def test_one_in_a_network(lab, gateway, tmp_path):
    """A second daemon with directories of its own would take the table of the first one for its own: it does not start,
    and touches nothing. A name that somebody without rights holds keeps nobody from starting."""
    gateway.listener("web", ports=["8000"])
    before = kernel.table_handle(lab.gateway), lab.gateway.run("nft", "list", "set", "inet", "gatewayd", WEB).stdout
    done = subprocess.run(lab.gateway.command(
        gateway.binaries / "gatewayd", "--state-dir", tmp_path / "state", "--runtime-dir", tmp_path / "run", "--log-dir",
        tmp_path / "logs", "--listen", "http://127.0.0.1:8099", "--relay", gateway.relay), capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode != 0
    assert f"in this network namespace, process {gateway.process.pid}" in done.stderr
    assert (kernel.table_handle(lab.gateway), lab.gateway.run("nft", "list", "set", "inet", "gatewayd", WEB).stdout) == before
    gateway.stop()
    with subprocess.Popen(lab.gateway.command("python3", "-c", HOLD_NAME), stdout=subprocess.PIPE, text=True) as stranger:
        try:
            assert stranger.stdout.readline() == "held\n"
            gateway.start()
            assert "a process that is not root's has the name" in gateway.log.read_text()
        finally:
            stranger.kill()
