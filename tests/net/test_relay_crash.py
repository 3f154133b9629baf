"""The relay dies: what clients, servers and the daemon see, with each choice of on_worker_down."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from lab import servers
from lab.process import alive, wait_for

SERVER = "10.71.2.2"


class SynCounter:
    """Counts the connection attempts that reach a port of the server."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def __enter__(self):
        self.host.nft(f"add table inet syns\nadd counter inet syns n\n"
                      f"add chain inet syns in {{ type filter hook input priority 0; }}\n"
                      f"add rule inet syns in tcp dport {self.port} tcp flags & (syn | ack) == syn counter name n\n")
        return self

    def __exit__(self, *_):
        self.host.nft("delete table inet syns")

    def count(self):
        """How many there have been."""
        listed = json.loads(self.host.run("nft", "-j", "list", "counter", "inet", "syns", "n").stdout)["nftables"]
        return next(o["counter"]["packets"] for o in listed if "counter" in o)


def request(connection):
    """Sends a request."""
    connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")


def answer(connection, timeout=10):
    """Reads the answer to the end."""
    connection.settimeout(timeout)
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data.decode()


def sockets_on_gateway(lab, port):
    """Established sockets towards a port that the gateway itself holds."""
    return lab.gateway.run("ss", "-Htn", "state", "established", f"dport = :{port}").stdout.splitlines()


def thread_states(pid):
    """The state letter of each thread of a process."""
    return [Path(f"/proc/{pid}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()[0]
            for thread in os.listdir(f"/proc/{pid}/task")]


@pytest.mark.parametrize("address", ["10.71.2.2", "fd71:2::2"])
def test_direct_passes_traffic_by(lab, nginx, gateway, address):
    """on_worker_down direct: without a relay, connections go straight to the server; with one, through it again."""
    # A port of its own: TIME_WAIT sockets of relayed flows would take packets of direct flows between the same ports.
    gateway.listener("web", ports=["8002"], on_worker_down="direct")
    dead = gateway.break_relay()
    wait_for(lambda: gateway.status()["relay"]["direct"], 5, "the gate for direct listeners")
    for _ in range(5):
        with lab.client.connect(address, 8002, timeout=3) as connection:
            assert sockets_on_gateway(lab, 8002) == []
            request(connection)
            assert "sees " + (lab.client.v6 if ":" in address else lab.client.v4) in answer(connection)
    gateway.mend_relay()
    gateway.wait_relay(dead, 30)
    with lab.client.connect(address, 8002, timeout=3) as connection:
        wait_for(lambda: len(sockets_on_gateway(lab, 8002)) == 1, 5, "a relayed flow")
        request(connection)
        assert "sees" in answer(connection)


@pytest.mark.parametrize("address", ["10.71.2.2", "fd71:2::2"])
def test_drop_lets_nothing_past(lab, nginx, gateway, address):
    """on_worker_down drop: without a relay nothing reaches the server, and nothing is answered in its name."""
    gateway.listener("web", ports=["8001"], on_worker_down="drop")
    dead = gateway.break_relay()
    wait_for(lambda: not gateway.relay_pid(), 5, "a status without a relay")
    waiting = []
    with SynCounter(lab.server, 8001) as syns:
        for _ in range(5):
            try:
                waiting.append(lab.client.connect(address, 8001, timeout=1))
                request(waiting[-1])
            except OSError:
                pass  # silence is as good as a queue
        for connection in waiting:
            connection.settimeout(0.2)
            with pytest.raises(OSError):
                data = connection.recv(100)
                raise AssertionError(f"an answer without a relay: {data!r}")
        assert syns.count() == 0, "connections leaked past the dead relay"
    gateway.mend_relay()
    gateway.wait_relay(dead, 30)
    for connection in waiting:
        assert "sees" in answer(connection), "what waited is served by the next relay"
    with lab.client.connect(address, 8001, timeout=3) as connection:
        request(connection)
        assert "sees" in answer(connection)


def test_a_broken_relay_does_not_spin(lab, gateway, figure):
    """A relay that ends at once is tried again with growing pauses; the API goes on."""
    gateway.break_relay()
    before = gateway.status()["relay"]["restarts"]
    time.sleep(3)
    tries = gateway.status()["relay"]["restarts"] - before
    figure("starts tried in 3 s", tries)
    assert tries < 40
    assert gateway.api("GET", "/healthz").status == 200
    assert gateway.api("GET", "/readyz").status == 503
    gateway.listener("made-meanwhile", ports=["8000"])
    gateway.mend_relay()
    gateway.wait_relay(0, 30)


def test_established_flows_end_in_a_reset(lab, gateway):
    """A dead relay must not look like the end of the data: both sides see RST, never FIN."""
    gateway.listener("l", ports=["7950"])
    held = []

    def serve(connection, _address):
        held.append(connection)
        connection.sendall(b"the beginning of")

    with servers.Peer(lab.server, SERVER, 7950, serve):
        clients = [lab.client.connect(SERVER, 7950) for _ in range(10)]
        for connection in clients:
            assert connection.recv(100) == b"the beginning of"
            connection.sendall(b"half a message")
        wait_for(lambda: len(held) == 10, 5, "the server's connections")
        for connection in held:
            assert connection.recv(100) == b"half a message"
        dead = gateway.kill_relay()
        for connection in clients + held:
            connection.settimeout(5)
            with pytest.raises(ConnectionResetError):
                data = connection.recv(100)
                raise AssertionError(f"{data!r} instead of a reset")
            connection.close()
    gateway.wait_relay(dead)


@pytest.mark.parametrize("address", ["10.71.2.2", "fd71:2::2"])
def test_queued_connections_are_served_by_the_next_relay(lab, nginx, gateway, figure, address):
    """200 connections wait while the relay hangs; it is killed; each is served, none refused or reset."""
    gateway.listener("web", ports=["8000"])
    pid = gateway.kill_relay(signal.SIGSTOP)
    wait_for(lambda: set(thread_states(pid)) == {"T"}, 5, "all threads to stop")
    waiting = [lab.client.connect(address, 8000, timeout=10) for _ in range(200)]
    for connection in waiting:
        request(connection)
    started = time.monotonic()
    gateway.kill_relay(signal.SIGKILL)
    new = gateway.wait_relay(pid)
    figure("from kill -9 to the next relay ready", f"{(time.monotonic() - started) * 1000:.0f} ms (sanitized build)")
    assert all("sees" in answer(connection) for connection in waiting)
    figure("until all 200 were served", f"{(time.monotonic() - started) * 1000:.0f} ms")
    assert new != pid


@pytest.mark.own_gateway  # counts what the daemon has seen
def test_who_hangs_is_told_from_who_waits(gateway):
    """A daemon that was held up for longer than it waits for a sign of life kills no relay; a relay that gives none for
    so many of the daemon's looks is killed."""
    pid = gateway.relay_pid()
    gateway.process.popen.send_signal(signal.SIGSTOP)
    try:
        time.sleep(5.5)
    finally:
        gateway.process.popen.send_signal(signal.SIGCONT)
    time.sleep(1.2)  # its next look
    assert gateway.relay_pid() == pid
    gateway.kill_relay(signal.SIGSTOP)
    assert gateway.wait_relay(pid, 30) != pid
    assert f"killing relay {pid}: it gives no sign of life" in gateway.log.read_text()
    assert gateway.status()["relay"]["restarts"] == 1


def test_kill_under_load(lab, nginx, gateway, gwload, figure):
    """kill -9 three times under load: a new relay each time, no connection refused, none with a false end."""
    gateway.listener("web", ports=["8000"])
    result = {}

    def load():
        out = lab.client.run(gwload, "conn", SERVER, 8000, "/small", 16, 5, 1).stdout
        result.update(json.loads(out))

    thread = threading.Thread(target=load)
    thread.start()
    times = []
    for _ in range(3):
        time.sleep(1)
        started = time.monotonic()
        pid = gateway.kill_relay()
        gateway.wait_relay(pid, 10)
        times.append((time.monotonic() - started) * 1000)
    thread.join()
    figure("from kill -9 to the next relay ready, ms", " ".join(f"{t:.0f}" for t in times) + " (sanitized build)")
    figure("load", result)
    assert result["refused"] == 0
    assert result["broken"] == 0, "a false end of stream"
    assert result["timed_out"] == 0
    assert result["reset"] <= 3 * 16 * 4  # those too young to be kept; there may be none
    assert result["done"] > 200


def test_load_with_a_new_relay_serves_all(lab, nginx, gateway, gwload):
    """After a crash the next relay is as good as the first."""
    gateway.listener("web", ports=["8000"])
    gateway.wait_relay(gateway.kill_relay())
    result = json.loads(lab.client.run(gwload, "count", SERVER, 8000, "/small", 32, 2000, 1).stdout)
    assert (result["done"], result["refused"], result["reset"], result["broken"]) == (2000, 0, 0, 0)


def test_relay_runs_with_little_right(lab, gateway):
    """The relay is not root and has CAP_NET_RAW and CAP_NET_BIND_SERVICE alone; system calls are filtered."""
    pid = gateway.relay_pid()
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert fields["Uid"].split()[1] != "0"
    assert int(fields["CapEff"], 16) == 1 << 13 | 1 << 10
    assert int(fields["CapPrm"], 16) == 1 << 13 | 1 << 10
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_daemon_dies_relay_goes_on(lab, nginx, gateway):
    """kill -9 of the daemon: traffic neither notices nor leaks; the next daemon takes the same relay over."""
    gateway.listener("web", ports=["8000"])
    pid = gateway.relay_pid()
    gateway.kill()
    time.sleep(0.3)
    assert alive(pid)
    with lab.client.connect(SERVER, 8000, timeout=3) as connection:
        wait_for(lambda: len(sockets_on_gateway(lab, 8000)) == 1, 3, "a relayed flow")
        request(connection)
        assert "sees" in answer(connection)
    gateway.start()
    assert gateway.relay_pid() == pid


def test_both_die(lab, nginx, gateway):
    """Daemon and relay killed together: nothing leaks (drop), and the next start brings all back."""
    gateway.listener("web", ports=["8000"])
    pid = gateway.relay_pid()
    gateway.kill()

    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid), 5, "the relay's death")
    with SynCounter(lab.server, 8000) as syns:
        with pytest.raises(socket.timeout):
            lab.client.connect(SERVER, 8000, timeout=1.2)
        assert syns.count() == 0
    gateway.start()
    assert gateway.relay_pid() != pid
    with lab.client.connect(SERVER, 8000, timeout=3) as connection:
        request(connection)
        assert "sees" in answer(connection)


def test_a_slow_start_is_no_death(lab, make_gateway):
    """A relay that takes its time to begin, as on a machine that has much to do, is waited for: none is killed."""
    gateway = make_gateway(start=False)
    real = gateway.directory / "real-relay"
    gateway.relay.rename(real)
    gateway.relay.write_text(f'#!/bin/sh\nsleep 2.5\nexec {real} "$@"\n')
    gateway.relay.chmod(0o755)
    gateway.start()
    gateway.wait_relay(0)
    assert gateway.status()["relay"]["restarts"] == 0
