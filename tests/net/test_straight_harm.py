"""Connections that have no socket on the gateway: what strangers, routers and moments could do to them, or they to others."""

import os
import signal
import socket
import struct
import threading
import time

import pytest

from lab import servers
from lab.process import wait_for
from lab.segments import ACK, OPTIONS, SYN, Wire, checksum

from net.test_sockmap import ask, echo
from net.test_stitch import FAMILIES, SERVER, TARGET, ask_much
from net.test_straight import (LENIENT, OTHER, Names, drops, flows, from_port, has_sockets, is_straight, movers, nothing_left,
                               row_of, straight, told)

pytestmark = pytest.mark.shared_gateway

PORT = 7960
TCP_REPAIR = 19


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system."""
    return make_gateway(bpf=True)


def lives(connection, seconds):
    """Whether it answers for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ask(connection, b"x")
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_syn_of_a_stranger(lab, gateway, family):
    """A SYN with the addresses and ports of a connection that has sockets: it is theirs to answer, not the filter's."""
    straight(gateway, ports=(PORT,))
    address = getattr(lab.client, family)
    with Names(lab, family, ports=(PORT,), addresses=(SERVER,)), Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        trace = gateway.must("POST", "/trace", {"protocol": "tcp", "source": address, "destination": SERVER[family],
                                                "destination_port": PORT, "seconds": 300, "packets": 200})
        with lab.client.connect(SERVER[family], PORT) as connection:  # the gate is closed while somebody looks
            told(connection)
            assert has_sockets(lab, connection) >= 2
            gateway.must("DELETE", f"/trace/{trace['id']}")
            wait_for(lambda: gateway.status()["relay"]["movers"]["shortcut"]["state"] == "on", 5, "the gate")
            port = connection.getsockname()[1]
            for _ in range(3):
                wire.socket.send(wire.frame(address, SERVER[family], port, PORT, SYN, seq=99, options=OPTIONS))
                time.sleep(0.2)
                ask(connection, b"still there")
            assert len(flows(gateway)) == 1
        with lab.client.connect(SERVER[family], PORT) as connection:
            told(connection)
            assert is_straight(lab, gateway, connection)
    assert gateway.counters()["straight_flows"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_port_that_such_a_flow_has(lab, gateway, family):
    """A connection with sockets, of the same client and port to the same target: it gets another port."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1)])
    gateway.listener("copied", ports=[str(PORT + 2)], upstream="pool", mover="copy", connect_timeout_ms=2000)
    straight(gateway, ports=(PORT,), upstream="pool")
    with Names(lab, family, ports=(PORT + 1,), addresses=(SERVER,)), \
            lab.client.connect(OTHER[family], PORT, before=from_port(9480)) as first:
        assert told(first)[3] == 9480 and is_straight(lab, gateway, first)
        with lab.client.connect(OTHER[family], PORT + 2, before=from_port(9480)) as second:
            assert told(second)[3] != 9480
            ask_much(second, os.urandom(50_000))
            ask_much(first, os.urandom(50_000))
    assert gateway.counters()["ports_taken"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_both_have_forgotten(lab, gateway, family):
    """Both peers lose a connection without a word, and the client begins another one with the same port: that is carried
    and counted from its first byte on, and lives as long as it is used."""
    straight(gateway, ports=(PORT,), idle_timeout_s=2)
    kept, done = [], threading.Event()

    def handle(connection, address):
        if kept:
            echo(connection, address)
            return
        kept.append(connection)
        connection.sendall(connection.recv(100))
        done.wait(30)

    def forget(connection):
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        os.close(connection.detach())

    with servers.Peer(lab.server, SERVER[family], PORT, handle):
        first = lab.client.connect(SERVER[family], PORT, before=from_port(9490))
        ask(first, b"hello")
        forget(kept[0])
        forget(first)
        with lab.client.connect(SERVER[family], PORT, before=from_port(9490)) as second:
            ask_much(second, os.urandom(300_000))
            assert lives(second, 6)
            wait_for(lambda: row_of(gateway, second)["to_target"]["bytes"] >= 300_000, 5, "the bytes to be counted")
            assert movers(gateway, second) == ("kernel", "kernel")
        done.set()
    nothing_left(gateway)
    assert gateway.counters()["bytes_to_target"] >= 300_000 and gateway.counters()["flows_reset"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_target_that_has_gone(lab, gateway, family):
    """The target of an open connection is dead; the client begins another one with the same port, and there is somebody
    else by then: it gets there."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1)])
    straight(gateway, ports=(PORT,), upstream="pool")
    with Names(lab, family, ports=(PORT + 1,)):
        first = lab.client.connect(OTHER[family], PORT, before=from_port(9491))
        assert told(first)[0] == SERVER[family]
        number = "ip6" if family == "v6" else "ip"
        with drops(lab.server, "dead", f"{number} daddr {SERVER[family]} tcp dport {PORT + 1} drop"):
            gateway.upstream("pool", [(TARGET[family], PORT + 1)])
            first.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            os.close(first.detach())
            with lab.client.connect(OTHER[family], PORT, timeout=20, before=from_port(9491)) as second:
                assert told(second)[0] == TARGET[family]


def test_tag_without_a_vlan(lab, gateway):
    """Frames that carry a priority and no VLAN are like others."""
    straight(gateway, ports=(PORT,))
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), drops(lab.client, "deaf", f"tcp sport {PORT} drop"), \
            Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        def tagged(*args, **more):
            frame = wire.frame(lab.client.v4, SERVER["v4"], 4706, PORT, *args, **more)
            wire.socket.send(frame[:12] + b"\x81\x00\xa0\x00" + frame[12:])

        tagged(SYN, seq=1000, options=OPTIONS)
        flags, seq, ack, _ = wire.answer(SERVER["v4"], PORT, 4706)
        assert flags == SYN | ACK and ack == 1001
        tagged(ACK, seq=1001, ack=seq + 1)
        wait_for(lambda: "ESTAB" in lab.server.run("ss", "-Htan", "dport = :4706").stdout, 3, "the server's connection")
        wait_for(lambda: [flow["state"] for flow in flows(gateway)] == ["relaying"], 3, "the flow")
    assert gateway.counters()["straight_flows"] == 1


def test_options_of_a_stranger(lab, gateway):
    """A packet with IP options whose numbers are made up ends nothing; one that the peer would look at does."""
    straight(gateway, ports=(PORT,))
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo), Wire(lab.client, "up0", lab.gateway, "in0") as wire, \
            lab.client.connect(SERVER["v4"], PORT) as connection:
        ask(connection, b"x")
        frame = wire.frame(lab.client.v4, SERVER["v4"], connection.getsockname()[1], PORT, ACK, seq=12345, ack=777)
        tcp = frame[34:]
        header = struct.pack("!BBHHHBBH", 0x46, 0, 24 + len(tcp), 1, 0x4000, 64, 6, 0) + frame[26:34] + b"\x01\x01\x01\x00"
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        wire.socket.send(frame[:14] + header + tcp)
        assert lives(connection, 6)
        assert is_straight(lab, gateway, connection)


@pytest.mark.parametrize("family", FAMILIES)
def test_router_refuses(lab, gateway, family):
    """A router says that a target cannot be reached: the next one is asked at once, as a reset would have it."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], algorithm="round_robin", **LENIENT)
    straight(gateway, ports=(PORT,), upstream="pool", connect_timeout_ms=60_000)
    number, word = ("ip6", "icmpv6 type no-route") if family == "v6" else ("ip", "icmp type host-unreachable")
    with Names(lab, family, ports=(PORT + 1,), addresses=(TARGET,)), \
            drops(lab.server, "no", f"{number} daddr {SERVER[family]} tcp dport {PORT + 1} reject with {word}"):
        for _ in range(4):
            with lab.client.connect(OTHER[family], PORT, timeout=20) as connection:
                assert told(connection)[0] == TARGET[family]
    found = gateway.counters()
    # How often the first choice is the target that cannot be reached depends on the threads: each has turns of its own.
    assert found["connect_retried"] == found["connect_failed"] >= 2
    assert found["connect_timeout"] == 0 and found["straight_flows"] == 4


def test_bounded_target(lab, gateway):
    """SYNs of nobody do not use up how many connections a target takes: with such a bound connections have sockets."""
    gateway.must("PUT", "/upstreams/pool", {"targets": [{"address": SERVER["v4"], "port": PORT + 1, "max_connections": 50}]})
    answer = gateway.must("PUT", "/listeners/k?dry_run=true", {"ports": [str(PORT)], "upstream": "pool", "mover": "kernel"})
    assert ["mover_not_used"] == [one["code"] for one in answer["warnings"]]
    gateway.must("PUT", "/listeners/k", {"ports": [str(PORT)], "upstream": "pool", "mover": "kernel"})
    with Names(lab, "v4", ports=(PORT + 1,), addresses=(SERVER,)), Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        wire.flood("10.99.0.0/16", OTHER["v4"], PORT, 60)
        with lab.client.connect(OTHER["v4"], PORT) as connection:
            told(connection)
            assert has_sockets(lab, connection) >= 1
    assert gateway.counters()["straight_flows"] == 0


def test_stale_syn(lab, gateway):
    """A relay that is stopped leaves a SYN in the ring, and dies; the connection is made past the gateway meanwhile. The
    next relay lets it live."""
    straight(gateway, ports=(PORT,), on_worker_down="direct", connect_timeout_ms=2000)
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo):
        made = []
        os.kill(gateway.relay_pid(), signal.SIGSTOP)
        thread = threading.Thread(target=lambda: made.append(lab.client.connect(SERVER["v4"], PORT, timeout=20)))
        thread.start()
        time.sleep(0.3)
        before = gateway.break_relay()
        thread.join(20)
        with made[0] as connection:
            ask(connection, b"past the gateway")
            gateway.mend_relay()
            gateway.wait_relay(before, 20)
            assert lives(connection, 4)


@pytest.mark.parametrize("how", ["handover", "kill"])
def test_relays_change_under_load(lab, gateway, how):
    """Relays come and go while short connections are made all the time: none fails, and every flow and byte is counted
    once. One that is killed between two steps may have begun a flow that its client's next SYN begins again."""
    straight(gateway, ports=(PORT,))
    stop = threading.Event()
    errors, done = [], []

    def client():
        while not stop.is_set():
            try:
                with lab.client.connect(SERVER["v4"], PORT, timeout=10) as connection:
                    ask(connection, b"hello")
                    done.append(1)
            except (OSError, AssertionError) as error:
                errors.append(repr(error))

    with servers.Peer(lab.server, SERVER["v4"], PORT, echo):
        threads = [threading.Thread(target=client) for _ in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(1)
            before = gateway.relay_pid()
            if how == "handover":
                gateway.must("POST", "/relay/restart")
            else:
                os.kill(before, signal.SIGKILL)
            wait_for(lambda: gateway.relay_pid() not in (before, None, 0), 10, "the next relay")
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not errors and done
    nothing_left(gateway)
    found = gateway.counters()
    assert found["flows_opened"] == found["flows_closed"] + found["flows_lost"], found
    assert 0 <= found["flows_opened"] - len(done) <= (3 if how == "kill" else 0), found
    assert found["flows_lost"] <= (3 if how == "kill" else 0) and found["bytes_to_target"] == 5 * len(done), found


def test_adopted_with_a_silent_target(lab, gateway):
    """Flows that wait for a silent target when their relay dies: that target is blamed, and no other."""
    gateway.upstream("pool", [(SERVER["v4"], PORT + 1), (TARGET["v4"], PORT + 1)], algorithm="round_robin", passive_failures=1,
                     **LENIENT)
    straight(gateway, ports=(PORT,), upstream="pool", connect_timeout_ms=2500)
    with Names(lab, "v4", ports=(PORT + 1,), addresses=(TARGET,)), \
            drops(lab.server, "silent", f"ip daddr {SERVER['v4']} tcp dport {PORT + 1} drop"):
        threads = [threading.Thread(target=lambda: lab.client.connect(OTHER["v4"], PORT, timeout=20).close())
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: "connecting" in [flow["state"] for flow in flows(gateway)], 5, "the flow", interval=0.02)
        before = gateway.break_relay()
        gateway.mend_relay()
        gateway.wait_relay(before, 20)
        for thread in threads:
            thread.join(25)
        wait_for(lambda: gateway.counters()["connect_timeout"] >= 1, 5, "the end of the wait")
    found = gateway.counters()
    assert found["connect_failed"] == 0 and found["targets_ejected"] <= 1
