"""Connections that have no socket on the gateway: packets are as large as their ways take."""

import os
import struct
import time

import pytest

from lab import servers
from lab.segments import ACK, SYN, Wire

from net.test_sockmap import echo
from net.test_stitch import FAMILIES, FAR, SERVER, TARGET, ask_much
from net.test_straight import OTHER, Names, drops, is_straight, nothing_left, straight, told

pytestmark = pytest.mark.shared_gateway

PORT = 7970


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system."""
    return make_gateway(bpf=True)


def mss_of(frame, family):
    """The largest segment that a SYN's first option names."""
    at = 14 + (40 if family == "v6" else 20) + 20
    assert frame[at:at + 2] == b"\x02\x04", frame.hex()
    return struct.unpack_from("!H", frame, at + 2)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_mss(lab, gateway, family):
    """A side whose packets have to be smaller: the other one is told so by the SYN, or its answer; what is sent goes
    through without a word of ICMP."""
    straight(gateway)
    headers = 60 if family == "v6" else 40
    address = getattr(lab.client, family)
    quiet = "icmp type destination-unreachable drop" if family == "v4" else "icmpv6 type packet-too-big drop"
    for narrow, other in (("in0", "out0"), ("out0", "in0")):
        lab.gateway.run("ip", "link", "set", narrow, "mtu", "1400")
        time.sleep(1.2)  # the relay asks for it so often
        try:
            with Names(lab, family), drops(lab.client, "quiet", quiet), drops(lab.server, "quiet", quiet):
                with Wire(lab.server, "up0", lab.gateway, "out0") as there, \
                        Wire(lab.client, "up0", lab.gateway, "in0") as here, \
                        lab.client.connect(SERVER[family], PORT) as connection:
                    told(connection)
                    port = connection.getsockname()[1]
                    flags, _, _, syn = there.answer(address, port, PORT)
                    assert flags == SYN
                    flags, _, _, answer = here.answer(SERVER[family], PORT, port)
                    assert flags == SYN | ACK
                    assert mss_of(syn, family) == (1400 if narrow == "in0" else 1500) - headers
                    assert mss_of(answer, family) == (1400 if narrow == "out0" else 1500) - headers
                    ask_much(connection, os.urandom(2_000_000))
                    assert is_straight(lab, gateway, connection)
        finally:
            lab.gateway.run("ip", "link", "set", narrow, "mtu", "1500")
    nothing_left(gateway)
    assert gateway.counters()["flows_reset"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_mss_of_a_syn_that_is_sent_again(lab, gateway, family):
    """The first SYN is lost behind the gateway: what the client sends again says the same."""
    straight(gateway)
    headers = 60 if family == "v6" else 40
    lost = f"tcp dport {PORT} tcp flags & (syn|ack) == syn limit rate 1/hour burst 1 packets drop"
    lab.gateway.run("ip", "link", "set", "in0", "mtu", "1400")
    time.sleep(1.2)
    try:
        with Names(lab, family), drops(lab.server, "lost", lost), \
                Wire(lab.server, "up0", lab.gateway, "out0") as there, \
                lab.client.connect(SERVER[family], PORT) as connection:
            told(connection)
            seen = [there.answer(getattr(lab.client, family), connection.getsockname()[1], PORT) for _ in range(2)]
            assert [flags for flags, *_ in seen] == [SYN, SYN]
            assert [mss_of(frame, family) for *_, frame in seen] == [1400 - headers] * 2
            ask_much(connection, os.urandom(500_000))
    finally:
        lab.gateway.run("ip", "link", "set", "in0", "mtu", "1500")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["itself", "upstream"])
def test_narrow_path(lab, gateway, where, family):
    """A router behind the gateway takes smaller packets only, and says so: much goes through all the same, at the second
    try at the latest."""
    if where == "upstream":
        gateway.upstream("pool", [(FAR[family], PORT)])
    straight(gateway, **({"upstream": "pool"} if where == "upstream" else {}))
    for host in (lab.client, lab.gateway, lab.far):
        for number in ("-4", "-6"):
            host.run("ip", number, "route", "flush", "cache")
    address = OTHER[family] if where == "upstream" else FAR[family]
    with servers.Peer(lab.far, FAR[family], PORT, echo):
        for attempt in range(3):
            try:
                with lab.client.connect(address, PORT, timeout=15) as connection:
                    ask_much(connection, os.urandom(200_000))
                break
            except ConnectionError:
                assert attempt < 1, "no connection carries more than a packet"


def route_narrow(lab, interface, family, mtu):
    """The gateway's way by an interface takes packets of this size, from now on."""
    number = "6" if family == "v6" else "4"
    network = lab.gateway.run("ip", f"-{number}", "route", "show", "dev", interface, "root",
                              "fd00::/8" if family == "v6" else "10.0.0.0/8").stdout.split()[0]
    lab.gateway.run("ip", f"-{number}", "route", "replace", network, "dev", interface, "mtu", "lock", str(mtu))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("to", ["server", "pool"])
def test_way_becomes_narrow(lab, gateway, to, family):
    """The gateway's own ways take smaller packets from now on: the peers of an open connection hear of it, each with the
    addresses that it knows."""
    if to == "pool":
        gateway.upstream("pool", [(TARGET[family], PORT)])
    straight(gateway, **({"upstream": "pool"} if to == "pool" else {}))
    address = OTHER[family] if to == "pool" else SERVER[family]
    try:
        with servers.Peer(lab.server, TARGET[family] if to == "pool" else address, PORT, echo), \
                lab.client.connect(address, PORT, timeout=15) as connection:
            ask_much(connection, os.urandom(100_000))
            for interface, mtu in (("out0", 1400), ("in0", 1340)):
                route_narrow(lab, interface, family, mtu)
                ask_much(connection, os.urandom(300_000))
            assert is_straight(lab, gateway, connection)
    finally:
        for interface in ("out0", "in0"):
            route_narrow(lab, interface, family, 1500)
        for host in (lab.client, lab.server):
            for number in ("-4", "-6"):
                host.run("ip", number, "route", "flush", "cache")
    nothing_left(gateway)
    assert gateway.counters()["flows_reset"] == 0
