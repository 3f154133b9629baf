"""POST /explain against reality: random packets are explained, then sent, and must meet what was said."""

import random
import select
import socket
import time

import pytest

from lab import datagrams, servers
from lab.process import wait_for
from net.test_doctor import told_only, no_route  # noqa: F401 (told_only is what no_route needs)
from net.test_limits import knock
from net.test_prefilter import counts, prefilter, status

ROUNDS, CASES = 5, 100  # of each seed; between rounds others are banned
PORTS = list(range(7800, 7806))
DESTINATIONS = {4: ["10.71.2.2", "10.71.2.3", "10.71.2.4"], 6: ["fd71:2::2", "fd71:2::3", "fd71:2::4"]}
BANS = [[], ["10.71.5.2"], ["fd71:5::/64"], ["10.71.1.0/24", "fd71:5::2"], ["10.71.5.0/30", "fd71:1::2"]]
QUIET_S = 0.3  # when everybody else has been answered, those that are to be silent get so much more


def listener_of(rng, number):
    """A random listener; some that tie with another are refused, which is fine."""
    family = rng.choice([4, 6])
    fields = {"ports": rng.choice([[str(rng.choice(PORTS))], [f"{PORTS[0]}-{PORTS[rng.randrange(1, 5)]}"], []]),
              "destinations": rng.choice([[], [rng.choice(DESTINATIONS[family])],
                                          ["10.71.2.0/24" if family == 4 else "fd71:2::/64"]]),
              "interfaces": rng.choice([[], [], ["in0"], ["in1"]]), "priority": number,
              "protocol": rng.choice(["tcp", "udp"]), "rate_limits": rng.choice([[], [], ["wide"]]),
              "action": rng.choice(["relay", "relay", "relay", "reject", "bypass", "drop"])}
    if fields["action"] == "relay" and rng.random() < 0.6:
        fields["upstream"] = rng.choice(["one", "two", "backup"])
    if not fields["ports"] and not fields["destinations"]:
        fields["ports"] = [str(rng.choice(PORTS))]  # nothing that takes the test's own traffic
    return fields


def configure(gateway, rng):
    """Upstreams, a limit that nobody reaches, and random listeners."""
    gateway.must("PUT", "rate-limits/wide", {"name": "wide", "metric": "new_connections", "rate": 100000})
    gateway.upstream("one", [("10.71.2.5", 7800), ("fd71:2::5", 7801)])
    gateway.upstream("two", [("10.71.2.5", 0), ("10.71.2.4", 7803), {"address": "fd71:2::5", "port": 0, "weight": 3}])
    gateway.upstream("backup", [{"address": "10.71.2.3", "port": 7805, "backup": True},
                                {"address": "10.71.2.4", "port": 7805, "admin_state": "down"}])
    return sum(gateway.api("PUT", f"listeners/l{n}", {"name": f"l{n}", **listener_of(rng, n)}).status < 300
               for n in range(20))


class Case:
    """One packet: explained, then sent. `met`: "ADDRESS PORT" of the server that answered, "reset", or "silent"."""

    def __init__(self, lab, gateway, rng):
        family, (self.host, interface) = rng.choice([4, 6]), rng.choice([(lab.client, "in0"), (lab.client2, "in1")])
        self.family = socket.AF_INET if family == 4 else socket.AF_INET6
        self.packet = {"protocol": rng.choice(["tcp", "udp"]), "source": self.host.v4 if family == 4 else self.host.v6,
                       "source_port": 40000, "destination": rng.choice(DESTINATIONS[family]),
                       "destination_port": rng.choice(PORTS), "interface": interface}
        self.explained = gateway.must("POST", "explain", self.packet)
        self.met, self.socket = "silent", None

    @property
    def expected(self):
        """All that it may meet by the explanation."""
        original = f"{self.packet['destination']} {self.packet['destination_port']}"
        verdict = self.explained["verdict"]
        if verdict in ("forward", "bypass", "direct"):
            return {original}
        if verdict in ("drop", "ban"):
            return {"silent"}
        if verdict != "relay":
            return {"reset"}
        upstream = next(stage for stage in self.explained["stages"] if stage["stage"] == "upstream")
        if upstream["verdict"] == "original":
            return {original}
        found = {f"{c['address']} {c['port'] or self.packet['destination_port']}" for c in upstream["candidates"]}
        # Without a target a stream is reset, and a datagram has nowhere to go.
        return found or {"reset" if self.packet["protocol"] == "tcp" else "silent"}

    def send(self):
        """Begins."""
        kind = socket.SOCK_STREAM if self.packet["protocol"] == "tcp" else socket.SOCK_DGRAM
        self.socket = self.host.socket(self.family, kind, timeout=0)
        self.socket.connect_ex((self.packet["destination"], self.packet["destination_port"]))
        if kind == socket.SOCK_DGRAM:
            self.socket.send(b"?")

    def receive(self):
        """Takes what came. Whether that is all."""
        try:
            self.met = self.socket.recv(100).decode() or "reset"
        except BlockingIOError:
            return False
        except (ConnectionRefusedError, ConnectionResetError):
            self.met = "reset"
        return True


def send_all(cases):
    """Sends them at once; each has met something afterwards, or is silent."""
    waits = select.poll()
    by_number = {}
    for case in cases:
        case.send()
        by_number[case.socket.fileno()] = case
        waits.register(case.socket, select.POLLIN | select.POLLERR | select.POLLHUP)
    last, awaited = time.monotonic(), {n for n, case in by_number.items() if case.expected != {"silent"}}
    while by_number and time.monotonic() - last < (10 if awaited else QUIET_S):
        for number, _ in waits.poll(50):
            if not by_number[number].receive():
                continue
            waits.unregister(number)
            del by_number[number]
            awaited.discard(number)
            last = time.monotonic()
    for case in cases:
        case.socket.close()


@pytest.fixture(scope="module")
def peers(lab):
    """A server of TCP and one of UDP on every address and port, which say which they are."""
    made = []
    for family in (4, 6):
        for address in DESTINATIONS[family] + [DESTINATIONS[family][0][:-1] + "5"]:
            for port in PORTS:
                text = f"{address} {port}".encode()
                made.append(servers.Peer(lab.server, address, port, lambda c, _a, text=text: (c.sendall(text), c.close())))
                made.append(datagrams.DatagramPeer(lab.server, address, port, lambda _d, _a, text=text: text))
    yield made
    for peer in made:
        peer.__exit__()


@pytest.mark.parametrize("seed", [1, 2])
def test_explained_as_it_is(lab, gateway, peers, seed, figure):
    """Random listeners, bans and packets: what each packet meets was foretold; a listener counts as many flows as were
    explained to be its own."""
    rng = random.Random(seed)
    assert configure(gateway, rng) >= 5
    counts, verdicts = {}, {}
    for bans in rng.sample(BANS, ROUNDS):
        for prefix in bans:
            gateway.must("POST", "bans", {"address": prefix, "ban_s": 600})
        cases = [Case(lab, gateway, rng) for _ in range(CASES)]
        send_all(cases)
        wrong = [(case.packet, case.met, case.explained) for case in cases if case.met not in case.expected]
        assert not wrong, (len(wrong), wrong[0])
        for case in cases:
            verdict, name = case.explained["verdict"], case.explained["listener"]
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            if verdict == "relay":
                counts[name] = counts.get(name, 0) + 1
        for prefix in bans:
            gateway.must("DELETE", f"bans?address={prefix}")
    figure("verdicts", verdicts)
    assert {"relay", "ban", "reject", "bypass"} <= set(verdicts)
    seen = {i["name"]: i["flows_opened"] + i["refused"] for i in gateway.must("GET", "stats/listeners")["items"]}
    assert {name: n for name, n in seen.items() if n} == counts


def stages_of(gateway, **packet):
    """The explanation's stages by name, and its verdict."""
    told = gateway.must("POST", "explain", {"protocol": "tcp", "destination": "10.71.2.2", "source": "10.71.1.2",
                                            "destination_port": 7800, "interface": "in0", **packet})
    return {stage["stage"]: stage for stage in told["stages"]}, told["verdict"]


@pytest.mark.parametrize("source, destination, prefix, length", [
    ("10.71.1.2", "10.71.2.2", "10.71.1.0/24", "4_24"), ("fd71:1::2", "fd71:2::2", "fd71:1::/64", "6_64")])
def test_what_the_kernel_holds(lab, gateway, source, destination, prefix, length):
    """The rules by the handles that nft shows, the ban's and the limit's element with their times."""
    way = {"source": source, "destination": destination}
    gateway.must("PUT", "rate-limits/l", {"name": "l", "metric": "new_connections", "key": "source", "rate": 1, "per": "minute", "burst": 5})
    gateway.listener("web", ports=["7800"], rate_limits=["l"])
    before, verdict = stages_of(gateway, **way)
    listing = lab.gateway.run("nft", "-a", "list", "table", "inet", "gatewayd").stdout
    assert verdict == "relay" and f"{before['nft']['rule']['text']} # handle {before['nft']['rule']['handle']}" in listing
    assert before["nft"]["element"].startswith("7800") and before["limits"]["limits"] == [{"name": "l", "known": False}]
    knock(lab.client, destination, 7800)
    known = stages_of(gateway, **way)[0]["limits"]["limits"][0]
    assert known["known"] and known["element"] == source and 0 < known["expires_in_s"] <= 3600
    gateway.must("POST", "bans", {"address": prefix, "ban_s": 100, "reason": "too loud"})
    after, verdict = stages_of(gateway, **way)
    ban = after["bans"]
    assert (verdict, ban["verdict"], ban["set"], ban["element"]) == ("ban", "ban", f"ban{length}", prefix)
    assert 90 <= ban["expires_in_s"] <= 100 and "too loud" in ban["why"]
    listing = lab.gateway.run("nft", "-a", "list", "chain", "inet", "gatewayd", "bans").stdout
    assert f"{ban['rule']['text']} # handle {ban['rule']['handle']}" in listing
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "entries": [prefix]})
    gateway.must("PATCH", "settings", {"ban_exempt": "friends"})
    assert stages_of(gateway, **way)[1] == "relay"


@pytest.mark.parametrize("family", [4, 6])
def test_the_prefilter_is_run(make_gateway, family):
    """The program's own verdict, by a copy of it: nothing is counted, nobody's rate is used up."""
    gateway = make_gateway(bpf=True)
    source, destination, other = (("10.71.1.2", "10.71.2.2", "10.71.1.3"), ("fd71:1::2", "fd71:2::2", "fd71:1::3"))[family == 6]
    way = {"source": source, "destination": destination}
    gateway.listener("web", ports=["7800"])
    assert "prefilter" not in stages_of(gateway, **way)[0]
    prefilter(gateway, deny=[other], drop_bogons=True, only_listener_ports=True,
              source_pps={"rate": 1, "burst": 1, "action": "ban", "ban_s": 60})
    before = counts(gateway)
    for _ in range(5):
        assert stages_of(gateway, **way)[0]["prefilter"]["reason"] == "passed"
    for change, reason in (({"source": other}, "denied"), ({"destination_port": 7801}, "port"), ({"source": destination}, "bogon")):
        stages, verdict = stages_of(gateway, **{**way, **change})
        assert (verdict, stages["prefilter"]["verdict"], stages["prefilter"]["reason"]) == ("prefilter", "drop", reason)
        assert list(stages) == ["prefilter"]
    assert {k: v for k, v in counts(gateway).items() if k not in ("passed", "port")} == {
        k: v for k, v in before.items() if k not in ("passed", "port")}
    assert status(gateway)["bans"] == 0
    assert stages_of(gateway, interface="in1", **way)[1] == "relay"
    gateway.must("POST", "bans", {"address": source, "placement": "xdp"})
    assert stages_of(gateway, **way)[0]["prefilter"]["reason"] == "banned"
    gateway.must("DELETE", f"bans/{source}")
    told = gateway.must("POST", "explain", {"protocol": "tcp", "destination_port": 7800, **way})
    assert told["stages"][0]["verdict"] == "unknown" and told["verdict"] == "relay"


def test_the_gateway_itself(lab, gateway):
    """Its own address is exempt unless a listener names it in full."""
    packet = {"protocol": "udp", "source": lab.client.v4, "destination": "10.71.1.1", "destination_port": 53}
    gateway.listener("dns", protocol="udp", ports=["53"])
    assert gateway.must("POST", "explain", packet)["verdict"] == "local"
    assert gateway.must("POST", "explain", {**packet, "destination": "10.71.2.2"})["verdict"] == "relay"
    gateway.listener("dns", protocol="udp", ports=["53"], destinations=["10.71.1.1"])
    assert gateway.must("POST", "explain", packet)["listener"] == "dns"


def test_what_is_nobodys(gateway):
    """An interface that is not there is told, for a listener may match by its name all the same; a broadcast is not forwarded."""
    packet = {"protocol": "tcp", "source": "10.71.1.2", "destination": "10.71.2.2", "destination_port": 80, "interface": "nope0"}
    gateway.listener("web", ports=["80"], interfaces=["nope0"])
    found = gateway.must("POST", "explain", packet)
    assert found["listener"] == "web" and (found["stages"][0]["stage"], found["stages"][0]["verdict"]) == ("interface", "none")
    assert "nope0" in found["stages"][0]["why"] and "port 80" in found["stages"][1]["why"]
    found = gateway.must("POST", "explain", {**packet, "interface": "in0", "destination": "255.255.255.255"})
    assert found["verdict"] == "local" and found["stages"][0]["stage"] != "interface"


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


def arrives(lab, listening, said):
    """Where a connection that says this arrives: the name of the server that accepts it, or "reset"."""
    with lab.client.connect("10.71.2.2", 7810) as connection:
        connection.sendall(said)
        ready, _, _ = select.select([connection, *listening.values()], [], [], 10)
        for name, one in listening.items():
            if one in ready:
                one.accept()[0].close()
                return name
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        return "reset"


def test_first_bytes_and_health(lab, gateway):
    """The route that the first bytes take, and targets that are out of rotation with why; then real connections."""
    listening = {name: lab.server.listen(f"10.71.2.{last}", 7811) for name, last in (("one", 3), ("two", 4), ("backup", 5))}
    gateway.upstream("one", [("10.71.2.3", 7811), {"address": "10.71.2.4", "port": 7811, "admin_state": "drain"}, ("fd71:2::3", 7811)])
    gateway.upstream("two", [("10.71.2.4", 7811), ("10.71.2.4", 9), {"address": "10.71.2.5", "port": 7811, "backup": True}],
                     health={"type": "tcp", "interval_ms": 100, "timeout_ms": 100, "fall": 1, "rise": 1})
    gateway.listener("routed", ports=["7810"], upstream="two", routes=[
        {"http_host": ["a.example"], "http_path_prefix": ["/in"], "upstream": "one"}, {"http_host": ["*.b.example"], "action": "reject"},
        {"sni": ["t.example"], "alpn": ["h2"], "upstream": "one"}])

    def explain(**said):
        answer = gateway.must("POST", "explain", {"protocol": "tcp", "source": lab.client.v4, "destination": "10.71.2.2",
                                                  "destination_port": 7810, **said})
        return {stage["stage"]: stage for stage in answer["stages"]}

    assert explain()["routes"]["verdict"] == "first_bytes"
    wait_for(lambda: explain()["upstream"]["left_out"][0]["port"] == 9, 10, "the dead target left out")
    for said, route, where in (({"http_host": "A.example", "http_path": "/inside", "http_method": "GET"}, 0, "one"),
                               ({"http_host": "a.example", "http_path": "/out"}, None, "two"),
                               ({"http_host": "x.b.example"}, 1, "reset"), ({"http_host": "b.example"}, None, "two")):
        stages = explain(**said)
        assert stages["routes"].get("route") == route and stages["routes"]["verdict"] == (
            "default" if route is None else "reject" if where == "reset" else "relay")
        head = f"GET {said.get('http_path', '/')} HTTP/1.1\r\nHost: {said['http_host']}\r\n\r\n"
        assert arrives(lab, listening, head.encode()) == where, said
        if where == "reset":
            assert "upstream" not in stages
            continue
        assert [c["address"] for c in stages["upstream"]["candidates"]] == [{"one": "10.71.2.3", "two": "10.71.2.4"}[where]]
        why = {(t["address"], t["port"]): t["state"] for t in stages["upstream"]["left_out"]}
        if where == "one":
            assert why["10.71.2.4", 7811] == "it is set to drain" and "family" in why["fd71:2::3", 7811]
        else:
            assert "could not connect" in why["10.71.2.4", 9] and "backup" in why["10.71.2.5", 7811]
    assert explain(sni="t.example", alpn="h2")["routes"]["route"] == 2
    assert explain(sni="t.example")["routes"]["verdict"] == explain(sni="u.example", alpn="h2")["routes"]["verdict"] == "default"
    listening["two"].close()
    wait_for(lambda: explain()["upstream"]["candidates"][0]["address"] == "10.71.2.5", 10, "the backup")
    assert arrives(lab, {"backup": listening["backup"]}, b"GET / HTTP/1.1\r\n\r\n") == "backup"
    for one in ("one", "backup"):
        listening[one].close()
