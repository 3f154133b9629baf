"""What is awkward about splice(2): small pipes, MSG_MORE, urgent data."""

import random
import socket
import statistics
import threading
import time

import pytest

from lab import servers, traffic
from lab.process import in_threads, wait_for
from net.control import fastest_quarter

pytestmark = pytest.mark.shared_gateway

MESSAGES = 60
SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
FIN_WAIT2 = 5  # of tcpi_state: all is acknowledged, the end of stream too


@pytest.fixture
def few_pipe_pages():
    """A machine on which a user's pipes beyond the first few have only two pages. A global sysctl: put back."""
    path = "/proc/sys/fs/pipe-user-pages-soft"
    with open(path, encoding="ascii") as file:
        old = file.read()
    with open(path, "w", encoding="ascii") as file:
        file.write("32")
    yield
    with open(path, "w", encoding="ascii") as file:
        file.write(old)


def test_small_pipes(lab, make_gateway, few_pipe_pages):
    """Pipes of two pages, or none to be had: everything still arrives."""
    process, _ = servers.traffic_server(lab, lab.server, 9200)
    try:
        gateway = make_gateway(mover="splice")
        gateway.listener("checked", ports=["9200"])
        jobs = [lambda n=n: traffic.client(lab.client.connect("10.71.2.2", 9200, timeout=30), f"pipe {n}", 5_000_000,
                                           5_000_000, ("client", "server", "both")[n % 3]) for n in range(24)]
        outcomes = in_threads(jobs)
        assert [o for o in outcomes if not o["ok"]] == []
    finally:
        process.stop()


def round_trips(host, address, port, size):
    """Milliseconds from a message to its echo, one after the other on one connection."""
    times = []
    with host.connect(address, port) as connection:
        connection.setsockopt(6, 1, 1)
        for _ in range(MESSAGES):
            started = time.monotonic()
            connection.sendall(b"m" * size)
            left = size
            while left:
                left -= len(connection.recv(left))
            times.append((time.monotonic() - started) * 1000)
    return times


def echo(connection, _address):
    """Sends back what comes, at once."""
    connection.setsockopt(6, 1, 1)
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()


@pytest.mark.parametrize("size", [1, 100, 5000, 20000])
@pytest.mark.parametrize("mover", ["copy", "splice", "auto"])
def test_messages_are_not_held_back(lab, make_gateway, figure, mover, size):
    """A message goes on at once: no waiting for more, as SPLICE_F_MORE does (200 ms)."""
    gateway = make_gateway(mover=mover)
    gateway.listener("echo", ports=["7700"])
    with servers.Peer(lab.server, "10.71.2.2", 7700, echo), servers.Peer(lab.server, "10.71.2.2", 7701, echo):
        plain = round_trips(lab.client, "10.71.2.2", 7701, size)
        relayed = round_trips(lab.client, "10.71.2.2", 7700, size)
    figure("median and worst round trip, ms", f"forwarded {statistics.median(plain):.2f} {max(plain):.2f}, "
           f"relayed {statistics.median(relayed):.2f} {max(relayed):.2f}")
    assert fastest_quarter(relayed) < 100


def unread(lab, port):
    """Bytes that wait at the relay's socket of the client's."""
    return int(lab.gateway.run("ss", "-Htn", "state", "established", f"sport = :{port}").stdout.split()[0])


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", ["copy", "splice"])
def test_urgent_data_before_the_end(lab, make_gateway, mover, family):
    """An urgent byte, more bytes and the end of stream have come while the server reads nothing: all go on.

    splice(2) does not get past the mark, and says so with what otherwise means the end.
    """
    may_read, received = threading.Event(), bytearray()

    def take(connection, _address):
        may_read.wait(20)
        while piece := connection.recv(65536):
            received.extend(piece)
        connection.sendall(b"end")
        connection.close()

    gateway = make_gateway(mover=mover)
    gateway.listener("urgent", ports=["7710"])
    sent = bytearray()
    with servers.Peer(lab.server, SERVER[family], 7710, take):
        with lab.client.connect(SERVER[family], 7710, timeout=20) as connection:
            while not sent or unread(lab, 7710) == 0:
                sent += random.Random(len(sent)).randbytes(30_000)
                connection.sendall(sent[-30_000:])
            for piece, flags in ((b"before", 0), (b"!", socket.MSG_OOB), (b"behind", 0)):
                connection.send(piece, flags)
                sent += piece
            connection.shutdown(socket.SHUT_WR)
            wait_for(lambda: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == FIN_WAIT2, 10,
                     "the relay to have all")
            may_read.set()
            assert connection.recv(10) == b"end"
    assert len(received) == len(sent)
    assert received == sent
