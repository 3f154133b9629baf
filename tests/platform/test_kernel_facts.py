"""What the rules rely on in the kernel, proved with the very text that is rendered (tests/golden/full.nft).

Three namespaces: a client, a gateway with that table and its routing, a server. A small relay with a transparent
socket stands in for gateway-relay: it answers "relay <original destination>"; the server answers "server <client>".
"""

import subprocess
import sys

import pytest

from lab.golden import DIRECT_SERVER, GATEWAY, GOLDEN, HALF, SERVER


@pytest.fixture
def relayed(net):
    """The network with the relay's stand-in running."""
    net.reset()
    relay = net.relay()
    yield net
    net.stop(relay)


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("src_valid_mark", [0, 1])
def test_marked_packets_are_delivered_whatever_the_reverse_path_check(relayed, src_valid_mark, rp_filter):
    """The rule with `iif lo goto` makes tproxy immune to src_valid_mark and rp_filter."""
    relayed.sysctl(src_valid_mark=src_valid_mark, rp_filter=rp_filter)
    assert relayed.ask(SERVER[4], 443) == f"relay {SERVER[4]} 443 10.9.0.2"
    assert relayed.ask(SERVER[6], 443) == f"relay {SERVER[6]} 443 fd00:9::2"


def test_without_the_goto_rule_src_valid_mark_breaks_it(relayed):
    """The negative control: were this to pass, the rule would not be needed."""
    relayed.sh(relayed.gateway, "ip rule del prio 100")
    relayed.sysctl(src_valid_mark=1)
    assert relayed.ask(SERVER[4], 443) == "TimeoutError"


@pytest.mark.parametrize("family", [4, 6])
def test_without_a_socket_tproxy_falls_through_to_the_drop(net, family):
    """A relay that is not there never means that traffic passes unseen."""
    net.reset()
    assert net.ask(SERVER[family], 443) == "TimeoutError"
    assert net.counter("no_listener_socket") >= 1


@pytest.mark.parametrize("family", [4, 6])
def test_reject_at_prerouting_answers(net, family):
    """A TCP reset is really sent from the prerouting hook, in answer to the first SYN."""
    net.reset()
    assert net.ask(SERVER[family], 25) == "ConnectionRefusedError"
    assert net.counter("rejected") == 1


@pytest.mark.parametrize("family", [4, 6])
def test_bypass_forwards(relayed, family):
    """What no stronger listener takes goes to the server, and its answers come back."""
    assert relayed.ask(SERVER[family], 9999).startswith(f"server {SERVER[family]} 9999")
    assert relayed.counter("bypassed") >= 2


@pytest.mark.parametrize("family", [4, 6])
def test_the_gateways_own_addresses_are_left_alone(net, family):
    """A listener for every destination does not catch what is meant for the gateway."""
    net.reset()
    own = net.echo(net.gateway, "own", family, GATEWAY[family], 25)
    try:
        assert net.ask(GATEWAY[family], 25).startswith("own")
        assert net.counter("rejected") == 0
    finally:
        net.stop([own])


def element_packets(net, name):
    """{key: packets} of a set whose keys are plain values or pairs."""
    return {str(e["elem"]["val"]): e["elem"]["counter"]["packets"] for e in net.objects("set")[name]["elem"]}


def test_element_counters_survive_changes_of_other_elements(relayed):
    """Deltas leave the counts of the elements that they do not name."""
    relayed.ask(SERVER[4], 443)
    before = element_packets(relayed, "tcp4_d24_s0_exact_relay")
    assert sum(before.values()) >= 1
    relayed.nft("delete element inet gatewayd tcp4_d24_s0_exact_relay {\n 10.0.0.0 . 80\n}\n"
                "add element inet gatewayd tcp4_d24_s0_exact_relay {\n 10.0.0.0 . 81,\n 10.0.7.0 . 1\n}\n")
    after = element_packets(relayed, "tcp4_d24_s0_exact_relay")
    key = next(k for k in before if "443" in k)
    assert after[key] == before[key]
    assert len(after) == len(before) + 1


def test_named_counters_survive_a_rewrite_of_the_chains(net):
    """plan_chains.nft flushes every chain; what is counted stays."""
    net.reset()
    net.ask(SERVER[4], 25)
    net.nft(file=GOLDEN / "plan_chains.nft")
    assert net.counter("rejected") == 1
    assert net.ask(SERVER[4], 25) == "ConnectionRefusedError"
    assert net.counter("rejected") == 2


def test_a_direct_flow_outlives_the_gate(net):
    """Without a socket a `direct` listener forwards; the flow goes on when the relay is back, new ones are relayed."""
    net.reset()
    talker = net.talk(DIRECT_SERVER, 8000)
    assert talker.stdout.readline().startswith("server")
    relay = net.relay()
    try:
        talker.stdin.write("still there\n")
        talker.stdin.flush()
        assert talker.stdout.readline() == "still there\n"
        assert net.ask(DIRECT_SERVER, 8000).startswith("relay")
    finally:
        talker.stdin.close()
        net.stop(relay + [talker])


def remembered(net, name):
    """How many flows a set holds, and the longest rest of time of one in it."""
    elements = [e["elem"] for e in net.objects("set")[name].get("elem", [])]
    return len(elements), max((e["expires"] for e in elements), default=0)


@pytest.mark.parametrize("name", ["direct4", "direct6"])
def test_a_full_set_of_direct_flows_is_no_way_around(net, name):
    """At its size nothing more is remembered: those in it go on, a new flow is forwarded only while no relay is there and
    then reset, like any that nobody knows; it does not pass the relay by. With room again, flows are remembered."""
    net.reset()
    size = net.objects("set")[name]["size"]
    four = name == "direct4"
    address = "10.{}.{}.{}" if four else "fd99::{}:{}:{}"
    before = net.talk(DIRECT_SERVER, 8000) if four else None
    assert not before or before.stdout.readline().startswith("server")
    count = size - (1 if four else 0)
    filler = ",\n".join(f"{address.format(200 + (n >> 16), n >> 8 & 255, n & 255)} . 1 . {'10.0.0.9' if four else 'fd99::9'} . 2"
                        for n in range(count))
    net.nft(f"add element inet gatewayd {name} {{\n{filler}\n}}\n")
    with pytest.raises(subprocess.CalledProcessError):
        net.nft(f"add element inet gatewayd {name} {{ {'10.1.1.1' if four else 'fd99::1'} . 7 . {'10.1.1.2' if four else 'fd99::2'} . 7 }}\n")
    if not four:  # no listener of the golden table is direct for IPv6: the limit itself is what there is to see
        return
    unknown, relay = net.talk(DIRECT_SERVER, 8000), []
    try:
        assert unknown.stdout.readline().startswith("server")
        relay = net.relay()
        for talker in (before, unknown):
            talker.stdin.write("still there\n")
            talker.stdin.flush()
        assert before.stdout.readline() == "still there\n"
        assert unknown.stdout.readline() != "still there\n", "it went past the relay"
        assert net.ask(DIRECT_SERVER, 8000).startswith("relay")
        net.stop(relay)
        relay = []
        net.nft("delete element inet gatewayd direct4 { 10.200.0.0 . 1 . 10.0.0.9 . 2 }\n")
        room = net.talk(DIRECT_SERVER, 8000)
        assert room.stdout.readline().startswith("server")
        relay = net.relay()
        room.stdin.write("me too\n")
        room.stdin.flush()
        assert room.stdout.readline() == "me too\n"
        net.stop([room])
    finally:
        net.stop(relay + [before, unknown])
        net.reset()


def test_direct_flows_are_forgotten_soon_after_they_end(net):
    """A FIN moves a remembered flow to a set of a minute; a half-closed one goes on; none piles up."""
    net.reset()
    talkers = [net.talk(DIRECT_SERVER, 8000) for _ in range(3)]
    half = subprocess.Popen(["ip", "netns", "exec", net.client, sys.executable, "-c", HALF, DIRECT_SERVER, "8000"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    relay = []
    try:
        assert all(t.stdout.readline().startswith("server") for t in talkers)
        assert half.stdout.readline().startswith("server")
        assert remembered(net, "direct4")[0] == 4
        for talker in talkers[:2]:
            talker.stdin.close()
            talker.wait(5)
        relay = net.relay()
        half.stdin.write("end\n")
        half.stdin.flush()
        # What was sent before its FIN comes back after it, although a relay listens now.
        assert half.stdout.readline() == "100000\n"
        assert half.wait(5) == 0
        assert remembered(net, "direct4") == (1, pytest.approx(7200, abs=60))
        count, rest = remembered(net, "closing4")
        assert count == 3 and rest <= 60
        talkers[2].stdin.write("still there\n")
        talkers[2].stdin.flush()
        assert talkers[2].stdout.readline() == "still there\n"
    finally:
        half.kill()
        net.stop(talkers + relay)


def test_the_gate_forwards_although_a_socket_listens(relayed):
    """The daemon holds the listening sockets while the relay is down; the gate is what tells the kernel."""
    relayed.nft(file=GOLDEN / "gate_open.nft")
    assert relayed.ask(DIRECT_SERVER, 8000).startswith("server")
    assert relayed.ask(SERVER[4], 443).startswith("relay")
    relayed.nft(file=GOLDEN / "gate_closed.nft")
    assert relayed.ask(DIRECT_SERVER, 8000).startswith("relay")


@pytest.mark.parametrize("family", [4, 6])
def test_replies_of_flows_that_pass_by_are_not_relayed(relayed, family):
    """A listener for every port matches the answers of a bypassed connection too; they must go through."""
    relayed.nft(f"delete element inet gatewayd tcp{family}_d0_s0_any_bypass {{\n tcp\n}}\n"
                f"add set inet gatewayd tcp{family}_d0_s0_exact_bypass {{ type inet_service; counter; }}\n"
                f"add element inet gatewayd tcp{family}_d0_s0_exact_bypass {{\n 9999\n}}\n"
                f"insert rule inet gatewayd tcp{family} th dport @tcp{family}_d0_s0_exact_bypass goto act_bypass\n"
                f"add set inet gatewayd tcp{family}_d0_s0_any_relay {{ type inet_proto; counter; }}\n"
                f"add element inet gatewayd tcp{family}_d0_s0_any_relay {{\n tcp\n}}\n"
                f"add rule inet gatewayd tcp{family} meta l4proto @tcp{family}_d0_s0_any_relay goto act_relay\n")
    talker = relayed.talk(SERVER[family], 9999)
    try:
        assert talker.stdout.readline().startswith("server")
        talker.stdin.write("through\n")
        talker.stdin.flush()
        assert talker.stdout.readline() == "through\n"
        assert relayed.counter("forwarded_replies") == 1
        assert relayed.ask(SERVER[family], 9998).startswith("relay")
    finally:
        talker.stdin.close()
        relayed.stop([talker])
