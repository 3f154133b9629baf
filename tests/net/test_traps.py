"""The known traps of transparent proxying: each was seen to break a gateway, so each has a test."""

import errno
import json
import socket
import struct
import time

import pytest

from lab import servers, traffic
from lab.process import wait_for

pytestmark = pytest.mark.shared_gateway

FAR_PORT = 9100


@pytest.fixture(scope="module")
def far_server(lab):
    """Checked traffic on the server behind the narrow path."""
    return servers.traffic_server(lab, lab.far, FAR_PORT)


@pytest.fixture
def forget_mtu(lab):
    """No host remembers the path's MTU from an earlier test."""
    for host in (lab.client, lab.gateway, lab.far):
        for family in (4, 6):
            host.run("ip", f"-{family}", "route", "flush", "cache")


def too_big_errors(host):
    """How many "too big" errors a host has received."""
    lines = host.run("nstat", "-asz", "IcmpInDestUnreachs", "Icmp6InPktTooBigs").stdout.splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Icmp"))


@pytest.mark.parametrize("address", ["10.71.4.2", "fd71:4::2"])
def test_path_mtu(lab, gateway, far_server, forget_mtu, figure, address):
    """4 MB through a hop of 1000 (IPv4) and 1300 (IPv6) bytes: its ICMP errors reach the relay's own sockets."""
    gateway.listener("far", ports=[str(FAR_PORT)])
    before = too_big_errors(lab.client)
    started = time.monotonic()
    outcome = traffic.client(lab.client.connect(address, FAR_PORT, timeout=20), f"mtu {address}", 4_000_000, 10)
    figure("4 MB upload", f"{time.monotonic() - started:.2f} s")
    assert outcome["ok"], outcome
    hop_sent = lab.hop.run("nstat", "-asz", "IcmpOutDestUnreachs", "Icmp6OutPktTooBigs").stdout
    assert any(int(line.split()[1]) for line in hop_sent.splitlines() if line.startswith("Icmp")), "the hop said nothing"
    assert too_big_errors(lab.client) == before, "the hop's errors went on to the client"


def retransmissions(connection):
    """How many segments a connection has sent again, SYNs among them: tcpi_total_retrans."""
    return struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]


def test_syn_into_time_wait(lab, nginx, gateway, figure):
    """A client that uses its port again while our socket is in TIME_WAIT is answered at once."""
    def close_first(connection, _address):
        connection.recv(100)
        connection.close()

    def reuse(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # RST instead of FIN at the end, so that only the gateway's side is left in TIME_WAIT.
        made.bind(("10.71.1.2", 9456))

    gateway.listener("tw", ports=["7200"])
    times, resent = [], []
    with servers.Peer(lab.server, "10.71.2.2", 7200, close_first):
        for _ in range(5):
            started = time.monotonic()
            with lab.client.connect("10.71.2.2", 7200, timeout=5, before=reuse) as connection:
                times.append((time.monotonic() - started) * 1000)
                resent.append(retransmissions(connection))
                connection.sendall(b"bye")
                assert connection.recv(10) == b""
            time.sleep(0.1)
            states = lab.gateway.run("ss", "-Htan", "sport = :7200").stdout
            assert "TIME-WAIT" in states, f"the trap is not set: {states!r}"
    figure("connect times, ms", " ".join(f"{t:.1f}" for t in times))
    assert resent == [0] * 5, "a SYN that was not taken is sent again"


def test_syn_into_time_wait_is_not_diverted(lab, gateway):
    """The same seen from the wire: the second SYN is answered by a SYN-ACK, not by a challenge ACK or a reset."""
    gateway.listener("tw", ports=["7201"])

    def reuse(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("10.71.1.2", 9457))

    lab.client.nft("add table inet wire\nadd chain inet wire out { type filter hook output priority 0; }\n"
                   "add rule inet wire out tcp sport 9457 tcp flags & rst == rst counter\n")
    try:
        with servers.Peer(lab.server, "10.71.2.2", 7201, lambda c, _a: (c.recv(100), c.close())):
            for _ in range(3):
                with lab.client.connect("10.71.2.2", 7201, timeout=5, before=reuse) as connection:
                    connection.sendall(b"bye")
                    assert connection.recv(10) == b""
                time.sleep(0.1)
        rules = json.loads(lab.client.run("nft", "-j", "list", "table", "inet", "wire").stdout)["nftables"]
        counters = [e["counter"] for r in rules if "rule" in r for e in r["rule"]["expr"] if "counter" in e]
        assert counters[0]["packets"] == 0, "the client had to reset a half-open connection"
    finally:
        lab.client.nft("delete table inet wire")


@pytest.mark.parametrize("address", ["10.71.2.2", "fd71:2::2"])
@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("src_valid_mark", [0, 1])
def test_reverse_path_filters(lab, nginx, gateway, src_valid_mark, rp_filter, address):
    """Source validation by mark, as VPN software switches it on, must not make packets vanish."""
    with lab.gateway.sysctls(net__ipv4__conf__all__src_valid_mark=src_valid_mark,
                             net__ipv4__conf__all__rp_filter=rp_filter,
                             net__ipv4__conf__in0__rp_filter=rp_filter, net__ipv4__conf__out0__rp_filter=rp_filter):
        gateway.listener("web", ports=["8000"])
        with lab.client.connect(address, 8000, timeout=3) as connection:
            connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
            assert b"sees" in connection.recv(1000)


def test_spoofed_binds_beyond_the_port_range(lab, gateway, figure):
    """With 100 ports in the range, one client has 100 flows to each of three destinations, not 100 in all."""
    held, flows = [], []
    destinations = ["10.71.2.2", "10.71.2.3", "10.71.2.4"]
    keep = lambda connection, address: (held.append(connection), connection.sendall(b"ok"))
    peers = [servers.Peer(lab.server, address, 7300, keep) for address in destinations]
    gateway.listener("ports", ports=["7300"], source_port="any")
    try:
        with lab.gateway.sysctls(net__ipv4__ip_local_port_range="40000 40099"):
            for number in range(270):
                flows.append(lab.client.connect(destinations[number % 3], 7300, timeout=5))
            assert [flow.recv(2) for flow in flows] == [b"ok"] * 270
            ports = {address: {a[1] for p in [peer] for a in p.seen} for address, peer in zip(destinations, peers)}
            figure("ports used for each destination", {a: len(p) for a, p in ports.items()})
            # At last there is no port left: such a flow must end, and be counted, and harm nobody.
            with pytest.raises(ConnectionResetError):
                for _ in range(31):
                    flows.append(lab.client.connect("10.71.2.2", 7300, timeout=5))
                    assert flows[-1].recv(2) == b"ok"
            assert gateway.counters()["source_ports_exhausted"] >= 1
            flows[0].sendall(b"still here")
    finally:
        for item in flows + held + peers:
            item.close()


def warnings_of(gateway):
    """Everything the status complains of, as one text."""
    return json.dumps(gateway.status()["warnings"])


def test_foreign_masquerade_is_reported(lab, gateway):
    """Somebody's masquerade would rewrite the clients' addresses: the status names it."""
    assert "masquerade" not in warnings_of(gateway)
    lab.gateway.nft("add table ip somebody\n"
                    "add chain ip somebody post { type nat hook postrouting priority 100; }\n"
                    "add rule ip somebody post oifname out0 masquerade\n")
    try:
        wait_for(lambda: "somebody" in warnings_of(gateway), 5, "the warning")
        assert "masquerade" in warnings_of(gateway)
    finally:
        lab.gateway.nft("delete table ip somebody")
    wait_for(lambda: "somebody" not in warnings_of(gateway), 5, "the warning's end")


def test_foreign_input_policy_is_reported(lab, gateway):
    """A default-drop INPUT chain swallows what tproxy delivers: the status names it."""
    lab.gateway.nft("add table inet firewall\n"
                    "add chain inet firewall input { type filter hook input priority 0; policy drop; }\n")
    try:
        wait_for(lambda: "firewall" in warnings_of(gateway), 5, "the warning")
        assert "drop" in warnings_of(gateway)
        assert lab.gateway.run("nft", "list", "table", "inet", "firewall").stdout, "foreign tables are left alone"
    finally:
        lab.gateway.nft("delete table inet firewall")


def test_loop_to_the_gateway_itself(lab, gateway):
    """A listener on any destination leaves the gateway's own addresses alone; its API stays reachable."""
    gateway.listener("everything", ports=["22", "8080", "7400"])
    with servers.Peer(lab.gateway, "10.71.1.1", 7400, lambda c, _a: c.sendall(b"gateway's own")):
        with lab.client.connect("10.71.1.1", 7400, timeout=5) as connection:
            assert connection.recv(100) == b"gateway's own"
    assert gateway.api("GET", "/readyz").status == 200


def test_loop_by_naming_the_gateway(lab, gateway):
    """A listener that names the gateway's own address with no other target must not relay to itself for ever."""
    gateway.listener("self", ports=["7500"], destinations=["10.71.1.1/32"])
    before = gateway.counters()["flows_opened"]
    with pytest.raises(OSError):
        with lab.client.connect("10.71.1.1", 7500, timeout=3) as connection:
            if connection.recv(10) == b"":
                raise OSError(errno.ECONNRESET, "ended")
    opened = gateway.counters()["flows_opened"] - before
    assert opened <= 4, f"{opened} flows from one connection"


def test_loop_through_the_relay_port(lab, gateway):
    """A target that is the relay's own port: the relay refuses itself instead of calling itself for ever."""
    port = gateway.status()["relay"]["port"]
    answer = gateway.api("PUT", "upstreams/self", {"name": "self", "targets": [{"address": "127.0.0.1", "port": port}]})
    if answer.status == 422:
        return  # refused at the door
    gateway.listener("l", ports=["7510", str(port)], upstream="self", source_address="gateway")
    with pytest.raises(ConnectionError):
        with lab.client.connect("10.71.2.2", 7510, timeout=5) as connection:
            raise ConnectionError(f"{connection.recv(10)!r}")
    counters = gateway.counters()
    assert counters["refused_loop"] == 1
    assert counters["flows_opened"] <= 2


@pytest.mark.parametrize("address", ["10.71.1.1", "10.71.2.1", "fd71:1::1"])
def test_relay_port_is_not_reachable(lab, gateway, address):
    """The relay's listening port takes nothing from outside."""
    gateway.listener("web", ports=["8000"])
    port = gateway.status()["relay"]["port"]
    with pytest.raises(OSError):
        with lab.client.connect(address, port, timeout=1.5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if connection.recv(10) == b"":
                raise OSError("closed")


def test_other_traffic_is_left_alone(lab, gateway):
    """Forwarding of what no listener names, ping and the gateway's own connections go on."""
    gateway.listener("web", ports=["8000"])
    with servers.Peer(lab.server, "10.71.2.2", 7600, lambda c, _a: c.sendall(b"plain")):
        with lab.client.connect("10.71.2.2", 7600) as forwarded:
            assert forwarded.recv(10) == b"plain"
        with lab.gateway.connect("10.71.2.2", 7600) as own:
            assert own.recv(10) == b"plain"
