"""Facts about the kernel's TCP sockets on which the survival of flows rests (docs/tour.md, relay/ledger.h)."""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import time

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
ADDRESS = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}
FIONREAD, SIOCOUTQ = 0x541B, 0x5411
ESTABLISHED, FIN_WAIT2, CLOSE, CLOSE_WAIT = 1, 5, 7, 8


def pair(family):
    """A connection: (the end that connected, the end that was accepted)."""
    kind, address = ADDRESS[family]
    with socket.create_server((address, 0), family=kind) as listener:
        active = socket.create_connection(listener.getsockname()[:2])
        passive, _ = listener.accept()
    return active, passive


def ledger(sock):
    """(state, bytes acknowledged + unacknowledged, bytes received, unread) as relay/ledger.c reads them."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    acked, received = struct.unpack_from("QQ", info, 120)
    number = lambda request: struct.unpack("i", fcntl.ioctl(sock, request, b"\0\0\0\0"))[0]
    return info[0], acked + number(SIOCOUTQ), received, number(FIONREAD)


def settle():
    """Over loopback everything has arrived after this."""
    time.sleep(0.05)


def reset(sock):
    """Closes with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("family", [4, 6])
def test_counters_are_exact(family):
    """The SYN counts as a byte given by who connects; an end of stream as one given, and one received but never unread."""
    active, passive = pair(family)
    with active, passive:
        assert ledger(active) == (ESTABLISHED, 1, 0, 0)
        assert ledger(passive) == (ESTABLISHED, 0, 0, 0)
        active.sendall(b"x" * 1000)
        settle()
        passive.recv(400)
        active.shutdown(socket.SHUT_WR)
        settle()
        assert ledger(active) == (FIN_WAIT2, 1002, 0, 0)
        assert ledger(passive) == (CLOSE_WAIT, 0, 1001, 600)
        passive.recv(600)
        assert ledger(passive) == (CLOSE_WAIT, 0, 1001, 0)
        assert passive.recv(1) == b""
        assert ledger(passive) == (CLOSE_WAIT, 0, 1001, 0)
        passive.sendall(b"yy")
        passive.shutdown(socket.SHUT_WR)
        settle()
        assert ledger(active) == (CLOSE, 1002, 3, 2), "closed in order, and still to be read"
        assert ledger(passive) == (CLOSE, 3, 1001, 0)


@pytest.mark.parametrize("family", [4, 6])
def test_given_counts_what_the_other_side_has_not_taken(family):
    """What was written counts at once, whether it is sent, acknowledged, or waits."""
    active, passive = pair(family)
    with active, passive:
        active.setblocking(False)
        sent = 0
        try:
            while True:
                sent += active.send(b"z" * 100000)
        except BlockingIOError:
            pass
        settle()
        assert ledger(active)[1] == sent + 1


@pytest.mark.parametrize("family", [4, 6])
def test_given_is_exact_when_the_output_is_dropped(family):
    """Packets that our own output chain drops: bytes_sent - bytes_retrans + notsent counts them twice, ours does not."""
    active, passive = pair(family)
    rule = f"add table inet keeptest\nadd chain inet keeptest out {{ type filter hook output priority 0; }}\n" \
           f"add rule inet keeptest out tcp dport {active.getpeername()[1]} drop\n"
    with active, passive:
        if os.geteuid() or os.system(f"nft '{rule}' 2>/dev/null"):
            pytest.skip("needs nft as root")
        try:
            active.sendall(b"d" * 5000)
            settle()
            assert ledger(active)[1] == 5001
        finally:
            os.system("nft delete table inet keeptest")
        deadline = time.monotonic() + 5
        while ledger(passive)[3] < 5000 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ledger(active)[1] == 5001
        assert ledger(passive)[2:] == (5000, 5000)


@pytest.mark.parametrize("family", [4, 6])
def test_a_fetched_reset_looks_like_an_end_of_stream(family):
    """Why the adopter must not trust a read: the second one gives an end of stream after a reset."""
    active, passive = pair(family)
    passive.shutdown(socket.SHUT_WR)
    settle()
    reset(active)
    settle()
    with passive:
        poll = select.poll()
        poll.register(passive, 0)
        assert poll.poll(0)[0][1] & select.POLLERR, "the error shows without being fetched"
        assert poll.poll(0)[0][1] & select.POLLERR
        with pytest.raises(ConnectionResetError):
            passive.recv(1)
        assert not poll.poll(0)[0][1] & select.POLLERR
        assert passive.recv(1) == b""
        assert ledger(passive)[0] == CLOSE


def disconnect(sock):
    """connect() to nowhere: AF_UNSPEC."""
    nowhere = struct.pack("H14x", socket.AF_UNSPEC)
    assert LIBC.connect(sock.fileno(), nowhere, len(nowhere)) == 0


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("half", ["open", "received", "sent"])
def test_a_socket_held_twice_is_reset_by_disconnecting(family, half):
    """close() of one of two descriptors says nothing; connect(AF_UNSPEC) sends the reset at once."""
    active, passive = pair(family)
    other = passive.dup()
    with other, active:
        if half == "received":
            active.shutdown(socket.SHUT_WR)
        if half == "sent":
            passive.shutdown(socket.SHUT_WR)
        settle()
        active.settimeout(0.3)
        if half == "sent":
            assert active.recv(1) == b""
        disconnect(passive)
        passive.close()
        poll = select.poll()
        poll.register(active, select.POLLIN)
        assert poll.poll(1000)[0][1] & select.POLLERR
        expected = errno.EPIPE if half == "sent" else errno.ECONNRESET
        assert active.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == expected


@pytest.mark.parametrize("family", [4, 6])
def test_a_socket_held_twice_ends_by_shutdown_and_not_by_close(family):
    """The same for the orderly end."""
    active, passive = pair(family)
    other = passive.dup()
    with other, active:
        active.settimeout(0.3)
        passive.close()
        with pytest.raises(TimeoutError):
            active.recv(1)
        other.shutdown(socket.SHUT_WR)
        assert active.recv(1) == b""


@pytest.mark.parametrize("family", [4, 6])
def test_the_last_holder_resets(family):
    """Linger {1, 0} and two holders: nothing at the first close, a reset at the last."""
    active, passive = pair(family)
    passive.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other = passive.dup()
    with active:
        active.settimeout(0.3)
        passive.close()
        with pytest.raises(TimeoutError):
            active.recv(1)
        other.close()
        with pytest.raises(ConnectionResetError):
            active.recv(1)


@pytest.mark.parametrize("family", [4, 6])
def test_epoll_goes_on_after_the_close_of_a_socket_held_twice(family):
    """Why a kept socket is taken out of epoll by name before it is closed."""
    active, passive = pair(family)
    other = passive.dup()
    with other, active, select.epoll() as epoll:
        epoll.register(passive, select.EPOLLIN | select.EPOLLET)
        passive.close()
        active.sendall(b"x")
        assert epoll.poll(0.3), "an event of a descriptor that is closed"


@pytest.mark.parametrize("family", [4, 6])
def test_a_pipe_knows_how_much_is_in_it(family):
    """FIONREAD of a pipe is exact after splices in and out in part."""
    active, passive = pair(family)
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    with active, passive:
        active.sendall(b"p" * 30000)
        settle()
        passive.setblocking(False)
        moved = os.splice(passive.fileno(), write_fd, 20000) if hasattr(os, "splice") else \
            LIBC.splice(passive.fileno(), None, write_fd, None, 20000, 2)
        assert struct.unpack("i", fcntl.ioctl(read_fd, FIONREAD, b"\0\0\0\0"))[0] == moved
        assert ledger(passive)[2] - ledger(passive)[3] == moved
        os.read(read_fd, 777)
        assert struct.unpack("i", fcntl.ioctl(read_fd, FIONREAD, b"\0\0\0\0"))[0] == moved - 777
    os.close(read_fd)
    os.close(write_fd)
