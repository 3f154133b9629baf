"""The short cut of UDP flows: who takes it, what it carries, and what brings its flows back to the rules."""

import os
import signal
import socket
from pathlib import Path

import pytest

from lab.datagrams import DatagramPeer, ask, client, is_silent
from lab.gateway import ROOT
from lab.process import wait_for

FAMILIES = ["v4", "v6"]
SERVERS = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
TARGETS = {"v4": "10.71.2.3", "v6": "fd71:2::3"}
FAR = {"v4": "10.71.4.2", "v6": "fd71:4::2"}
GATEWAYS = {"v4": "10.71.2.1", "v6": "fd71:2::1"}
# A filter of somebody else: any object with programs for that place alone will do.
BPF_OBJECT = ROOT / "build" / os.environ.get("LAB_BUILD", "dev") / "bpf" / "intercept.bpf.o"
# More than a flow needs to enter (UDP_SHORTCUT_AFTER, questions and answers together).
ENTERS = 20


@pytest.fixture
def gateway(make_gateway):
    """A gateway with a bpf file system of its own: without one there is no short cut."""
    return make_gateway(bpf=True)


def tell(data, address):
    """A server that says whom it sees, and gives the question back."""
    return f"{address[0]} {address[1]} ".encode() + data


def counters(gateway):
    """The relay's counters."""
    return gateway.status()["relay"]["counters"]


def flow_of(gateway):
    """The one flow that there is."""
    return gateway.must("GET", "/flows")["items"][0]


def enters(gateway, made, flows=1):
    """Asks often enough that the flow takes the short cut."""
    for _ in range(ENTERS):
        ask(made)
    wait_for(lambda: counters(gateway)["shortcut_flows"] == flows, 5, "the short cut")


class Frozen:
    """While it is entered the relay does nothing: what still arrives has gone past it."""

    def __init__(self, gateway):
        self.pid = gateway.relay_pid()

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)
        tasks = [path / "stat" for path in Path(f"/proc/{self.pid}/task").iterdir()]
        wait_for(lambda: all(task.read_text().rsplit(")", 1)[1].split()[0] == "T" for task in tasks), 5, "all threads")

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


def past_relay(gateway, made, data=b"?"):
    """The answer to a datagram while the relay is frozen; None if there is none."""
    with Frozen(gateway):
        made.settimeout(0.5)
        try:
            return ask(made, data)
        except socket.timeout:
            return None
        finally:
            made.settimeout(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_everybody_sees_the_same(lab, gateway, family):
    """Plain, to an upstream with another port, and from the gateway's address: the same addresses and ports on both
    sides before and after, whatever the size of a datagram, and all of it counted."""
    gateway.upstream("pool", [(TARGETS[family], 7711)])
    gateway.listener("plain", protocol="udp", ports=["7710"])
    gateway.listener("pooled", protocol="udp", ports=["7712"], upstream="pool")
    gateway.listener("hidden", protocol="udp", ports=["7713"], source_address="gateway")
    sent = 0
    with DatagramPeer(lab.server, SERVERS[family], 7710, tell), DatagramPeer(lab.server, TARGETS[family], 7711, tell), \
            DatagramPeer(lab.server, SERVERS[family], 7713, tell):
        for number, port in enumerate((7710, 7712, 7713)):
            with client(lab.client, SERVERS[family], port) as made:
                before = ask(made)
                enters(gateway, made, number + 1)
                assert past_relay(gateway, made) == before
                seen = GATEWAYS[family] if port == 7713 else getattr(lab.client, family)
                assert before.split()[0].decode() == seen
                assert port == 7713 or before.split()[1].decode() == str(made.getsockname()[1])
                for size in (0, 1, 1000, 1430):
                    data = os.urandom(size)
                    assert past_relay(gateway, made, data) == before[:-1] + data, size
                # In fragments: by way of the relay, and whole.
                data = os.urandom(4000)
                assert ask(made, data) == before[:-1] + data
                sent += 1 + ENTERS + 1 + 4 + 1
    wait_for(lambda: counters(gateway)["datagrams_to_target"] == counters(gateway)["datagrams_to_client"] == sent, 10,
             "all that was sent in the counters")
    assert counters(gateway)["bytes_to_target"] == 3 * (1 + ENTERS + 1 + 2431 + 4000)
    assert counters(gateway)["bytes_shortcut"] > 0
    assert counters(gateway)["udp_flows_opened"] == 3


def test_it_is_shown(lab, gateway):
    """In the flow's row, with its bytes, and in the status: attached where it can be, idle without a listener."""
    assert gateway.status()["relay"]["movers"]["shortcut"]["state"] == "idle"
    assert "shortcut" not in lab.gateway.run("tc", "filter", "show", "dev", "in0", "ingress").stdout
    gateway.listener("u", protocol="udp", ports=["7720"])
    shown = gateway.status()["relay"]["movers"]["shortcut"]
    assert shown["state"] == "on" and all(item["attached"] for item in shown["interfaces"])
    with DatagramPeer(lab.server, SERVERS["v4"], 7720), client(lab.client, SERVERS["v4"], 7720) as made:
        enters(gateway, made)
        for _ in range(10):
            assert past_relay(gateway, made, b"x" * 100) == b"x" * 100
        wait_for(lambda: flow_of(gateway)["to_target"]["bytes"] == ENTERS + 1000, 5, "the bytes of the flow")
        assert flow_of(gateway)["to_target"]["mover"] == flow_of(gateway)["to_client"]["mover"] == "kernel"
        # Ended by an operator, its next datagram begins another one, by way of the relay.
        gateway.must("DELETE", f"/flows/{flow_of(gateway)['id']}")
        assert past_relay(gateway, made) is None
        assert ask(made) == b"?"
    gateway.delete("listeners", "u")
    assert gateway.status()["relay"]["movers"]["shortcut"]["state"] == "idle"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ledger_names_it(lab, gateway, family):
    """What took the short cut has an outcome of its own, by the interface it came in by, in packets and bytes; nothing is
    left over, and a daemon that comes anew counts on."""
    def ledger():
        return {row["interface"]: row for row in gateway.must("GET", "/stats/ledger")["interfaces"]}

    def carried(rows):
        return {name: rows[name]["stack"]["outcomes"]["shortcut_udp"] for name in ("in0", "out0")}

    gateway.listener("u", protocol="udp", ports=["7721"])
    with DatagramPeer(lab.server, SERVERS[family], 7721), client(lab.client, SERVERS[family], 7721) as made:
        enters(gateway, made)
        before = ledger()
        for _ in range(10):
            assert past_relay(gateway, made, b"x" * 100) == b"x" * 100
        after = ledger()
        for name, was in carried(before).items():
            now = carried(after)[name]
            assert now["packets"] - was["packets"] == 10
            assert now["bytes"] - was["bytes"] == 10 * (100 + 8 + (20 if family == "v4" else 40))
            assert after[name]["stack"]["in"]["packets"] - before[name]["stack"]["in"]["packets"] >= 10
            assert after[name]["stack"]["rest"] == 0 and after[name]["passed_on"]["rest"] == 0
            # Frames that are not IP, or none of ours, come now and then; ten datagrams would show.
            assert after[name]["link"]["not_taken"] - before[name]["link"]["not_taken"] < 10
        text = gateway.api("GET", "/metrics").text
        assert f'gateway_ledger_packets_total{{interface="in0",outcome="shortcut_udp"}} {carried(after)["in0"]["packets"]}\n' in text
        gateway.kill()
        gateway.start()
        assert carried(ledger())["in0"]["packets"] >= carried(after)["in0"]["packets"]


def test_who_may_not(lab, gateway):
    """Limits and headers want to see each datagram, and a mover that is named is the one that is used."""
    gateway.must("PUT", "/rate-limits/many", {"key": "source", "metric": "packets", "rate": 100000})
    gateway.listener("limited", protocol="udp", ports=["7730"], rate_limits=["many"])
    gateway.listener("copied", protocol="udp", ports=["7731"], mover="copy")
    gateway.listener("headed", protocol="udp", ports=["7732"], proxy_protocol="v2")
    gateway.listener("plain", protocol="udp", ports=["7733"])
    for port in (7730, 7731, 7732, 7733):
        with DatagramPeer(lab.server, SERVERS["v4"], port), client(lab.client, SERVERS["v4"], port) as made:
            for _ in range(2 * ENTERS):
                ask(made)
            assert (past_relay(gateway, made) is not None) == (port == 7733), port
    assert counters(gateway)["shortcut_flows"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_changes_bring_it_back(lab, gateway, family):
    """A ban, its end, another listener, another target, a trace: each counts from the next datagram on."""
    address = getattr(lab.client, family)
    gateway.upstream("one", [(SERVERS[family], 7740)])
    gateway.upstream("two", [(TARGETS[family], 7740)])
    gateway.listener("u", protocol="udp", ports=["7740"], upstream="one")
    with DatagramPeer(lab.server, SERVERS[family], 7740, lambda *_: b"one"), \
            DatagramPeer(lab.server, TARGETS[family], 7740, lambda *_: b"two"), \
            client(lab.client, SERVERS[family], 7740) as made:
        enters(gateway, made)
        assert past_relay(gateway, made) == b"one"
        gateway.must("POST", "/bans", {"address": address, "ban_s": 60, "reason": "test"})
        made.send(b"?")
        assert is_silent(made)
        made.settimeout(3)
        gateway.must("DELETE", f"/bans?address={address}")
        for _ in range(ENTERS):
            assert ask(made) == b"one"
        assert past_relay(gateway, made) == b"one", "it has not come back to the short cut"
        trace = gateway.must("POST", "/trace", {"protocol": "udp", "source": address, "destination": SERVERS[family],
                                               "destination_port": 7740, "seconds": 20})
        assert past_relay(gateway, made) is None, "a traced flow has to meet the rules"
        made.recv(100)  # which the relay has answered now
        gateway.must("DELETE", f"/trace/{trace['id']}")
        assert past_relay(gateway, made) == b"one"
        gateway.listener("u", protocol="udp", ports=["7740"], upstream="two")
        assert ask(made) == b"two"
        gateway.listener("u", protocol="udp", ports=["7740"], action="drop")
        made.send(b"?")
        assert is_silent(made)


def test_others_come_first(lab, gateway):
    """While somebody else translates addresses, or only looks at what is relayed, nothing goes past that; chains for
    forwarded packets see no relayed ones."""
    gateway.listener("u", protocol="udp", ports=["7745"])

    def shown():
        return gateway.status()["relay"]["movers"]["shortcut"]
    with DatagramPeer(lab.server, SERVERS["v4"], 7745), client(lab.client, SERVERS["v4"], 7745) as made:
        lab.gateway.nft("add table ip other\nadd chain ip other f { type filter hook forward priority 0; }\n")
        try:
            enters(gateway, made)
            assert past_relay(gateway, made) == b"?"
            lab.gateway.nft("add chain ip other p { type nat hook postrouting priority 100; }\n")
            wait_for(lambda: shown()["state"] == "closed", 5, "the short cut closed")
            assert "table other" in shown()["why"]
            assert past_relay(gateway, made) is None
            made.recv(100)
        finally:
            lab.gateway.nft("delete table ip other\n")
        lab.gateway.run("ip", "xfrm", "policy", "add", "dir", "out", "dst", "192.0.2.0/24", "action", "block")
        try:
            wait_for(lambda: "IPsec" in str(shown()["why"]), 5, "the policy seen")
        finally:
            lab.gateway.run("ip", "xfrm", "policy", "flush")
        wait_for(lambda: shown()["state"] == "on", 5, "the short cut open")
        assert past_relay(gateway, made) == b"?"


@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_path(lab, gateway, family):
    """What the path to the server does not take goes by way of the relay, in fragments, as soon as that is known."""
    gateway.listener("u", protocol="udp", ports=["7750"])
    data = os.urandom(1400)
    with DatagramPeer(lab.far, FAR[family], 7750), client(lab.client, FAR[family], 7750, timeout=1) as made:
        for _ in range(ENTERS):
            ask(made)
        assert past_relay(gateway, made) == b"?"
        answers = []
        for _ in range(4):
            try:
                answers.append(ask(made, data))
            except socket.timeout:
                continue
        assert data in answers
        assert past_relay(gateway, made) == b"?"


def test_who_may_die(lab, gateway):
    """The flow goes on while its relay is dead, and while the daemon is; the next relay knows of no flow of the dead
    one, and makes it again."""
    gateway.listener("u", protocol="udp", ports=["7760"])
    with DatagramPeer(lab.server, SERVERS["v4"], 7760, tell), client(lab.client, SERVERS["v4"], 7760) as made:
        before = ask(made)
        enters(gateway, made)
        gateway.break_relay()
        assert ask(made) == before
        gateway.mend_relay()
        gateway.wait_relay(0)
        wait_for(lambda: gateway.status()["relay"]["state"] == "running", 10, "the relay")
        assert past_relay(gateway, made) is None
        assert made.recv(100) == before, "what waited in the socket is answered"
        enters(gateway, made, 2)
        gateway.kill()
        assert ask(made) == before
        gateway.start()
        for _ in range(ENTERS):
            assert ask(made) == before
        assert past_relay(gateway, made) == before


def test_idle_flows_end(lab, gateway):
    """A flow whose datagrams the relay does not see lives as long as they come, and not longer."""
    gateway.listener("u", protocol="udp", ports=["7770"], idle_timeout_s=2)
    with DatagramPeer(lab.server, SERVERS["v4"], 7770), client(lab.client, SERVERS["v4"], 7770) as made:
        enters(gateway, made)
        asked = [0]

        def four_seconds():
            ask(made)
            asked[0] += 1
            return asked[0] > 40
        wait_for(four_seconds, 30, "some seconds of traffic", interval=0.1)
        assert counters(gateway)["udp_flows_closed"] == 0
        wait_for(lambda: counters(gateway)["udp_idle"] == 1, 20, "the end of the flow")
        assert past_relay(gateway, made) is None
        assert made.recv(100) == b"?"
        assert counters(gateway)["udp_flows_opened"] == 2


def test_nothing_is_left(lab, gateway):
    """--cleanup removes filters, maps and what was made for them; a filter of somebody else stays, with its place."""
    if gateway.status()["interception"]["engine"] == "ebpf":
        pytest.skip("the other engine has made the place")
    lab.gateway.run("tc", "qdisc", "add", "dev", "out0", "clsact")
    try:
        gateway.listener("u", protocol="udp", ports=["7780"])
        interfaces = [item["interface"] for item in gateway.status()["relay"]["movers"]["shortcut"]["interfaces"]]
        assert "out0" in interfaces and len(interfaces) > 1
        for interface in interfaces:
            assert "shortcut" in lab.gateway.run("tc", "filter", "show", "dev", interface, "ingress").stdout
        lab.gateway.run("bpftool", "prog", "load", BPF_OBJECT, gateway.bpf / "other", "type", "tc")
        lab.gateway.run("tc", "filter", "add", "dev", "in0", "ingress", "prio", 1, "bpf", "direct-action", "object-pinned",
                        gateway.bpf / "other")
        gateway.stop()
        gateway.run_once("--cleanup")
        for interface in interfaces:
            filters = lab.gateway.run("tc", "filter", "show", "dev", interface, "ingress").stdout
            assert filters.count("direct-action") == (interface == "in0"), filters
            made = "clsact" in lab.gateway.run("tc", "qdisc", "show", "dev", interface).stdout
            assert made == (interface in ("out0", "in0")), interface
    finally:
        for interface in ("out0", "in0"):
            lab.gateway.run("tc", "qdisc", "del", "dev", interface, "clsact", check=False)
