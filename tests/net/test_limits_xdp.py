"""Limits of a listener's packets at prefilters: where and why, that they hold while prefilters come and go, what is told."""

import contextlib
import json
import time

import pytest

from lab import promlint
from lab.datagrams import DatagramPeer
from lab.datagrams import ask as datagram_ask
from lab.datagrams import client as datagram_client
from lab.process import amount, wait_for
from net.test_explain import stages_of
from net.test_ledger import change, ledger
from net.test_placements import ADDRESSES, INTERFACES, PACKETS_RATE, PORT, Datagrams, Sink, limited, of_listener, seen
from net.test_prefilter import counts, prefilter

pytestmark = pytest.mark.shared_gateway

CLIENTS = {"10.71.2.2": "10.71.1.2", "fd71:2::2": "fd71:1::2"}
BURST = 60
LEAST = 0.9  # of what may come: how exact it is test_placements says, where nothing is attached meanwhile
STEP = amount(0.7, 2)


@pytest.fixture
def gateway(make_gateway):
    """A gateway whose programs can be pinned."""
    return make_gateway(bpf=True)


def listen(gateway, limits, name="packets", **fields):
    """A listener of datagrams with these limits."""
    gateway.listener(name, **{"protocol": "udp", "ports": [str(PORT)], "rate_limits": list(limits), **fields})


def limit(gateway, name="packets", **fields):
    """A limit of packets of each source."""
    gateway.must("PUT", f"rate-limits/{name}", {"name": name, "metric": "packets", "rate": 1, "per": "minute", **fields})


def send(host, address, n, port=PORT):
    """So many datagrams, one after the other; from which port."""
    with datagram_client(host, address, port) as made:
        for _ in range(n):
            with contextlib.suppress(ConnectionRefusedError):
                made.send(b"x")
        return made.getsockname()[1]


class Watch:
    """Greedy clients of both families, from before the first packet on."""

    def __init__(self, lab, stack):
        self.began = time.monotonic()
        self.clients = [stack.enter_context(Datagrams(lab.client, stack.enter_context(Sink(lab.server, address, PORT)),
                                                      address, PORT, 3 * PACKETS_RATE)) for address in ADDRESSES]

    def expect(self, where):
        """Not a packet more has come than may have, nor much less."""
        time.sleep(0.3)
        for client in self.clients:
            when, tried, passed = client.look()
            allowed = BURST + PACKETS_RATE * (when - self.began)
            assert tried > 2 * PACKETS_RATE * (when - self.began) - 3 * PACKETS_RATE, (where, tried)
            assert LEAST * (allowed - BURST) <= passed <= allowed + 2, (where, passed, allowed)


def detach(lab, program):
    """What an administrator can do: takes the program's link off the interface."""
    links = json.loads(lab.gateway.run("bpftool", "-j", "link", "show").stdout)
    lab.gateway.run("bpftool", "link", "detach", "id", next(link["id"] for link in links if link.get("prog_id") == program))


def test_it_holds_while_prefilters_come_and_go(lab, gateway):
    """In nft, at prefilters in each mode, without them, while no daemon lives, and after another's hand."""
    of_listener(gateway, burst=BURST)
    with contextlib.ExitStack() as stack:
        watch = Watch(lab, stack)
        for fields in (None, {"mode": "generic"}, {"mode": "native"}, {"mode": "native", "enabled": False}, {"mode": "generic"}):
            for interface in INTERFACES if fields else ():
                prefilter(gateway, interface, **fields) if fields.get("enabled", True) else gateway.must(
                    "PUT", f"prefilters/{interface}", {"interface": interface, **fields})
            placed = fields and fields.get("enabled", True)
            found = seen(gateway)
            assert (found["placement"], found["interfaces"]) == (("xdp", INTERFACES) if placed else ("nft", [])), found
            time.sleep(STEP)
            watch.expect(fields)
        over = seen(gateway)["over"]
        gateway.kill()
        time.sleep(STEP)
        watch.expect("no daemon")
        gateway.start()
        watch.expect("the next daemon")
        assert seen(gateway)["placement"] == "xdp"
        # What prefilters that are gone had counted went with the daemon; what those that are there have, did not.
        assert seen(gateway)["over"] > over / 5
        program = next(row["program"] for row in gateway.status()["prefilters"] if row["interface"] == "in0")
        detach(lab, program)
        assert seen(gateway)["interfaces"] in (["in1"], INTERFACES)
        watch.expect("another's hand")
        wait_for(lambda: seen(gateway)["interfaces"] == INTERFACES, 10, "the program")
        watch.expect("the program is back")
        before = seen(gateway)
        for interface in INTERFACES:
            gateway.delete("prefilters", interface)
        after = seen(gateway)
        assert after["placement"] == "nft" and after["over"] >= before["over"] > 0
        assert after["listeners"][0]["over"] == after["over"]
        time.sleep(STEP)
        watch.expect("deleted")


def test_a_changed_limit_counts_from_the_next_packet(lab, gateway):
    """Another rate is another share at prefilters too; one that does not change keeps what has been used."""
    limit(gateway, burst=5)
    listen(gateway, ["packets"])
    prefilter(gateway)
    for address in ADDRESSES:
        with Sink(lab.server, address, PORT) as sink:
            def come(n, sink=sink, address=address):
                before = sum(sink.counts.values())
                send(lab.client, address, n)
                time.sleep(0.2)
                return sum(sink.counts.values()) - before
            assert (come(8), come(3)) == (5, 0)
            gateway.listener("other", protocol="udp", ports=["9999"])
            prefilter(gateway, drop_bogons=True)
            assert come(3) == 0
            gateway.kill()
            gateway.start()
            assert come(3) == 0 and seen(gateway)["placement"] == "xdp"
            limit(gateway, burst=4)
            assert (come(8), come(3)) == (4, 0)
            limit(gateway, burst=5)


@pytest.mark.parametrize("fields, words", [
    ({"metric": "bytes", "rate": 1000000}, "judged before it reaches a socket"), ({"key": "listener"}, "share it"), ({"mode": "shadow"}, "shadow"),
    ({"action": "ban"}, "banned"), ({"escalate": {"after": 5}}, "banned")])
def test_what_stays_in_nft(gateway, fields, words):
    """What nft must see, or has no gain: with the reason."""
    limit(gateway, **fields)
    listen(gateway, ["packets"])
    prefilter(gateway)
    found = seen(gateway)
    assert (found["placement"], found["interfaces"]) == ("nft", []) and words in found["reason"], found
    prefilter(gateway)


def test_who_names_it_decides(gateway):
    """A listener of TCP, or one that names it behind a limit in nft, and whatever is behind that; without a prefilter none."""
    limit(gateway)
    limit(gateway, "second")
    limit(gateway, "bytes", metric="bytes", rate=1000000)
    listen(gateway, ["packets", "second", "bytes"])
    assert "none is in force" in seen(gateway)["reason"]
    prefilter(gateway, "in1")
    assert [seen(gateway, name)["placement"] for name in ("packets", "second", "bytes")] == ["xdp", "xdp", "nft"]
    listen(gateway, ["second"], "tcp", protocol="tcp", ports=["80"])
    assert [seen(gateway, name)["placement"] for name in ("packets", "second")] == ["xdp", "nft"]
    assert "TCP" in seen(gateway, "second")["reason"]
    listen(gateway, ["bytes", "packets"], "behind", ports=["81"])
    assert seen(gateway)["placement"] == "nft" and "behind" in seen(gateway)["reason"]
    gateway.delete("listeners", "behind")
    listen(gateway, ["packets"], "elsewhere", ports=["82"], interfaces=["in0"])
    assert seen(gateway)["interfaces"] == ["in1"]
    listen(gateway, ["packets", "second", "bytes"], interfaces=["in0"])
    assert (seen(gateway)["placement"], seen(gateway)["interfaces"]) == ("nft", [])
    gateway.delete("listeners", "elsewhere")
    gateway.delete("listeners", "packets")
    assert seen(gateway)["placement"] == "none"


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_only_what_nft_would_count(lab, gateway, mode):
    """Not answers of targets, packets to the gateway itself, fragments, and what is of a listener that comes first."""
    limit(gateway, burst=3)
    listen(gateway, [], "echo", interfaces=INTERFACES)
    listen(gateway, ["packets"], "rest", ports=[])
    for interface in (*INTERFACES, "out0"):
        prefilter(gateway, interface, mode=mode)
    assert seen(gateway)["interfaces"] == [*INTERFACES, "out0"]
    for address, own in zip(ADDRESSES, ("10.71.1.1", "fd71:1::1")):
        with DatagramPeer(lab.server, address, PORT), datagram_client(lab.client, address, PORT) as made:
            for _ in range(20):
                assert datagram_ask(made, b"x") == b"x"
        with DatagramPeer(lab.gateway, own, PORT + 1), datagram_client(lab.client, own, PORT + 1) as made:
            for _ in range(20):
                assert datagram_ask(made, b"x") == b"x"
    assert limited(gateway) == 0 and seen(gateway)["over"] == 0
    for address in ADDRESSES:
        with Sink(lab.server, address, PORT + 2) as sink:
            send(lab.client, address, 8, PORT + 2)
            time.sleep(0.3)
            assert list(sink.counts.values()) == [3]
    assert limited(gateway) == 10
    # In pieces: not judged here, and over in nft.
    with datagram_client(lab.client, ADDRESSES[0], PORT + 2) as made:
        made.send(b"x" * 4000)
    time.sleep(0.2)
    assert limited(gateway) == 10 and seen(gateway)["over"] == 11


def test_an_interface_that_carries_vlans(lab, gateway):
    """A driver may take the tags off before the program sees a frame: left to nft while there is one."""
    limit(gateway, burst=3)
    listen(gateway, ["packets"])
    prefilter(gateway)
    added = lab.gateway.run("ip", "link", "add", "link", "in0", "name", "in0.7", "type", "vlan", "id", "7", check=False)
    if added.returncode:
        pytest.skip(added.stderr)
    try:
        found = wait_for(lambda: found if (found := seen(gateway))["placement"] == "nft" else None, 10, "the VLAN")
        assert "VLAN" in found["reason"]
        send(lab.client, ADDRESSES[0], 5)
        wait_for(lambda: seen(gateway)["over"] == 2, 5, "two")
        assert limited(gateway) == 0
    finally:
        lab.gateway.run("ip", "link", "del", "in0.7")
    wait_for(lambda: seen(gateway)["placement"] == "xdp", 10, "the program")
    send(lab.client, ADDRESSES[0], 5)
    wait_for(lambda: limited(gateway) > 0, 5, "drops")


def test_what_is_told(lab, gateway):
    """Counters, ledger, metrics, explain and trace have the limit at the prefilter, and nobody's share is used up by asking."""
    limit(gateway, burst=3)
    listen(gateway, ["packets"])
    prefilter(gateway)
    for number, address in enumerate(ADDRESSES, 1):
        packet = {"protocol": "udp", "source": CLIENTS[address], "destination": address, "destination_port": PORT}
        for _ in range(5):
            assert stages_of(gateway, **packet)[0]["prefilter"]["reason"] == "passed"
        trace = gateway.must("POST", "trace", packet)["id"]
        before = ledger(gateway)
        with Sink(lab.server, address, PORT) as sink:
            send(lab.client, address, 7)
            wait_for(lambda: list(sink.counts.values()) == [3], 5, "three")
        found = seen(gateway)
        assert (found["passed"], found["over"], found["over_bytes"]) == (3 * number, 4 * number, 4 * 29 if number == 1 else 4 * (29 + 49))
        assert found["listeners"] == [{"listener": "packets", "passed": 3 * number, "over": 4 * number}]
        assert counts(gateway)["limited"] == 4 * number
        after = change(before, ledger(gateway))
        assert after["link"]["limited"] == 4 and after["stack"]["relay_udp"] == 3
        stages, verdict = stages_of(gateway, **packet)
        assert verdict == "prefilter" and stages["prefilter"]["reason"] == "limited" and stages["prefilter"]["limit"] == "packets"
        traced = wait_for(lambda: next((p for p in gateway.must("GET", f"trace/{trace}")["packets"] if p["verdict"] == "prefilter"),
                                       None), 10, "the packet")
        assert traced["limit"] == "packets" and traced["steps"][0]["reason"] == "limited"
    text = gateway.api("GET", "/metrics").text
    assert promlint.faults_of(text) == [] and 'gateway_limit_over_packets_total{rate_limit="packets"} 8\n' in text
    assert 'gateway_xdp_packets_total{interface="in0",reason="limited"} 8\n' in text


def test_sources_beyond_those_that_have_a_place(lab, gateway):
    """A prefix shares; whoever is in allow is nft's alone."""
    limit(gateway, burst=4, key="source_prefix", prefix_v4=13, prefix_v6=16)
    listen(gateway, ["packets"])
    for interface in INTERFACES:
        prefilter(gateway, interface)
    for address in ADDRESSES:
        with Sink(lab.server, address, PORT) as sink:
            for host in (lab.client, lab.client2, lab.client):
                send(host, address, 3)
            time.sleep(0.3)
            assert sum(sink.counts.values()) == 4
    over = limited(gateway)
    prefilter(gateway, allow=["10.71.0.0/16", "fd71::/16"])
    send(lab.client, ADDRESSES[0], 3)
    time.sleep(0.2)
    assert limited(gateway) == over
