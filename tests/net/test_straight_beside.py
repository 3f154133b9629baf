"""Connections that have no socket on the gateway, and what else sees their packets: the prefilter, which knows other flows
by their sockets, and the second engine of interception."""

import contextlib
import os
import threading

import pytest

from lab import servers
from lab.process import wait_for

from net.test_interception import engine, needs_it, packets, rise
from net.test_prefilter import Drops, prefilter
from net.test_sockmap import ask, echo

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
PORT = 7990


def listener(gateway):
    """One that wants such flows, and the kernel is ready for them."""
    gateway.listener("k", ports=[str(PORT)], mover="kernel")
    wait_for(lambda: gateway.status()["relay"]["movers"]["shortcut"]["state"] == "on", 10, "the program")


def sockets(lab, connection):
    """How many sockets of the gateway's have the port of this client."""
    port = connection.getsockname()[1]
    return len(lab.gateway.run("ss", "-Htan", f"( sport = :{port} or dport = :{port} )").stdout.splitlines())


def exchange(connection, size):
    """So many bytes go to the server and come back."""
    data, got = os.urandom(size), bytearray()
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    while len(got) < size:
        piece = connection.recv(1 << 20)
        assert piece, "the stream ended"
        got += piece
    sender.join()
    assert got == data


@contextlib.contextmanager
def straight(lab, gateway, family):
    """A connection of this kind; it ends as others do."""
    with lab.client.connect(SERVER[family], PORT, timeout=20) as connection:
        ask(connection, b"a question")
        row = next(row for row in gateway.must("GET", "/flows")["items"]
                   if row["client"]["port"] == connection.getsockname()[1])
        assert row["to_target"]["mover"] == row["to_client"]["mover"] == "kernel"
        assert sockets(lab, connection) == 0
        yield connection
        connection.shutdown(1)
        assert connection.recv(1) == b""
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 15, "the end of the flows")


@pytest.fixture
def cookies(lab):
    """Turns on that each request is due a cookie."""
    old = lab.gateway.sysctl("net.ipv4.tcp_syncookies", 1)
    yield lambda: lab.gateway.sysctl("net.ipv4.tcp_syncookies", 2)
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", old)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefilter_knows_them(lab, make_gateway, cookies, family):
    """The target's answers come to a port that no listener has, and the client's packets bring no cookie back; both are let
    through, and what is of no flow is not."""
    gateway = make_gateway(bpf=True)
    listener(gateway)
    for interface in ("in0", "out0"):
        prefilter(gateway, interface, only_listener_ports=True, syn_cookies="always")
    with servers.Peer(lab.server, SERVER[family], PORT, echo), \
            Drops(gateway, "in0") as at_clients, Drops(gateway, "out0") as at_targets:
        with straight(lab, gateway, family) as connection:
            cookies()
            with lab.client.connect(SERVER[family], PORT, timeout=20) as other:
                ask(other, b"with a cookie")
                assert sockets(lab, other) == 2
            exchange(connection, 3_000_000)
    assert at_targets.by_reason == {}
    assert at_clients.by_reason == {"syn_cookie_sent": 1, "syn_cookie_ok": 1}
    with Drops(gateway, "out0") as at_targets, pytest.raises(OSError):
        lab.server.connect(getattr(lab.client, family), PORT + 1, timeout=0.5)
    assert at_targets.by_reason.keys() == {"port"}


@needs_it
@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_engine_leads_to_the_same_sockets(lab, make_gateway, family):
    """A request that the program hands to a listening socket is taken from it as one that nft has led there; what follows
    does not come to the program."""
    gateway = make_gateway(bpf=True, args=["--interception", "ebpf"])
    assert engine(gateway)["engine"] == "ebpf", engine(gateway)
    listener(gateway)
    before = packets(gateway)
    with servers.Peer(lab.server, SERVER[family], PORT, echo), straight(lab, gateway, family) as connection:
        exchange(connection, 3_000_000)
    assert rise(gateway, before) == {"tcp": 1}
