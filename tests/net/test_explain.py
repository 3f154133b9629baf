"""POST /explain against reality: random packets are explained, then sent, and must meet what was said."""

import random
import socket

import pytest

from lab import servers
from net.test_doctor import told_only, no_route  # noqa: F401 (told_only is what no_route needs)

CASES = 100
PORTS = list(range(7800, 7806))
DESTINATIONS = {4: ["10.71.2.2", "10.71.2.3", "10.71.2.4"], 6: ["fd71:2::2", "fd71:2::3", "fd71:2::4"]}


def listener_of(rng, number):
    """A random listener; some that tie with another are refused, which is fine."""
    family = rng.choice([4, 6])
    fields = {"ports": rng.choice([[str(rng.choice(PORTS))], [f"{PORTS[0]}-{PORTS[rng.randrange(1, 5)]}"], []]),
              "destinations": rng.choice([[], [rng.choice(DESTINATIONS[family])],
                                          ["10.71.2.0/24" if family == 4 else "fd71:2::/64"]]),
              "interfaces": rng.choice([[], [], ["in0"], ["in1"]]), "priority": number,
              "action": rng.choice(["relay", "relay", "relay", "reject", "bypass"])}
    if fields["action"] == "relay" and rng.random() < 0.6:
        fields["upstream"] = rng.choice(["one", "two", "backup"])
    if not fields["ports"] and not fields["destinations"]:
        fields["ports"] = [str(rng.choice(PORTS))]  # nothing that takes the test's own traffic
    return fields


def configure(gateway, rng):
    """Upstreams and random listeners."""
    gateway.upstream("one", [("10.71.2.5", 7800), ("fd71:2::5", 7801)])
    gateway.upstream("two", [("10.71.2.5", 0), ("10.71.2.4", 7803), {"address": "fd71:2::5", "port": 0, "weight": 3}])
    gateway.upstream("backup", [{"address": "10.71.2.3", "port": 7805, "backup": True},
                                {"address": "10.71.2.4", "port": 7805, "admin_state": "down"}])
    return sum(gateway.api("PUT", f"listeners/l{n}", {"name": f"l{n}", **listener_of(rng, n)}).status < 300
               for n in range(14))


def meet(host, destination, port):
    """What a connection meets: "ADDRESS PORT" of the server that answered, "reset", or "timeout"."""
    try:
        with host.connect(destination, port, timeout=5) as connection:
            return connection.recv(100).decode() or "reset"
    except (ConnectionRefusedError, ConnectionResetError):
        return "reset"
    except socket.timeout:
        return "timeout"


def expected(explained, destination, port):
    """All that a connection may meet by the explanation."""
    if explained["verdict"] in ("forward", "bypass", "direct"):
        return {f"{destination} {port}"}
    if explained["verdict"] != "relay":
        return {"reset"}
    upstream = next(stage for stage in explained["stages"] if stage["stage"] == "upstream")
    if upstream["verdict"] == "original":
        return {f"{destination} {port}"}
    return {f"{c['address']} {c['port'] or port}" for c in upstream["candidates"]} or {"reset"}


@pytest.fixture
def peers(lab):
    """A server on every address and port that says which it is."""
    made = [servers.Peer(lab.server, address, port, lambda c, _a, text=f"{address} {port}": (c.sendall(text.encode()), c.close()))
            for family in (4, 6) for address in DESTINATIONS[family] + [DESTINATIONS[family][0][:-1] + "5"] for port in PORTS]
    yield made
    for peer in made:
        peer.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_explained_as_it_is(lab, gateway, peers, seed):
    """Random listeners, random packets: the server that answers, or the reset, is one that was foretold; the listener
    counts as many connections as were explained to be its own."""
    rng = random.Random(seed)
    assert configure(gateway, rng) >= 5
    counts, verdicts = {}, set()
    for _ in range(CASES):
        family, (host, interface) = rng.choice([4, 6]), rng.choice([(lab.client, "in0"), (lab.client2, "in1")])
        destination, port = rng.choice(DESTINATIONS[family]), rng.choice(PORTS)
        packet = {"protocol": "tcp", "source": host.v4 if family == 4 else host.v6, "source_port": 40000,
                  "destination": destination, "destination_port": port, "interface": interface}
        explained = gateway.must("POST", "explain", packet)
        verdicts.add(explained["verdict"])
        assert meet(host, destination, port) in expected(explained, destination, port), (packet, explained)
        if explained["verdict"] == "relay":
            counts[explained["listener"]] = counts.get(explained["listener"], 0) + 1
    assert "relay" in verdicts and len(verdicts) > 1
    seen = {i["name"]: i["flows_opened"] + i["refused"] for i in gateway.must("GET", "stats/listeners")["items"]}
    assert {name: n for name, n in seen.items() if n} == counts


def test_the_gateway_itself(lab, gateway):
    """Its own address is exempt unless a listener names it in full."""
    packet = {"protocol": "udp", "source": lab.client.v4, "destination": "10.71.1.1", "destination_port": 53}
    gateway.listener("dns", protocol="udp", ports=["53"])
    assert gateway.must("POST", "explain", packet)["verdict"] == "local"
    assert gateway.must("POST", "explain", {**packet, "destination": "10.71.2.2"})["verdict"] == "relay"
    gateway.listener("dns", protocol="udp", ports=["53"], destinations=["10.71.1.1"])
    assert gateway.must("POST", "explain", packet)["listener"] == "dns"


def test_what_stands_in_the_way(lab, gateway):
    """Missing routes, and a machine that does not forward, are told."""
    gateway.listener("web", ports=["80"])
    packet = {"protocol": "tcp", "source": lab.client.v4, "destination": "10.71.2.2", "destination_port": 80}
    with no_route(lab, gateway):
        routing = next(s for s in gateway.must("POST", "explain", packet)["stages"] if s["stage"] == "routing")
        assert routing["verdict"] == "broken"
    with lab.gateway.sysctls(net__ipv4__ip_forward=0):
        assert gateway.must("POST", "explain", {**packet, "destination_port": 81})["verdict"] == "drop"


@pytest.mark.parametrize("change, pointer", [
    ({"protocol": "sctp"}, "/protocol"), ({"source": "x"}, "/source"), ({"destination": None}, "/destination"),
    ({"destination_port": 0}, "/destination_port"), ({"source_port": 70000}, "/source_port"), ({"more": 1}, ""),
    ({"source": "fd71::1"}, "/source"), ({"interface": "a" * 16}, "/interface")])
def test_faults(gateway, change, pointer):
    """What is no packet is refused with a pointer."""
    packet = {"protocol": "tcp", "source": "10.0.0.1", "destination": "10.0.0.2", "destination_port": 80, **change}
    answer = gateway.api("POST", "explain", packet)
    assert answer.status == 422
    assert pointer in [fault["pointer"] for fault in answer.json["errors"]]
