"""How connections begin: who speaks first, what waits before the target has answered, which thread serves them."""

import os
import signal
import socket
import statistics
import time
from pathlib import Path

import pytest

from lab import servers
from lab.process import wait_for
from net.control import fastest_quarter

pytestmark = pytest.mark.shared_gateway

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}


def polled(pid):
    """How many descriptors each epoll instance of a process polls."""
    counts = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if "[eventpoll]" in os.readlink(f"/proc/{pid}/fd/{fd}"):
            counts.append(Path(f"/proc/{pid}/fdinfo/{fd}").read_text().count("tfd:"))
    return counts


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_server_that_speaks_first_is_not_held_back(lab, gateway, figure, family):
    """The last packet of the relay's handshake waits for the client's bytes, but not if there are none."""
    gateway.listener("l", ports=["7811"])
    times = []
    with servers.Peer(lab.server, SERVER[family], 7811, lambda connection, _: connection.sendall(b"220 hello\r\n")):
        for _ in range(20):
            started = time.monotonic()
            with lab.client.connect(SERVER[family], 7811) as connection:
                assert connection.recv(100) == b"220 hello\r\n"
            times.append((time.monotonic() - started) * 1000)
    figure("until the greeting, median and worst, ms", f"{statistics.median(times):.1f} {max(times):.1f}")
    assert fastest_quarter(times) < 30, "the kernel's timer for such an acknowledgement is 40 to 200 ms"


@pytest.mark.parametrize("first", [b"", b"abc"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_urgent_bytes_before_the_target_has_answered(lab, gateway, family, first):
    """What the client sent early is read before its socket is polled; an urgent byte keeps its place in the stream."""
    gateway.listener("l", ports=["7812"])
    got = []

    def serve(connection, _address):
        data = b""
        while piece := connection.recv(100):
            data += piece
        got.append(data)
        connection.close()

    def accept_inline(listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    with servers.Peer(lab.server, SERVER[family], 7812, serve, before=accept_inline):
        pid = gateway.kill_relay(signal.SIGSTOP)
        with lab.client.connect(SERVER[family], 7812) as connection:
            if first:
                connection.sendall(first)
            connection.send(b"U", socket.MSG_OOB)
            connection.sendall(b"xyz")
            os.kill(pid, signal.SIGCONT)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(10) == b""
    assert got == [first + b"Uxyz"]


def test_idle_connections_spread_over_the_threads(lab, gateway, figure):
    """Threads help one another only under load: what comes bit by bit is spread by the kernel's hash."""
    if gateway.status()["relay"]["threads"] < 2:
        pytest.skip("one thread")
    gateway.listener("l", ports=["7813"])
    before = polled(gateway.relay_pid())
    waiting = []
    with servers.Peer(lab.server, SERVER["v4"], 7813, lambda connection, _: connection.recv(1)):
        for _ in range(100):
            waiting.append(lab.client.connect(SERVER["v4"], 7813))
            time.sleep(0.002)
        wait_for(lambda: sum(polled(gateway.relay_pid())) >= sum(before) + 200, 5, "200 polled sockets")
        counts = sorted(now for now in polled(gateway.relay_pid()))
        for connection in waiting:
            connection.close()
    loops = counts[-gateway.status()["relay"]["threads"]:]
    figure("polled sockets of each thread", loops)
    assert min(loops) > max(loops) / 4
