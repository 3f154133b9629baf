"""TCP flows whose two connections become one in the kernel: every byte arrives, and each end where it belongs."""

import os
import random
import socket
import struct
import threading
import time

import pytest

from lab import servers
from lab.process import SLOWNESS, amount, in_threads, wait_for
from lab.segments import ACK, RST, SYN, Wire

from net.test_prefilter import prefilter
from net.test_sockmap import ask, echo
from net.test_udp_shortcut import Frozen

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
TARGET = {"v4": "10.71.2.3", "v6": "fd71:2::3"}
FAR = {"v4": "10.71.4.2", "v6": "fd71:4::2"}
PORT = 7950


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system, and decides by itself."""
    return make_gateway(bpf=True)


def counters(gateway):
    """The relay's counters since the test began."""
    return gateway.counters()


def flow_of(gateway):
    """The one flow that there is."""
    return gateway.must("GET", "/flows")["items"][0]


def stitch(gateway, connection, flows=1, seconds=10):
    """Asks until so many flows are the kernel's, and the relay knows."""
    def done():
        ask(connection, b"a question")
        return counters(gateway)["stitched_flows"] >= flows

    wait_for(done, seconds, "the stitch", interval=0.05)


def stays_the_relays(gateway, connection):
    """Asks for longer than it would take, and no flow becomes the kernel's."""
    before = counters(gateway)["stitched_flows"]
    for _ in range(15):
        ask(connection, b"a question")
        time.sleep(0.1)
    assert counters(gateway)["stitched_flows"] == before


def ask_much(connection, data):
    """Sends all of it while its echo is read."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        piece = connection.recv(1 << 20)
        assert piece, "the stream ended"
        got += piece
    sender.join()
    assert got == data


class Watcher:
    """A server that answers, and remembers how each of its connections ended."""

    def __init__(self):
        self.ends = []

    def __call__(self, connection, _address):
        connection.setsockopt(6, 1, 1)
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
            connection.sendall(b"the end")
            self.ends.append("fin")
        except OSError as error:
            self.ends.append(type(error).__name__)
        connection.close()


def is_reset(connection):
    """Whether the peer has reset it."""
    try:
        return connection.recv(1) == "never"
    except ConnectionResetError:
        return True


def held_until(let_in, connection):
    """No answer comes from some time on, until the client is let in again: then what it asked last is answered."""
    def is_held():
        connection.settimeout(0.3)
        try:
            ask(connection, b"?")
            return False
        except socket.timeout:
            return True

    wait_for(is_held, 10, "the ban")
    let_in()
    connection.settimeout(30)
    assert connection.recv(1) == b"?"
    ask_much(connection, os.urandom(50_000))


# --- what it carries ---

@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_past_the_relay(lab, gateway, family):
    """Plain, to an upstream with another port, and in the gateway's name: both ways, of any size, with the relay frozen;
    and all of it is counted, to the byte."""
    gateway.upstream("pool", [(TARGET[family], PORT + 1)])
    gateway.listener("plain", ports=[str(PORT)])
    gateway.listener("pooled", ports=[str(PORT + 2)], upstream="pool")
    gateway.listener("hidden", ports=[str(PORT + 3)], source_address="gateway")
    total = 0
    with servers.Peer(lab.server, SERVER[family], PORT, echo), servers.Peer(lab.server, TARGET[family], PORT + 1, echo), \
            servers.Peer(lab.server, SERVER[family], PORT + 3, echo):
        for number, port in enumerate((PORT, PORT + 2, PORT + 3)):
            with lab.client.connect(SERVER[family], port, timeout=10) as connection:
                stitch(gateway, connection, number + 1)
                with Frozen(gateway):
                    for size in (1, 100, 5000, 1_000_000):
                        ask_much(connection, os.urandom(size))
                total += 1_005_101
                row = next(flow for flow in gateway.must("GET", "/flows")["items"] if flow["listener"] ==
                           ("plain", "pooled", "hidden")[number])
                assert row["to_target"]["mover"] == row["to_client"]["mover"] == "kernel"
        # What went past the rules is in the ledger all the same, by the interface it came in by.
        rows = {row["interface"]: row["stack"] for row in gateway.must("GET", "stats/ledger")["interfaces"]}
        for name in ("in0", "out0"):
            assert rows[name]["outcomes"]["shortcut_tcp"]["bytes"] > 1_000_000
            assert rows[name]["rest"] == 0
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 15, "the ends of the flows")
    found = counters(gateway)
    assert found["bytes_to_target"] == found["bytes_to_client"]
    assert found["bytes_stitched"] >= 2 * total
    assert found["flows_reset"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_behind_a_generic_prefilter(lab, gateway, family):
    """Newer kernels show packets that such a program has seen without their frame's header: a flow that is carried when
    one comes goes on, and another one becomes so."""
    gateway.listener("web", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER[family], PORT, echo), \
            lab.client.connect(SERVER[family], PORT, timeout=10) as before:
        stitch(gateway, before)
        for interface in ("in0", "out0"):
            assert prefilter(gateway, interface, mode="generic", deny=["192.0.2.1"])["mode"] == "generic"
        with Frozen(gateway):
            ask_much(before, os.urandom(300_000))
        with lab.client.connect(SERVER[family], PORT, timeout=10) as after:
            stitch(gateway, after, 2)
            with Frozen(gateway):
                ask_much(after, os.urandom(300_000))


@pytest.mark.parametrize("case, family", [("no timestamps", "v4"), ("no sack", "v6"), ("no scaling at the client", "v4"),
                                          ("small windows", "v6"), ("loss", "v4"), ("loss", "v6")])
def test_what_peers_have_agreed_upon(lab, gateway, case, family):
    """Peers with and without options, with tiny windows, and on paths that lose packets: nothing is missing or twice."""
    gateway.listener("plain", ports=[str(PORT)])
    both = {"no timestamps": {"net__ipv4__tcp_timestamps": 0}, "no sack": {"net__ipv4__tcp_sack": 0},
            "small windows": {"net__ipv4__tcp_rmem": "4096 8192 16384"}}.get(case, {})
    clients = both or ({"net__ipv4__tcp_window_scaling": 0} if case == "no scaling at the client" else {})
    hosts = (lab.client, lab.server) if case == "loss" else ()
    with lab.client.sysctls(**clients), lab.server.sysctls(**both), \
            servers.Peer(lab.server, SERVER[family], PORT, echo):
        for host in hosts:
            host.nft("add table inet loss\nadd chain inet loss in { type filter hook input priority 0; }\n"
                     f"add rule inet loss in tcp sport {PORT} numgen random mod 1000 < 20 drop\n"
                     f"add rule inet loss in tcp dport {PORT} numgen random mod 1000 < 20 drop\n")
        try:
            with lab.client.connect(SERVER[family], PORT, timeout=30) as connection:
                stitch(gateway, connection, seconds=30)
                with Frozen(gateway):
                    for size in (10, 3000, amount(2_000_000, 20_000_000)):
                        ask_much(connection, os.urandom(size))
        finally:
            for host in hosts:
                host.nft("delete table inet loss")
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 15, "the end of the flow")
    assert counters(gateway)["flows_reset"] == 0


def test_peers_that_differ(lab, gateway):
    """Where the connections are not alike but for their numbers, the flow stays the relay's."""
    gateway.listener("plain", ports=[str(PORT)])
    for sysctl in ("net__ipv4__tcp_timestamps", "net__ipv4__tcp_sack"):
        with lab.server.sysctls(**{sysctl: 0}), servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
                lab.client.connect(SERVER["v4"], PORT, timeout=10) as connection:
            stays_the_relays(gateway, connection)
            ask_much(connection, os.urandom(100_000))
    # A router on the client's side has said that smaller segments are wanted than the server is told.
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
            lab.client.connect(SERVER["v4"], PORT, timeout=10,
                               before=lambda made: made.setsockopt(6, socket.TCP_MAXSEG, 1200)) as connection:
        stays_the_relays(gateway, connection)
    # The path to the far server takes smaller packets than the client may send.
    with servers.Peer(lab.far, FAR["v4"], PORT, echo), lab.client.connect(FAR["v4"], PORT, timeout=10) as connection:
        ask_much(connection, os.urandom(100_000))
        stays_the_relays(gateway, connection)


def test_many_at_once(lab, gateway, figure):
    """Flows that talk in random pieces while they become the kernel's, some ended in the middle: each byte of the others
    comes back once, in order."""
    gateway.listener("plain", ports=[str(PORT)])
    source = random.Random(7)
    flows = amount(100, 2000)

    def talk(seed):
        mine = random.Random(seed)
        family = FAMILIES[seed % 2]
        with lab.client.connect(SERVER[family], PORT, timeout=60) as connection:
            for _ in range(40):
                ask_much(connection, mine.randbytes(mine.choice((1, 100, 1448, 1449, 20_000, 70_000))))
                if mine.random() < 0.5:
                    time.sleep(mine.random() * 0.1)
                if seed % 10 == 0 and mine.random() < 0.05:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return

    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), servers.Peer(lab.server, SERVER["v6"], PORT, echo):
        for _ in range(flows // 50):
            in_threads([lambda seed=source.randrange(1 << 30): talk(seed) for _ in range(50)])
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 20, "the ends of the flows")
    found = counters(gateway)
    figure("stitched", found["stitched_flows"])
    assert found["stitched_flows"] > flows // 2
    assert found["flows_lost"] == 0


# --- how it ends ---

@pytest.mark.parametrize("family", amount(["v4"], FAMILIES))
def test_ends(lab, gateway, family):
    """An end of stream, half-closed or not, and a reset reach the other side past a frozen relay; the flow's end is
    noticed, and no socket of the gateway's says anything about it."""
    gateway.listener("plain", ports=[str(PORT)])
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher):
        for how in ("fin", "ConnectionResetError"):
            stray = lab.client.nft
            stray("add table inet stray\nadd chain inet stray in { type filter hook input priority 0; }\n"
                  f"add rule inet stray in tcp sport {PORT} tcp flags & rst == rst counter\n")
            try:
                with lab.client.connect(SERVER[family], PORT, timeout=10) as connection:
                    stitch(gateway, connection, len(watcher.ends) + 1)
                    with Frozen(gateway):
                        if how == "fin":
                            connection.shutdown(socket.SHUT_WR)
                            assert connection.recv(100) == b"the end"
                            assert connection.recv(100) == b""
                        else:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            connection.close()
                        wait_for(lambda: watcher.ends and watcher.ends[-1] == how, 5, "the server's end")
                wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 15, "the end of the flow")
                shown = lab.client.run("nft", "list", "table", "inet", "stray").stdout
                assert how != "fin" or "packets 0 " in shown, shown
            finally:
                stray("delete table inet stray")
    assert counters(gateway)["flows_reset"] == 1


@pytest.mark.parametrize("family", amount(["v6"], FAMILIES))
def test_ended_by_the_gateway(lab, gateway, family):
    """Killed, or idle: both peers are told, though they have nothing to send; traffic past the relay keeps it alive."""
    gateway.listener("plain", ports=[str(PORT)])
    gateway.listener("brief", ports=[str(PORT + 1)], idle_timeout_s=3)
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher), \
            servers.Peer(lab.server, SERVER[family], PORT + 1, watcher):
        with lab.client.connect(SERVER[family], PORT, timeout=10) as connection:
            stitch(gateway, connection)
            gateway.must("DELETE", f"/flows/{flow_of(gateway)['id']}")
            assert is_reset(connection)
            wait_for(lambda: watcher.ends == ["ConnectionResetError"], 5, "the server's end")
        with lab.client.connect(SERVER[family], PORT + 1, timeout=20) as connection:
            stitch(gateway, connection, 2)
            asked = [0]

            def four_seconds():
                ask(connection, b"still here")
                asked[0] += 1
                return asked[0] > 40
            wait_for(four_seconds, 30, "some seconds of traffic", interval=0.1)
            assert counters(gateway)["idle_timeout"] == 0
            assert is_reset(connection)
            wait_for(lambda: watcher.ends == ["ConnectionResetError"] * 2, 5, "the server's end")
            assert counters(gateway)["idle_timeout"] == 1


def test_same_ports_again(lab, gateway):
    """A peer that has forgotten the connection and begins another with the same ports gets a new flow."""
    gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo):
        first = lab.client.connect(SERVER["v4"], PORT, timeout=10)
        stitch(gateway, first)
        port = first.getsockname()[1]
        # Without a word: what it says is dropped.
        lab.client.nft("add table inet mute\nadd chain inet mute out { type filter hook output priority 0; }\n"
                       f"add rule inet mute out tcp sport {port} drop\n")
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
        finally:
            lab.client.nft("delete table inet mute")
        with lab.client.connect(SERVER["v4"], PORT, timeout=20, before=lambda made: made.bind(("", port))) as second:
            ask(second, b"anew")
            wait_for(lambda: gateway.status()["relay"]["flows"] == 1, 15, "the end of the first")
            ask_much(second, os.urandom(50_000))


@pytest.mark.parametrize("family", FAMILIES)
def test_too_large_for_the_path(lab, gateway, family):
    """A router says that a path takes smaller packets than was known: the flow is reset, for its packets cannot become
    smaller, and the next one is right from the beginning."""
    gateway.listener("plain", ports=[str(PORT)])
    for number in ("-4", "-6"):
        lab.gateway.run("ip", number, "route", "flush", "cache")
    with servers.Peer(lab.far, FAR[family], PORT, echo):
        with lab.client.connect(FAR[family], PORT, timeout=15) as connection:
            stitch(gateway, connection)
            connection.sendall(os.urandom(5000))
            assert is_reset(connection)
        with lab.client.connect(FAR[family], PORT, timeout=15) as connection:
            ask_much(connection, os.urandom(50_000))


def test_big_tcp(lab, gateway):
    """Packets of IPv6 that were put together from more than 64 KiB have a header more: they are carried as well, with the
    relay frozen, and those that they were put together from arrive."""
    gateway.listener("plain", ports=[str(PORT)])
    lab.client.run("ip", "link", "set", "up0", "gso_max_size", "250000")
    try:
        with servers.Peer(lab.server, SERVER["v6"], PORT, echo), \
                lab.client.connect(SERVER["v6"], PORT, timeout=20) as connection:
            stitch(gateway, connection)
            with Frozen(gateway), Wire(lab.client, "up0", lab.gateway, "in0") as wire:
                ask_much(connection, os.urandom(20_000_000))
                longest = max(wire.lengths())
    finally:
        lab.client.run("ip", "link", "set", "up0", "gso_max_size", "65536")
    if longest <= 1 << 16 and SLOWNESS > 1:
        pytest.skip("the sender, emulated, is too slow to put such packets together")
    assert longest > 1 << 16


def test_another_header_between(lab, gateway):
    """Segments behind an extension header are not what the kernel's way can carry, and the relay's sockets hear of
    nothing any more: the flow is reset, instead of standing still."""
    gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v6"], PORT, echo), \
            lab.client.connect(SERVER["v6"], PORT, timeout=15) as connection:
        stitch(gateway, connection)
        # Destination options (RFC 8200) that say nothing: one of padding.
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        connection.sendall(b"and now?")
        assert is_reset(connection)


FIN = 0x01


@pytest.mark.parametrize("family", FAMILIES)
def test_strangers_cannot_end_it(lab, gateway, family):
    """Somebody who knows addresses and ports, but no numbers, sends what would end a connection: nothing happens, and
    what is counted stays true."""
    gateway.listener("plain", ports=[str(PORT)])
    address = getattr(lab.client, family)
    with servers.Peer(lab.server, SERVER[family], PORT, echo), \
            lab.client.connect(SERVER[family], PORT, timeout=10) as connection, \
            Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        stitch(gateway, connection)
        wait_for(lambda: flow_of(gateway)["to_target"]["mover"] == "kernel", 5, "the flow's row")
        port = connection.getsockname()[1]
        for flags in (SYN, RST, RST | ACK, FIN | ACK, ACK):
            for step in range(8):
                wire.socket.send(wire.frame(address, SERVER[family], port, PORT, flags, seq=step << 29, ack=step << 29))
        time.sleep(5)  # longer than a reset or an end is waited for
        ask_much(connection, os.urandom(100_000))
        assert flow_of(gateway)["state"] == "relaying"
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 15, "the end of the flow")
    found = counters(gateway)
    assert found["bytes_to_target"] == found["bytes_to_client"] and found["flows_reset"] == 0


# --- who may die, and who may not ---

@pytest.mark.parametrize("family", amount(["v6"], FAMILIES))
def test_who_may_die(lab, gateway, family):
    """The relay, the daemon, both at once: bytes go on, and whoever comes next knows the flow, counts it and can end
    it."""
    gateway.listener("plain", ports=[str(PORT)])
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher), \
            lab.client.connect(SERVER[family], PORT, timeout=10) as connection:
        stitch(gateway, connection)
        identity = flow_of(gateway)["id"]
        gateway.break_relay()
        ask_much(connection, os.urandom(300_000))
        gateway.mend_relay()
        wait_for(lambda: counters(gateway)["flows_adopted"] == 1, 15, "the next relay")
        ask(connection, b"after")
        wait_for(lambda: flow_of(gateway)["to_target"]["bytes"] > 300_000, 10, "what went by while there was none")
        assert flow_of(gateway)["id"] == identity and flow_of(gateway)["to_target"]["mover"] == "kernel"
        gateway.kill()
        ask_much(connection, os.urandom(300_000))
        gateway.start()
        wait_for(lambda: flow_of(gateway)["to_target"]["bytes"] > 600_000, 10, "what went by without a daemon")
        assert flow_of(gateway)["id"] == identity
        before = gateway.relay_pid()
        gateway.must("POST", "/relay/restart")
        gateway.wait_relay(before)
        wait_for(lambda: gateway.status()["relay"]["state"] == "running", 15, "the next relay")
        ask_much(connection, os.urandom(300_000))
        wait_for(lambda: flow_of(gateway)["to_target"]["bytes"] > 900_000, 10, "what went by meanwhile")
        gateway.must("DELETE", f"/flows/{identity}")
        assert is_reset(connection)
        wait_for(lambda: watcher.ends == ["ConnectionResetError"], 5, "the server's end")


def test_idle_since_before_it_was_adopted(lab, gateway):
    """How long a flow has been idle the next relay knows from the kernel, and not from its sockets, which have seen
    nothing for longer than that; and peers that have only listened since do not notice the death of all of us."""
    gateway.listener("plain", ports=[str(PORT)], idle_timeout_s=4)
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
            lab.client.connect(SERVER["v4"], PORT, timeout=10) as connection:
        stitch(gateway, connection)
        began = time.monotonic()
        wait_for(lambda: ask(connection, b"on and on") or time.monotonic() > began + 5, 20, "some seconds", interval=0.2)
        gateway.kill_relay()
        wait_for(lambda: counters(gateway)["flows_adopted"] == 1, 15, "the next relay")
        wait_for(lambda: flow_of(gateway)["to_target"]["mover"] == "kernel", 5, "the flow's row")
        ask(connection, b"and on")
        gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
            lab.client.connect(SERVER["v4"], PORT, timeout=10) as connection:
        seen = counters(gateway)["stitched_flows"]
        stitch(gateway, connection, seen + 1)
        time.sleep(0.2)  # the daemon hears of it a moment later
        wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 1, 10, "the daemon's copy")
        relay = gateway.relay_pid()
        gateway.kill()
        os.kill(relay, 9)
        wait_for(lambda: not os.path.exists(f"/proc/{relay}"), 5, "the relay's end")
        ask(connection, b"still there")
        gateway.start()


def test_both_die(lab, gateway):
    """Neither a daemon nor a relay, then both anew: the connection goes on, and its end leaves nothing in the maps."""
    gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo):
        with lab.client.connect(SERVER["v4"], PORT, timeout=10) as connection:
            stitch(gateway, connection)
            relay = gateway.relay_pid()
            gateway.kill()
            os.kill(relay, 9)
            wait_for(lambda: not os.path.exists(f"/proc/{relay}"), 5, "the relay's end")
            ask_much(connection, os.urandom(300_000))
            gateway.start()
            ask_much(connection, os.urandom(300_000))
        wait_for(lambda: gateway.status()["relay"]["movers"]["shortcut"]["stitched"] == 0, 60, "the maps to be empty")


@pytest.mark.parametrize("family", amount(["v4"], FAMILIES))
def test_bans_and_traces(lab, gateway, family):
    """A banned client's packets are dropped, and go on when it is let in again; while there is a trace no flow begins to
    be stitched."""
    gateway.listener("plain", ports=[str(PORT)])
    address = getattr(lab.client, family)
    with servers.Peer(lab.server, SERVER[family], PORT, echo):
        with lab.client.connect(SERVER[family], PORT, timeout=30) as connection:
            stitch(gateway, connection)
            gateway.must("POST", "/bans", {"address": address, "ban_s": 60, "reason": "test"})
            held_until(lambda: gateway.must("DELETE", f"/bans?address={address}"), connection)
        trace = gateway.must("POST", "/trace", {"protocol": "tcp", "source": address, "destination": SERVER[family],
                                               "destination_port": PORT, "seconds": 300, "packets": 200})
        with lab.client.connect(SERVER[family], PORT, timeout=10) as connection:
            stays_the_relays(gateway, connection)
            gateway.must("DELETE", f"/trace/{trace['id']}")
            stitch(gateway, connection, 2)


def test_a_ban_without_a_relay(lab, gateway):
    """It reaches a flow that the kernel carries while there is no relay, and none can start."""
    gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
            lab.client.connect(SERVER["v4"], PORT, timeout=30) as connection:
        stitch(gateway, connection)
        gateway.break_relay()
        gateway.must("POST", "/bans", {"address": lab.client.v4, "ban_s": 60, "reason": "test"})
        held_until(lambda: gateway.must("DELETE", f"/bans?address={lab.client.v4}"), connection)
        gateway.mend_relay()
        wait_for(lambda: counters(gateway)["flows_adopted"] == 1, 15, "the next relay")
        ask(connection, b"and on")


def test_somebody_takes_the_program_off(lab, gateway):
    """It is put back, and the connection goes on: what came meanwhile nobody has acknowledged."""
    gateway.listener("plain", ports=[str(PORT)])
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), \
            lab.client.connect(SERVER["v4"], PORT, timeout=30) as connection:
        stitch(gateway, connection)
        for device in ("in0", "out0"):
            lab.gateway.run("tc", "filter", "del", "dev", device, "ingress")
        ask(connection, b"!")
        ask_much(connection, os.urandom(100_000))


def test_who_may_not(lab, gateway):
    """Limits want to see each packet, and a mover that is named is the one that is used. A listener that is deleted
    leaves its flows alone, and the program stays as long as there are any."""
    gateway.must("PUT", "/rate-limits/many", {"key": "source", "metric": "packets", "rate": 100000})
    gateway.listener("limited", ports=[str(PORT)], rate_limits=["many"])
    gateway.listener("copied", ports=[str(PORT + 1)], mover="copy")
    gateway.listener("plain", ports=[str(PORT + 2)])

    def shown():
        return gateway.status()["relay"]["movers"]["shortcut"]
    for port in (PORT, PORT + 1):
        with servers.Peer(lab.server, SERVER["v4"], port, echo), \
                lab.client.connect(SERVER["v4"], port, timeout=10) as connection:
            stays_the_relays(gateway, connection)
    with servers.Peer(lab.server, SERVER["v4"], PORT + 2, echo):
        with lab.client.connect(SERVER["v4"], PORT + 2, timeout=10) as connection:
            stitch(gateway, connection)
            for name in ("plain", "copied", "limited"):
                gateway.delete("listeners", name)
            with Frozen(gateway):
                ask_much(connection, os.urandom(100_000))
            assert "shortcut" in lab.gateway.run("tc", "filter", "show", "dev", "in0", "ingress").stdout
        wait_for(lambda: "shortcut" not in lab.gateway.run("tc", "filter", "show", "dev", "in0", "ingress").stdout, 20,
                 "the program to be taken off")
        assert shown()["state"] == "idle" and shown()["stitched"] == 0
