"""The way back of what is answered by UDP, both families: known by answers, by probes of TCP where nothing is answered, and
not at all where neither is; broken and mended. No datagram but the clients' ever comes to a server."""

import contextlib

import pytest

from lab import Gateway
from lab.datagrams import DatagramPeer, ask, client
from net.test_doctor import check_of, red
from net.test_return_path import until

PORT = 8110
KNOWN = "answers to clients come back from {} of the 2 targets that clients were seen of{}"
EVIDENCE = "; of UDP, {} by their answers, {} by TCP probes of their addresses"


@pytest.fixture
def gateway(lab):
    """IPv4 by an upstream, IPv6 to the packet's own destination."""
    with Gateway(lab) as made:
        made.upstream("pool", [(lab.server.v4, PORT)])
        made.listener("four", protocol="udp", ports=[str(PORT)], destinations=["10.71.2.0/24"], upstream="pool")
        made.listener("six", protocol="udp", ports=[str(PORT)], destinations=["fd71:2::/64"])
        yield made


@contextlib.contextmanager
def peers(lab, answer=None):
    """What serves both families, and a client of each."""
    with contextlib.ExitStack() as stack:
        serving = [stack.enter_context(DatagramPeer(lab.server, address, PORT, answer)) for address in (lab.server.v4, lab.server.v6)]
        yield serving, [stack.enter_context(client(lab.client, address, PORT)) for address in (lab.server.v4, lab.server.v6)]


@contextlib.contextmanager
def no_way_back(lab):
    """The server's answers to the client go to a router that takes them and is silent; without its link address, which is
    nobody's, the kernel would notice and use the default route."""
    elsewhere = (("-4", "10.71.2.99", f"{lab.client.v4}/32"), ("-6", "fd71:2::99", f"{lab.client.v6}/128"))
    for family, router, prefix in elsewhere:
        lab.server.run("ip", family, "neigh", "replace", router, "lladdr", "02:00:00:00:00:99", "dev", "up0", "nud", "permanent")
        lab.server.run("ip", family, "route", "add", prefix, "via", router)
    try:
        yield
    finally:
        for family, router, prefix in elsewhere:
            lab.server.run("ip", family, "route", "del", prefix, check=False)
            lab.server.run("ip", family, "neigh", "del", router, "dev", "up0")


def nothing_made_up(serving, sent):
    """Servers have got what clients sent and nothing else."""
    for one in serving:
        assert {data for data, _ in one.seen} <= sent and one.seen


def test_broken_and_mended(lab, gateway):
    """A flow that goes on and is answered no more, and one that never is: red, with the command that mends it."""
    assert "no client was seen" in check_of(gateway, "return_path")["detail"]
    with peers(lab) as (serving, (_, lasting)), client(lab.client, lab.server.v4, PORT) as fresh:
        assert ask(lasting, b"first") == b"first"
        until(gateway, lambda text: "1 of the 1 targets" in text and EVIDENCE.format(1, 0) in text)
        with no_way_back(lab):
            fresh.send(b"second")
            until(gateway, lambda text: lasting.send(b"third") and "2 of 2 targets" in text)
            assert "(UDP, found by TCP" in check_of(gateway, "return_path")["detail"]
            assert red(gateway) == {"return_path"}
            for left in (1, 0):
                place, command = check_of(gateway, "return_path")["fix"].split("; or")[0].removeprefix("on ").split(": ", 1)
                assert place in (lab.server.v4, lab.server.v6)
                lab.server.run(*command.split())
                assert gateway.must("POST", "doctor/probe") == {"targets": 2}
                until(gateway, lambda text, left=left: "1 of 2 targets" in text if left else text.startswith(KNOWN.format(2, "")))
        assert red(gateway) == set()
        for one in (lasting, fresh):
            one.settimeout(5)
        while ask(lasting, b"last") != b"last":  # answers to what was sent before
            pass
        assert ask(fresh, b"last") == b"last"
        until(gateway, lambda text: lasting.send(b"more") and fresh.send(b"more") and text == KNOWN.format(2, EVIDENCE.format(2, 0)))
        nothing_made_up(serving, {b"first", b"second", b"third", b"last", b"more"})


def test_no_answers(lab, gateway):
    """Where nobody answers by UDP, and nothing is wrong with that, a probe tells that the way back is well. If the host does
    not say anything to a probe either, the check says that it does not know."""
    with peers(lab, lambda data, address: None) as (serving, clients):
        for one in clients:
            one.send(b"note")
        until(gateway, lambda text: text == KNOWN.format(2, EVIDENCE.format(0, 2)))
        lab.server.nft("add table inet deaf\nadd chain inet deaf in { type filter hook input priority 0; }\n"
                       "add rule inet deaf in meta l4proto tcp drop\n")
        try:
            gateway.must("POST", "doctor/probe")
            until(gateway, lambda text: text == KNOWN.format(0, "; unknown of 2: no probe (TCP) is answered, from whatever address"))
            assert red(gateway) == set()
        finally:
            lab.server.nft("delete table inet deaf")
        nothing_made_up(serving, {b"note"})


def test_filter_of_tcp(lab, gateway):
    """A server that does not answer clients by TCP, only this machine: what a probe takes for a fault, an answer by UDP
    takes back, if to another client."""
    others = [(lab.server.v4, "10.71.1.77/32"), (lab.server.v6, "fd71:1::77/128")]
    for _, address in others:
        lab.client.run("ip", "addr", "add", address, "dev", "up0", "preferred_lft", 0)
    lab.server.nft("add table inet deaf\nadd chain inet deaf in { type filter hook input priority 0; }\n"
                   f"add rule inet deaf in meta l4proto tcp ip saddr {lab.client.v4} drop\n"
                   f"add rule inet deaf in meta l4proto tcp ip6 saddr {lab.client.v6} drop\n")
    try:
        with peers(lab) as (_, clients), contextlib.ExitStack() as stack:
            for one in clients:
                one.send(b"?")
            until(gateway, lambda text: text == KNOWN.format(2, EVIDENCE.format(2, 0)))
            gateway.must("POST", "doctor/probe")
            until(gateway, lambda text: "2 of 2 targets" in text)
            for server, address in others:
                ask(stack.enter_context(client(lab.client, server, PORT, source=(address.split("/")[0], 0))))
            until(gateway, lambda text: text == KNOWN.format(2, EVIDENCE.format(2, 0)))
    finally:
        lab.server.nft("delete table inet deaf")
        for _, address in others:
            lab.client.run("ip", "addr", "del", address, "dev", "up0")
