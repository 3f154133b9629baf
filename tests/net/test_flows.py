"""GET /flows shows what lives, once each, and DELETE ends exactly the one that is named."""

import os
import re
import resource
import signal
import socket
import threading

import pytest

from lab.datagrams import DatagramPeer, ask, client
from lab.process import wait_for
from lab.servers import Peer

pytestmark = pytest.mark.shared_gateway

PORT = 7200
OPEN = 1000


def echo(connection, _peer):
    """Sends back what comes."""
    with connection:
        connection.settimeout(None)
        while piece := connection.recv(65536):
            connection.sendall(piece)


@pytest.fixture
def server(lab):
    """An echo server in both families, on all addresses."""
    # Threads enough for a thousand connections and more, and descriptors for both ends of them in this process.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Peer(lab.server, "::", PORT, echo, backlog=4096) as peer:
        yield peer
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def furnish(gateway):
    """A listener with a pool of two servers, one that leaves the destination as it is."""
    gateway.upstream("pool", [("10.71.2.3", PORT), ("10.71.2.4", PORT)])
    gateway.listener("pooled", destinations=["10.71.2.2"], ports=[str(PORT)], upstream="pool")
    gateway.listener("direct", destinations=["10.71.2.5", "fd71:2::5"], ports=[str(PORT)])


def say(connection, data=b"x"):
    """There and back."""
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = connection.recv(65536)
        assert piece, "the connection has ended"
        got += piece


def opened(lab, address, n):
    """Connections that have been used once."""
    made = [lab.client.connect(address, PORT) for _ in range(n)]
    for connection in made:
        say(connection)
    return made


def close_all(connections):
    """At once."""
    for connection in connections:
        connection.close()


def walk(gateway, query=""):
    """All pages of a list."""
    items, after = [], None
    while True:
        page = gateway.must("GET", f"flows?{query}" + (f"&after={after}" if after else ""))
        items += page["items"]
        after = page["next"]
        if not after:
            return items


def port_of(connection):
    """The client's port."""
    return connection.getsockname()[1]


def ports(items):
    """The clients' ports of flows."""
    return sorted(flow["client"]["port"] for flow in items)


def test_each_flow_once_while_others_come_and_go(lab, gateway, server):
    """A thousand open connections; others begin and end all the time."""
    furnish(gateway)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            some = opened(lab, "10.71.2.5", 5)
            close_all(some)

    steady = opened(lab, "10.71.2.2", OPEN)
    thread = threading.Thread(target=churn, daemon=True)
    thread.start()
    try:
        wanted = sorted(map(port_of, steady))
        for limit in (1000, 100, 37):
            shown = walk(gateway, f"limit={limit}")
            assert ports(flow for flow in shown if flow["listener"] == "pooled") == wanted, limit
            assert len({flow["id"] for flow in shown}) == len(shown), limit
        assert ports(walk(gateway, "limit=99&listener=pooled")) == wanted
        assert ports(walk(gateway, "limit=99&sort=age&listener=pooled")) == wanted
    finally:
        stop.set()
        thread.join()
        close_all(steady)
    wait_for(lambda: gateway.must("GET", "flows")["items"] == [], 10, "the end of all flows")


def test_what_a_flow_says(lab, gateway, server):
    """Addresses, names, bytes, movers and ends of one connection."""
    furnish(gateway)
    connection = lab.client.connect("10.71.2.2", PORT)
    say(connection, b"12345")
    flow = wait_for(lambda: next(iter(gateway.must("GET", "flows")["items"]), None), 5, "the flow")
    assert flow == gateway.must("GET", f"flows/{flow['id']}") | {"age_ms": flow["age_ms"], "idle_ms": flow["idle_ms"]} \
        | {key: flow[key] for key in ("client_tcp", "target_tcp", "sampled_ms_ago")}
    assert re.fullmatch("[0-9a-f]{16}", flow["id"])
    assert (flow["protocol"], flow["state"], flow["listener"], flow["upstream"]) == ("tcp", "relaying", "pooled", "pool")
    assert flow["client"] == {"address": lab.client.v4, "port": port_of(connection)}
    assert flow["original"] == {"address": "10.71.2.2", "port": PORT}
    assert flow["target"] in [{"address": f"10.71.2.{last}", "port": PORT} for last in (3, 4)]
    assert [flow[way]["bytes"] for way in ("to_target", "to_client")] == [5, 5]
    assert [flow[way]["mover"] for way in ("to_target", "to_client")] == ["copy", "copy"]
    assert [flow[way]["reason"] for way in ("to_target", "to_client")] == ["start", "start"]
    assert not flow["to_target"]["ended"] and not flow["to_client"]["ended"]
    assert 0 < flow["connect_us"] < 10_000_000 and flow["sni"] is None
    connection.close()


def test_half_closed_and_large(lab, gateway):
    """A direction that has ended says so; one that carries much has another mover, and says why."""
    def swallow(connection, _peer):
        with connection:
            while connection.recv(1 << 20):
                pass
            stay.wait(30)

    stay = threading.Event()
    furnish(gateway)
    with Peer(lab.server, "::", PORT, swallow):
        connection = lab.client.connect("fd71:2::5", PORT)
        connection.sendall(bytes(8 << 20))
        connection.shutdown(socket.SHUT_WR)

        def ended():
            flow = gateway.must("GET", "flows")["items"][0]
            return flow if flow["to_target"]["ended"] else None

        flow = wait_for(ended, 10, "the end of one direction")
        assert flow["to_target"]["bytes"] == 8 << 20
        assert (flow["to_target"]["mover"], flow["to_target"]["reason"]) == ("splice", "much")
        assert (flow["to_client"]["mover"], flow["to_client"]["ended"]) == ("copy", False)
        assert flow["original"]["address"] == flow["target"]["address"] == "fd71:2::5" and flow["upstream"] is None
        stay.set()
        connection.close()


def test_filters_sorts_and_groups(lab, gateway, server):
    """Each parameter finds what it says and nothing else."""
    furnish(gateway)
    pooled, direct, six = opened(lab, "10.71.2.2", 6), opened(lab, "10.71.2.5", 3), opened(lab, "fd71:2::5", 2)
    second = lab.client2.connect("10.71.2.5", PORT)
    say(second)
    for i, connection in enumerate(direct):
        say(connection, bytes(1000 * (i + 1)))
    everything = [*pooled, *direct, *six, second]

    def found(query):
        return ports(walk(gateway, query + "&limit=2"))

    assert found("listener=pooled") == sorted(map(port_of, pooled)) == found("upstream=pool")
    assert found("listener=direct") == sorted(map(port_of, [*direct, *six, second]))
    assert found(f"client={lab.client2.v4}") == [port_of(second)]
    assert found("client=fd71:1::/64") == sorted(map(port_of, six))
    assert found("client=10.71.1.0/24&target=10.71.2.5") == sorted(map(port_of, direct))
    assert found(f"target=[fd71:2::5]:{PORT}") == sorted(map(port_of, six))
    assert found("target=10.71.2.5:1") == found("protocol=udp") == found("listener=none") == []
    assert found("protocol=tcp") == sorted(map(port_of, everything))
    by_bytes = walk(gateway, "sort=bytes&limit=2")
    assert [flow["client"]["port"] for flow in by_bytes[:3]] == [port_of(c) for c in reversed(direct)]
    by_age = [flow["client"]["port"] for flow in walk(gateway, "sort=age&limit=5")]
    assert sorted(by_age) == sorted(map(port_of, everything))
    groups = {g["group"]: g for g in gateway.must("GET", "flows?group=client")["items"]}
    assert {name: g["flows"] for name, g in groups.items()} == {lab.client.v4: 9, lab.client.v6: 2, lab.client2.v4: 1}
    assert groups[lab.client.v6] == {"group": lab.client.v6, "by": {"client": lab.client.v6}, "flows": 2, "bytes_to_target": 2, "bytes_to_client": 2}
    first = gateway.must("GET", "flows?group=listener&limit=1")["items"]
    assert [(g["group"], g["flows"]) for g in first] == [("direct", 6)]
    targets = {g["group"]: g["flows"] for g in gateway.must("GET", "flows?group=target")["items"]}
    assert targets[f"[fd71:2::5]:{PORT}"] == 2 and targets[f"10.71.2.3:{PORT}"] + targets[f"10.71.2.4:{PORT}"] == 6
    assert gateway.must("GET", "flows?group=sni")["items"][0]["group"] is None
    close_all(everything)


def test_round_trip_times(lab, gateway, server):
    """They are there soon after somebody looks, and retransmissions with them."""
    furnish(gateway)
    connections = opened(lab, "10.71.2.5", 30)

    def sampled():
        items = walk(gateway, "sort=rtt")
        return items if all(flow["client_tcp"] and flow["target_tcp"] for flow in items) else None

    items = wait_for(sampled, 20, "round-trip times of all flows")
    assert len(items) == 30
    assert all(0 < flow[end]["rtt_us"] < 10_000_000 for flow in items for end in ("client_tcp", "target_tcp"))
    assert all(flow["client_tcp"]["retransmits"] == 0 for flow in items)
    rtts = [max(flow[end]["rtt_us"] for end in ("client_tcp", "target_tcp")) for flow in items]
    assert rtts == sorted(rtts, reverse=True)
    close_all(connections)


@pytest.mark.own_gateway  # counts in the statistics
def test_delete_ends_exactly_one(lab, gateway, server):
    """Both ends of it see a reset; all others go on."""
    furnish(gateway)
    connections = opened(lab, "10.71.2.2", 10) + opened(lab, "fd71:2::5", 10)
    for victim in (connections[3], connections[-1]):
        connections.remove(victim)
        flow = next(f for f in walk(gateway) if f["client"]["port"] == port_of(victim))
        assert gateway.api("DELETE", f"flows/{flow['id']}").status == 204
        victim.settimeout(5)
        with pytest.raises(ConnectionResetError):
            victim.recv(1)
        assert gateway.api("DELETE", f"flows/{flow['id']}").status == 404
        assert gateway.api("GET", f"flows/{flow['id']}").status == 404
        for connection in connections:
            say(connection)
        assert ports(walk(gateway)) == sorted(map(port_of, connections))
    assert gateway.must("GET", "stats")["counters"]["killed"] == 2
    listener = next(one for one in gateway.must("GET", "stats")["listeners"] if one["name"] == "pooled")
    assert listener["killed"] == 1
    close_all(connections)


def test_after_the_relay(lab, gateway, server):
    """kill -9 of the relay: the list has no flow that does not live, a cursor of before is no fault."""
    furnish(gateway)
    connections = opened(lab, "10.71.2.5", 8)
    page = gateway.must("GET", "flows?limit=3")
    assert len(page["items"]) == 3 and page["next"] and page["active"] == 8
    pid = gateway.kill_relay()
    gateway.wait_relay(pid)
    close_all(connections)
    wait_for(lambda: gateway.must("GET", "flows")["items"] == [], 10, "an empty list")
    again = opened(lab, "10.71.2.5", 4)
    assert ports(gateway.must("GET", f"flows?after={page['next']}")["items"]) == sorted(map(port_of, again))
    close_all(again)


def test_a_stopped_relay_does_not_hold_the_daemon(lab, gateway, server):
    """A relay that answers nothing: DELETE says so after its time, and the list is told meanwhile."""
    furnish(gateway)
    connections = opened(lab, "10.71.2.5", 2)
    flow = gateway.must("GET", "flows")["items"][0]
    pid = gateway.relay_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert len(gateway.must("GET", "flows")["items"]) == 2
        assert gateway.api("DELETE", f"flows/{flow['id']}").status == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: len(gateway.must("GET", "flows")["items"]) == 1, 10, "the end of the flow, late")
    assert gateway.relay_pid() == pid
    close_all(connections)


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_udp_flows(lab, gateway, family):
    """A UDP flow is in the list like a connection, counts with its listener and upstream, and can be ended; the next
    datagram begins another one. It outlives neither relay nor its row."""
    own, target = {"v4": ("10.71.2.2", "10.71.2.3"), "v6": ("fd71:2::2", "fd71:2::3")}[family]
    gateway.upstream("pool", [(target, PORT)])
    gateway.listener("asked", protocol="udp", ports=[str(PORT + 1)], upstream="pool")
    with DatagramPeer(lab.server, target, PORT, lambda data, _: data * 2), client(lab.client, own, PORT + 1) as made:
        for _ in range(3):
            assert ask(made, b"12345") == b"1234512345"
        (flow,) = walk(gateway, "protocol=udp")
        assert walk(gateway, "protocol=tcp") == []
        assert (flow["client"]["port"], flow["target"]) == (port_of(made), {"address": target, "port": PORT})
        assert (flow["listener"], flow["upstream"], flow["state"]) == ("asked", "pool", "relaying")
        assert (flow["to_target"]["bytes"], flow["to_client"]["bytes"]) == (15, 30)
        assert flow["client_tcp"] is None and flow["idle_ms"] <= flow["age_ms"]
        assert (gateway.status()["relay"]["udp_flows"], gateway.status()["relay"]["flows"]) == (1, 0)
        for kind, name in (("listeners", "asked"), ("upstreams", "pool")):
            (counted,) = [o for o in gateway.must("GET", f"stats/{kind}")["items"] if o["name"] == name]
            assert (counted["flows_active"], counted["flows_opened"]) == (1, 1), counted
            assert (counted["bytes_to_target"], counted["bytes_to_client"]) == (15, 30), counted
        gateway.must("DELETE", f"flows/{flow['id']}")
        assert walk(gateway) == []
        assert gateway.api("DELETE", f"flows/{flow['id']}").status == 404
        assert ask(made, b"1") == b"11"
        assert [f["id"] for f in walk(gateway)] != [flow["id"]]
        pid = gateway.relay_pid()
        os.kill(pid, signal.SIGKILL)
        gateway.wait_relay(pid)
        assert walk(gateway) == [] and gateway.status()["relay"]["udp_flows"] == 0
        assert ask(made, b"1") == b"11"
        assert len(walk(gateway, "protocol=udp")) == 1
