"""POST /trace: what real packets met, told in the gateway's own names, and nothing of it left behind."""

import socket

import pytest

from lab import Gateway, servers
from lab.process import wait_for
from net.test_limits import ADDRESSES, CLIENTS, echo
from net.test_prefilter import prefilter

PORT = 7500


@pytest.fixture(scope="module")
def shared(lab):
    """One gateway for all tests of this file."""
    with Gateway(lab, bpf=True) as made:
        yield made


@pytest.fixture
def gateway(shared):
    """The gateway, without configuration, bans and traces."""
    shared.must("PUT", "config", {})
    for ban in shared.must("GET", "bans")["items"]:
        shared.api("DELETE", f"bans?address={ban['address']}")
    for trace in shared.must("GET", "trace")["items"]:
        shared.must("DELETE", f"trace/{trace['id']}")
    yield shared


@pytest.fixture(params=ADDRESSES)
def address(request, lab):
    """An address of a server with TCP echo."""
    with servers.Peer(lab.server, request.param, PORT, echo):
        yield request.param


def trace(gateway, address, protocol="tcp", port=PORT, **fields):
    """Arms one; its number."""
    return gateway.must("POST", "trace", {"protocol": protocol, "source": CLIENTS[address][0], "destination": address,
                                          "destination_port": port, **fields})["id"]


def packets(gateway, number):
    """What it has seen so far."""
    return gateway.must("GET", f"trace/{number}")["packets"]


def seen(gateway, number, what):
    """Waits for a packet of which `what` holds; the packet."""
    return wait_for(lambda: next((p for p in packets(gateway, number) if what(p)), None), 10,
                    f"such a packet among {packets(gateway, number)}")


def tables(lab):
    """The tables that tracing makes, as nft shows them."""
    return [line for line in lab.gateway.run("nft", "list", "tables").stdout.split("\n") if "trace" in line]


def send(host, address, port=PORT):
    """One datagram; the socket's own port."""
    with host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", (address, port))
        return made.getsockname()[1]


def knock(lab, address, port=PORT):
    """A connection that may fail; the client's own port."""
    with lab.client.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=0.3) as made:
        made.bind(("", 0))
        try:
            made.connect((address, port))
        except OSError:
            pass
        return made.getsockname()[1]


def test_connection(lab, gateway, address):
    """The whole of a connection: its SYN by the listener's element, what follows by its socket, and the answers of the
    server, each with the text of the rule that the kernel names by handle."""
    gateway.listener("web", ports=[str(PORT)])
    number = trace(gateway, address)
    with lab.client.connect(address, PORT) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        port = connection.getsockname()[1]
    syn = seen(gateway, number, lambda p: p["flags"] == "syn" and p["direction"] == "to_server")
    assert (syn["verdict"], syn["listener"], syn["interface"], syn["source_port"]) == ("relay", "web", "in0", port)
    lookup = next(step for step in syn["steps"] if step.get("listener") == "web")
    listing = lab.gateway.run("nft", "-a", "list", "table", "inet", "gatewayd").stdout
    for step in syn["steps"]:
        if "rule" in step:
            assert f"{step['rule']} # handle {step['handle']}" in listing, step
    if gateway.status()["interception"]["engine"] == "nft":
        assert "@" in lookup["rule"] and lookup["to"] == "act_relay"
        assert any(step["chain"] == "act_relay" and "tproxy" in step.get("rule", "") for step in syn["steps"])
    else:
        assert lookup["to"] == "act_handed"
    assert syn["steps"][-1]["chain"] == "take_tcp"
    data = seen(gateway, number, lambda p: "psh" in p["flags"] and p["direction"] == "to_server")
    assert data["verdict"] == "established" and "socket transparent" in data["steps"][-1]["rule"]
    answer = seen(gateway, number, lambda p: p["flags"] == "syn ack" and p["direction"] == "to_client")
    assert (answer["verdict"], answer["interface"]) == ("established", "out0")


def test_datagrams(lab, gateway, address):
    """UDP: every datagram by its listener."""
    gateway.listener("dns", protocol="udp", ports=[str(PORT)])
    number = trace(gateway, address, "udp")
    port = send(lab.client, address)
    packet = seen(gateway, number, lambda p: p["direction"] == "to_server")
    assert (packet["verdict"], packet["listener"], packet["source_port"], packet["protocol"]) == ("relay", "dns", port, "udp")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_verdicts(lab, gateway, address, protocol):
    """Refused, dropped, past us, banned, over a limit, by nobody's listener, and by somebody else's table."""
    send_one = (lambda: knock(lab, address)) if protocol == "tcp" else (lambda: send(lab.client, address))

    def verdict_of(port):
        packet = seen(gateway, number, lambda p: p["direction"] == "to_server" and p["source_port"] == port)
        return packet["verdict"], packet["listener"], packet["limit"]

    number = trace(gateway, address, protocol, packets=200)
    assert verdict_of(send_one()) == ("pass", None, None)
    for action, verdict in (("reject", "reject"), ("drop", "drop"), ("bypass", "bypass")):
        gateway.listener("web", protocol=protocol, ports=[str(PORT)], action=action)
        assert verdict_of(send_one()) == (verdict, "web", None)
    gateway.must("PUT", "rate-limits/few", {"name": "few", "metric": "new_connections", "rate": 1, "per": "minute", "burst": 1})
    gateway.listener("web", protocol=protocol, ports=[str(PORT)], rate_limits=["few"])
    assert verdict_of(send_one()) == ("relay", "web", None)
    assert verdict_of(send_one()) == ("limit", "web", "few")
    gateway.listener("web", protocol=protocol, ports=[str(PORT)])
    gateway.must("POST", "bans", {"address": CLIENTS[address][0], "ban_s": 60})
    assert verdict_of(send_one()) == ("ban", "web", None)
    lab.gateway.nft("add table inet wall\nadd chain inet wall in { type filter hook prerouting priority -200; }\n"
                    f"add rule inet wall in meta l4proto {protocol} th dport {PORT} drop\n")
    try:
        assert verdict_of(send_one()) == ("foreign_drop", None, None)
    finally:
        lab.gateway.nft("delete table inet wall")


def test_prefilter(lab, gateway, address):
    """A packet that XDP drops is told by the sample that the prefilter tells."""
    prefilter(gateway, deny=[CLIENTS[address][0]])
    number = trace(gateway, address, "udp")
    port = send(lab.client, address)
    packet = seen(gateway, number, lambda p: True)
    assert (packet["verdict"], packet["steps"][0]["reason"], packet["source_port"]) == ("prefilter", "denied", port)
    assert packet["steps"][0]["chain"] == "in0"


def test_only_the_flow(lab, gateway, address):
    """Another port, another client and another protocol are nobody's trace; one with a source port takes that only."""
    gateway.listener("web", ports=[], destinations=[address])
    number = trace(gateway, address, source_port=45000)
    knock(lab, address)
    with lab.client2.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=1) as other:
        other.connect((address, PORT))
    send(lab.client, address)
    with lab.client.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=1) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("", 45000))
        ours.connect((address, PORT))
    seen(gateway, number, lambda p: p["direction"] == "to_client")
    assert {p["source_port"] for p in packets(gateway, number) if p["direction"] == "to_server"} == {45000}


def test_ends_by_itself(lab, gateway):
    """After its time, after its packets, when told to, and when the daemon is killed: no table is left, and nothing of
    ours was counted as drift."""
    address = ADDRESSES[0]
    gateway.listener("dns", protocol="udp", ports=[str(PORT)])
    full = trace(gateway, address, "udp", packets=2)
    for _ in range(3):
        send(lab.client, address)
    wait_for(lambda: gateway.must("GET", f"trace/{full}")["why"] == "packets", 10, "as many as wanted")
    assert len(packets(gateway, full)) == 2
    timed = trace(gateway, address, "udp", seconds=1)
    wait_for(lambda: gateway.must("GET", f"trace/{timed}")["why"] == "time", 10, "its time")
    assert tables(lab) == []
    ended = [trace(gateway, address, "udp", seconds=60) for _ in range(4)]
    assert len(tables(lab)) == 4
    refused = gateway.api("POST", "trace", {"protocol": "udp", "source": "10.0.0.1", "destination": "10.0.0.2", "destination_port": 1})
    assert refused.status == 503 and refused.headers["Retry-After"]
    for number in ended[:2]:
        gateway.must("DELETE", f"trace/{number}")
    assert len(tables(lab)) == 2
    assert gateway.status()["drift"]["healed"] == 0
    gateway.kill()
    wait_for(lambda: tables(lab) == [], 5, f"gone with the daemon: {tables(lab)}")
    gateway.start()
    assert gateway.must("GET", "trace")["items"] == []


def test_at_a_flood(lab, gateway):
    """Of many packets only so many a second are told: the kernel chooses."""
    address = ADDRESSES[0]
    gateway.listener("dns", protocol="udp", ports=[str(PORT)])
    number = trace(gateway, address, "udp", packets=200)
    for _ in range(500):
        send(lab.client, address)
    seen(gateway, number, lambda p: p["verdict"] == "relay")
    assert len(packets(gateway, number)) < 200
