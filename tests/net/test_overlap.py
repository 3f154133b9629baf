"""Segments that begin with bytes the gateway has already: they must not arrive twice."""

import fcntl
import random
import socket
import struct
import termios

import pytest

from lab import servers
from lab.process import wait_for
from lab.rewind import rewind

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
PORT = 7950


def unacknowledged(sock):
    """Bytes sent and not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]


@pytest.mark.parametrize("again", [1, 4095, 5_000])
@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", ["copy", "splice", "sockmap"])
def test_overlapping_segments(lab, make_gateway, mover, family, again):
    """Three times in a row a segment repeats the end of what came before it, and goes on."""
    gateway = make_gateway(mover=mover)
    gateway.listener("overlap", ports=[str(PORT)])
    received = bytearray()

    def take(connection, _address):
        while piece := connection.recv(65536):
            received.extend(piece)
        connection.sendall(b"end")
        connection.close()

    server = servers.Peer(lab.server, SERVER[family], PORT, take)
    try:
        data = random.Random(again).randbytes(4 * 61_000)
        connection = lab.client.connect(SERVER[family], PORT)
        connection.sendall(data[:61_000])
        for end in (2 * 61_000, 3 * 61_000, 4 * 61_000):
            wait_for(lambda: len(received) >= end - 61_000 and unacknowledged(connection) == 0, 10, "what was sent")
            connection = rewind(lab.client, connection, again)
            connection.sendall(data[end - 61_000 - again:end])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b"end"
        connection.close()
    finally:
        server.close()
    assert len(received) == len(data)
    assert received == data
