"""The ledger: what became of each packet equals what was sent, and nothing is left over; both families, on real traffic."""

import errno
import json
import socket
import subprocess

import pytest

from lab import datagrams, promlint, servers
from lab.gateway import Gateway
from lab.process import wait_for
from net.test_limits import echo, knock
from net.test_prefilter import GATEWAY, pings, prefilter

TCP, UDP, REJECTED, DROPPED, BYPASSED, LIMITED, NOBODYS, FRAGMENTS, REFUSED = range(7410, 7419)
SERVER = {4: "10.71.2.2", 6: "fd71:2::2"}
DENIED = {4: "10.71.1.77", 6: "fd71:1::77"}
BANNED = {4: "10.71.1.88", 6: "fd71:1::88"}
NOT_DROPPED = ("passed", "allowed")
# What a host sends: all of it by itself, so that nothing has to be guessed about its TCP, or its neighbours.
PROBE = """
table inet probe {{
    counter sent_tcp {{ }}
    counter sent_multicast {{ }}
    counter sent_neighbours {{ }}
    chain out {{
        type filter hook output priority 0;
        oifname != "up0" accept
        tcp {side} {port} counter name sent_tcp
        ip daddr 224.0.0.0/4 counter name sent_multicast
        ip6 daddr ff00::/8 counter name sent_multicast
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 daddr != ff00::/8 counter name sent_neighbours
    }}
}}
table arp probe {{
    counter sent_frames {{ }}
    chain out {{ type filter hook output priority 0; counter name sent_frames; }}
}}
"""


@pytest.fixture(scope="module")
def gateway(lab):
    """One gateway for all tests of this file, whose programs can be pinned, with a listener of each action."""
    with Gateway(lab, bpf=True) as made:
        furnish(made)
        yield made


def limit(gateway, burst, **more):
    """So many packets; another number begins anew."""
    gateway.must("PUT", "rate-limits/few", {"name": "few", "metric": "packets", "rate": 1, "per": "minute", "burst": burst, **more})


def furnish(gateway):
    """What there is to be matched."""
    limit(gateway, 2)
    gateway.listener("tcp", ports=[str(TCP)])
    gateway.listener("udp", protocol="udp", ports=[str(UDP)])
    gateway.listener("limited", protocol="udp", ports=[str(LIMITED)], rate_limits=["few"])
    for port, action in ((REJECTED, "reject"), (DROPPED, "drop"), (BYPASSED, "bypass")):
        gateway.listener(action, ports=[str(port)], action=action)
        gateway.listener(f"{action}-udp", protocol="udp", ports=[str(port)], action=action)
    for address in BANNED.values():
        gateway.must("POST", "bans", {"address": address})


class Probe:
    """What a host has sent, as its own kernel counts it."""

    def __init__(self, host, side, port):
        self.host = host
        host.nft(PROBE.format(side=side, port=port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.nft("delete table inet probe\ndelete table arp probe")

    def seen(self):
        """Packets by counter, and frames of the interface."""
        words = (self.host.run("nft", "list", "counters").stdout).split()
        found = {words[i + 1].removeprefix("sent_"): int(words[i + 4]) for i, word in enumerate(words) if word == "counter"}
        line = next(line for line in self.host.run("cat", "/proc/net/dev").stdout.split("\n") if "up0:" in line)
        return {**found, "sent": int(line.split(":")[1].split()[9])}


def ledger(gateway, interface="in0"):
    """The row of an interface; None before the first packet."""
    rows = gateway.must("GET", f"stats/ledger?interface={interface}")["interfaces"]
    return rows[0] if rows else None


def settled(look):
    """What a look sees once it sees the same twice."""
    last = [None]

    def same():
        before, last[0] = last[0], look()
        return last[0] if before == last[0] else None
    return wait_for(same, 30, "quiet", interval=0.3)


def packets(counts):
    """Without what is zero, and without bytes."""
    return {name: count["packets"] for name, count in counts.items() if count["packets"]}


def change(before, after):
    """Outcomes of a row between two looks, without those that are as they were."""
    parts = {}
    for part, path in (("prefilter", "link"), ("outcomes", "stack"), ("outcomes", "passed_on")):
        old, new = ((row[path][part] or {}) for row in (before, after))
        parts[path] = {k: v for k in new if (v := new[k]["packets"] - old[k]["packets"])}
    parts["in"] = after["stack"]["in"]["packets"] - before["stack"]["in"]["packets"]
    parts["frames"] = after["link"]["in"]["packets"] - before["link"]["in"]["packets"]
    parts["not_taken"] = after["link"]["not_taken"] - before["link"]["not_taken"]
    return parts


def talks(host, address, data, port):
    """Whether all that is sent comes back."""
    with host.connect(address, port, timeout=10) as made:
        made.sendall(data)
        got = 0
        while got < len(data) and (piece := made.recv(65536)):
            got += len(piece)
    return got == len(data)


def send(host, address, port, n, source=None, size=20):
    """Datagrams that nobody answers, or of which the answer does not matter."""
    with host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as made:
        if source:
            made.setsockopt(*((socket.IPPROTO_IPV6, 75, 1) if ":" in address else (socket.SOL_IP, 19, 1)))
            made.bind((source, 0))
        for _ in range(n):
            while True:
                try:
                    made.sendto(b"x" * size, (address, port))
                    break
                except OSError as error:  # the answer to one before; it says so once
                    assert error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH), error


def traffic(lab, family, size, burst):
    """Some of everything from the client; what the ledger has to say of it besides TCP, which the client counts."""
    server, client = SERVER[family], lab.client
    with servers.Peer(lab.server, server, TCP, echo), datagrams.DatagramPeer(lab.server, server, UDP):
        for _ in range(3):
            assert talks(client, server, b"x" * size, TCP)
        with datagrams.client(client, server, UDP) as made:
            assert [datagrams.ask(made, b"1") for _ in range(5)] == [b"1"] * 5
        with servers.Peer(lab.server, server, BYPASSED, echo):
            send(client, server, BYPASSED, 6)
        assert knock(client, server, REJECTED) == "refused" and knock(client, server, DROPPED) == "silent"
        send(client, server, REJECTED, 7)
        send(client, server, DROPPED, 8)
        send(client, server, LIMITED, 5)
        send(client, server, NOBODYS, 9)
        send(client, server, NOBODYS, 4, DENIED[family])
        send(client, server, UDP, 3, BANNED[family])
        send(client, server, FRAGMENTS, 2, size=4000)
        assert pings(client, GATEWAY[family], 3) == 3
    return {"rejected": 8, "dropped": 9, "bypassed": 6, "limited": 5 - burst, "banned": 3,
            "relay_udp": 5 + burst, "no_listener": 14}


# On a veth with a native program segments are cut by the sender and merged again: what is sent must fit one.
# What is over the limit is dropped in nft, since that has to count it for the escalation, or by the prefilter.
@pytest.mark.parametrize("mode, size, burst, escalate", [("generic", 100000, 2, 1000000), ("native", 100, 3, 0)])
def test_everything_is_accounted_for(lab, gateway, mode, size, burst, escalate):  # pylint: disable=too-many-arguments,too-many-positional-arguments
    """Sent = counted, outcome by outcome; the rest is zero in every part, on every interface."""
    limit(gateway, burst, escalate={"after": escalate})
    prefilter(gateway, mode=mode, deny=list(DENIED.values()))
    for host, address in ((lab.client, GATEWAY[4]), (lab.client, GATEWAY[6]), (lab.server, "10.71.2.1")):
        assert pings(host, address) == 3  # so that there is a row to begin with
    with Probe(lab.client, "dport", TCP) as client, Probe(lab.server, "sport", "0-65535") as server:
        sent, answered, before, out = settled(lambda: (client.seen(), server.seen(), ledger(gateway), ledger(gateway, "out0")))
        wanted = {}
        for family in (4, 6):
            for name, n in traffic(lab, family, size, burst).items():
                wanted[name] = wanted.get(name, 0) + n
        now, then, after, out2 = settled(lambda: (client.seen(), server.seen(), ledger(gateway), ledger(gateway, "out0")))
    sent = {name: now[name] - sent[name] for name in now}
    found = change(before, after)
    wanted |= {"relay_tcp": sent["tcp"], "multicast": sent["multicast"]}
    wanted["no_listener"] += sent["neighbours"]
    early = 0 if escalate else wanted.pop("limited")
    assert found["stack"] == {name: n for name, n in wanted.items() if n}
    assert found["in"] == sum(found["stack"].values())
    assert found["passed_on"] == {"forwarded": 12 + 22, "local": 6 + sent["neighbours"]}
    assert found["link"].pop("denied") == 8 and found["link"].pop("limited", 0) == early and set(found["link"]) == {"passed"}
    assert found["frames"] == sent["sent"] == found["link"]["passed"] + 8 + early
    # Two datagrams of each family came in three pieces each; what is not IP is the client's ARP.
    assert found["not_taken"] == 2 * 2 * 2 + sent["frames"]
    assert out2["stack"]["outcomes"]["relay_tcp"]["packets"] - out["stack"]["outcomes"]["relay_tcp"]["packets"] == (
        then["tcp"] - answered["tcp"])
    everywhere = gateway.must("GET", "stats/ledger")
    assert {row["interface"]: row["rest"] for row in everywhere["interfaces"]} == dict.fromkeys(
        (row["interface"] for row in everywhere["interfaces"]), 0)
    assert {"in0", "out0"} <= {row["interface"] for row in everywhere["interfaces"]}
    assert all(row[part]["rest"] == 0 for row in everywhere["interfaces"] for part in ("link", "stack", "passed_on"))
    told_elsewhere(gateway, after)


def told_elsewhere(gateway, row):
    """The same in the metrics and by gatewayctl."""
    text = gateway.api("GET", "/metrics").text
    assert promlint.faults_of(text) == []
    for name, n in packets(row["stack"]["outcomes"]).items():
        assert f'gateway_ledger_packets_total{{interface="in0",outcome="{name}"}} {n}\n' in text
    assert 'gateway_ledger_rest_packets{interface="in0",part="stack"} 0\n' in text
    shown = subprocess.run([gateway.binaries / "gatewayctl", "ledger", "in0", "--socket", gateway.socket], capture_output=True,
                           text=True, check=True, timeout=30).stdout
    rows = [line.split() for line in shown.split("\n")]
    for part, name, n in (("link", "denied", row["link"]["prefilter"]["denied"]["packets"]), ("stack", "rest", 0),
                          ("stack", "relay_tcp", row["stack"]["outcomes"]["relay_tcp"]["packets"])):
        assert any(line[:4] == ["in0", part, name, str(n)] for line in rows), shown


def test_without_a_prefilter_and_with_others_rules(lab, gateway):
    """Without a prefilter the link has no outcomes; what somebody else's rules or a missing route drop is the rest."""
    assert pings(lab.client2, "10.71.5.1") == 3
    before = settled(lambda: ledger(gateway, "in1"))
    assert before["link"]["prefilter"] is None and before["rest"] == 0
    lab.gateway.nft("table inet others { chain f { type filter hook forward priority 0; udp dport 7499 drop; }; }")
    lab.gateway.run("ip", "route", "add", "blackhole", "10.99.0.0/16")
    try:
        send(lab.client2, SERVER[4], 7499, 5)
        send(lab.client2, "10.99.0.1", 7499, 2)
        send(lab.client2, SERVER[4], 7498, 3)
    finally:
        lab.gateway.nft("delete table inet others")
        lab.gateway.run("ip", "route", "del", "blackhole", "10.99.0.0/16")
    after = settled(lambda: ledger(gateway, "in1"))
    found = change(before, after)
    assert found["stack"]["no_listener"] == 10 and found["passed_on"]["forwarded"] == 3
    assert after["passed_on"]["rest"] == after["rest"] == 7 and after["stack"]["rest"] == 0
    answer = gateway.api("GET", "stats/ledger?colour=1")
    assert answer.status == 400 and gateway.must("GET", "stats/ledger?interface=nowhere")["interfaces"] == []


def test_while_no_relay_runs(lab, gateway):
    """Passed on because the listener says direct, and the later packets of such a flow."""
    gateway.listener("tcp", ports=[str(TCP)], on_worker_down="direct")
    pings(lab.client, GATEWAY[4])
    gateway.break_relay()
    try:
        wait_for(lambda: gateway.status()["relay"]["direct"], 10, "the way past the relay")
        before = settled(lambda: ledger(gateway))
        with servers.Peer(lab.server, SERVER[4], TCP, echo):
            assert talks(lab.client, SERVER[4], b"x" * 1000, TCP)
        after = settled(lambda: ledger(gateway))
        found = change(before, after)
        assert found["stack"]["direct"] == 1 and found["stack"]["known"] >= 4 and "relay_tcp" not in found["stack"]
        assert after["rest"] == 0
    finally:
        gateway.mend_relay()


def test_what_the_relay_refuses(lab, gateway):
    """After it has taken it: by reason, and as packets handed over like any other."""
    gateway.upstream("closed", [(SERVER[4], 7499)])
    gateway.listener("refused", ports=[str(REFUSED)], upstream="closed")
    pings(lab.client, GATEWAY[4])
    relay, before = gateway.must("GET", "stats/ledger")["relay"], settled(lambda: ledger(gateway))
    # There is an address of the first family only, and nobody at it.
    for address, n in ((SERVER[4], 3), (SERVER[6], 2)):
        for _ in range(n):
            with pytest.raises(OSError), lab.client.connect(address, REFUSED, timeout=5) as made:
                made.recv(1)
                raise ConnectionResetError
    after = settled(lambda: ledger(gateway))
    now = gateway.must("GET", "stats/ledger")["relay"]["refused"]
    assert {name: now[name] - n for name, n in relay["refused"].items() if now[name] != n} == {
        "connect_failed": 3, "refused_no_target": 2}
    assert change(before, after)["stack"]["relay_tcp"] >= 10 and after["rest"] == 0


def fill(lab):
    """Nothing has a place any more. Packets take some meanwhile, so the last are taken one by one."""
    found = json.loads(lab.gateway.run("nft", "-j", "list", "set", "inet", "gatewayd", "ledger").stdout)["nftables"][1]["set"]
    n = found["size"] - len(found.get("elem", [])) - 30
    lab.gateway.nft("add element inet gatewayd ledger {" + ", ".join(f'"x{i}" . 0' for i in range(n)) + "}")
    while lab.gateway.run("nft", f'add element inet gatewayd ledger {{ "x{n}" . 0 }}', check=False).returncode == 0:
        n += 1


def test_a_full_set_counts_no_more_and_changes_nothing_else(lab, gateway):
    """Without a place in the set a packet goes its way all the same: handed over, refused or dropped."""
    fill(lab)
    gateway.listener("tcp", ports=[str(TCP)])
    for server in SERVER.values():
        with servers.Peer(lab.server, server, TCP, echo), datagrams.DatagramPeer(lab.server, server, UDP) as peer:
            assert talks(lab.client2, server, b"x" * 10000, TCP)
            with datagrams.client(lab.client2, server, UDP) as made:
                assert [datagrams.ask(made, b"1") for _ in range(3)] == [b"1"] * 3
            assert knock(lab.client2, server, REJECTED) == "refused" and knock(lab.client2, server, DROPPED) == "silent"
            assert peer.seen
    assert gateway.status()["relay"]["counters"]["flows_opened"] >= 2
    row = ledger(gateway, "in1")
    assert not set(packets(row["stack"]["outcomes"] if row else {})) & {"relay_tcp", "relay_udp", "rejected", "dropped"}
