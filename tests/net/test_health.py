"""Health checks: what makes a target up or down, what outlives whom, and what happens to its flows."""

import os
import threading
import time

import pytest

from lab.process import wait_for
from lab.servers import Peer
from net.control import Events

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVERS = {"v4": ("10.71.2.3", "10.71.2.4"), "v6": ("fd71:2::3", "fd71:2::4")}
VIP = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
QUICK = {"interval_ms": 300, "timeout_ms": 300}


def target_path(upstream, address, port):
    host = f"[{address}]" if ":" in address else address
    return f"upstreams/{upstream}/targets/{host}:{port}"


def health(gateway, upstream, address, port):
    return gateway.must("GET", target_path(upstream, address, port))["health"]


def wait_state(gateway, upstream, address, port, state, seconds=15):
    """Waits until the target's health is this; returns it."""
    def there():
        found = health(gateway, upstream, address, port)
        return found if found["state"] == state else None
    return wait_for(there, seconds, f"{address}:{port} {state}: {health(gateway, upstream, address, port)}")


class Answers:
    """An HTTP server that gives the statuses of a list one after the other, then `rest`; 0: no answer at all."""

    def __init__(self, host, address, port, statuses=(), rest=200):
        self.statuses, self.rest, self.asked = list(statuses), rest, []
        self.lock = threading.Lock()
        self.peer = Peer(host, address, port, self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()

    def _handle(self, connection, _address):
        head = b""
        while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
            head += more
        with self.lock:
            self.asked.append(head)
            status = self.statuses.pop(0) if self.statuses else self.rest
        if status == 0:
            while connection.recv(4096):
                pass
        connection.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nok".encode())
        connection.close()


class Lines:
    """A server that answers each line with its own name, and can be told to close what it has."""

    def __init__(self, host, address, port, name):
        self.name, self.open = name.encode(), []
        self.peer = Peer(host, address, port, self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()
        for connection in self.open:
            connection.close()

    def _handle(self, connection, _address):
        self.open.append(connection)
        while connection.recv(100):
            connection.sendall(self.name)
        connection.close()


def ask(connection):
    """Which server has the connection; None if it is gone."""
    try:
        connection.sendall(b"?")
        return connection.recv(100).decode() or None
    except ConnectionError:
        return None


@pytest.mark.parametrize("family", FAMILIES)
def test_rise_and_fall(lab, gateway, family):
    """Exactly `fall` bad answers in a row make a target down, exactly `rise` good ones up again."""
    address = SERVERS[family][0]
    script = [200, 503, 503, 200, 503, 503, 503, 200, 503, 200, 200]
    with Answers(lab.server, address, 8100, script) as server, Events(gateway, "health,upstream") as events:
        gateway.upstream("pool", [(address, 8100)],
                         health={"type": "http", "http_path": "/alive?x=1", "rise": 2, "fall": 3, **QUICK})
        wait_for(lambda: len(server.asked) > len(script), 30, "all answers")
        wait_state(gateway, "pool", address, 8100, "up")
        seen = [(event["before"], event["state"]) for event in events.of("health")]
        assert seen == [("unknown", "up"), ("up", "down"), ("down", "up")], events.seen
        down = events.of("health")[1]
        assert (down["cause"], down["detail"]) == ("status", 503)
        assert "3 checks in a row failed" in down["reason"] and "503" in down["reason"]
        assert [event["state"] for event in events.of("upstream")] == ["down", "up"]
    head = server.asked[0].decode()
    host = f"[{address}]" if family == "v6" else address
    assert head.startswith("GET /alive?x=1 HTTP/1.1\r\n") and f"\r\nHost: {host}:8100\r\n" in head
    gateways = {"v4": "10.71.2.1", "v6": "fd71:2::1"}
    assert {peer[0] for peer in server.peer.seen} == {gateways[family]}, "checks come from the gateway's own address"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_wanted_of_an_answer(lab, nginx, gateway, family):
    """Status, a range of them, text in the body, HEAD, another port: against nginx."""
    address = SERVERS[family][0]
    cases = {
        "plain": ({}, "up", "ok"),
        "exact": ({"http_path": "/whoami", "http_status": 200, "http_body": "sees"}, "up", "ok"),
        "text": ({"http_path": "/whoami", "http_body": "no such text"}, "down", "body"),
        "large": ({"http_path": "/64k", "http_body": "56789abcde"}, "up", "ok"),
        "status": ({"http_path": "/whoami", "http_status": 204}, "down", "status"),
        "missing": ({"http_path": "/none"}, "down", "status"),
        "range": ({"http_path": "/none", "http_status": 400, "http_status_max": 499}, "up", "ok"),
        "head": ({"http_path": "/small", "http_method": "HEAD", "http_host": "lab.test"}, "up", "ok"),
        "port": ({"http_path": "/small", "port": 8001}, "up", "ok"),
        "tcp": ({"type": "tcp"}, "up", "ok"),
        "refused": ({"type": "tcp", "port": 9}, "down", "connect"),
        "binary": ({"port": 7999}, "down", "protocol"),
    }
    with Peer(lab.server, address, 7999, lambda connection, _: connection.sendall(b"\x15\x03\x01\x00\x02\x02\x28")):
        for name, (fields, _, _) in cases.items():
            port = 0 if name == "port" else 8000
            gateway.upstream(name, [(address, port)],
                             health={"type": "http", "http_path": "/small", "rise": 1, "fall": 1, **QUICK, **fields})
        for name, (_, state, cause) in cases.items():
            found = wait_state(gateway, name, address, 0 if name == "port" else 8000, state)
            assert found["cause"] == cause, (name, found)
            assert found["last_check"] and found["since"], found
            assert (found["latency_us"] is not None) == (state == "up"), (name, found)
    status = gateway.status()["upstreams"]
    assert status["up"] == 7 and {entry["name"] for entry in status["not_up"]} >= {"text", "status", "refused"}
    metrics = gateway.api("GET", "/metrics").text
    host = f"[{address}]" if family == "v6" else address
    assert f'gateway_target_healthy{{upstream="exact",target="{host}:8000"}} 1' in metrics
    assert f'gateway_target_healthy{{upstream="text",target="{host}:8000"}} 0' in metrics
    assert 'gateway_upstream_down{upstream="text"} 1' in metrics


def test_what_is_not_checked(lab, gateway):
    """Without a check, or without a port, nothing is known of a target; a check that is taken away leaves nothing."""
    gateway.upstream("none", [("10.71.2.3", 8000)])
    gateway.upstream("ports", [("10.71.2.3", 0)], health={"type": "tcp", **QUICK})
    gateway.upstream("was", [("10.71.2.3", 9)], health={"type": "tcp", "fall": 1, **QUICK})
    wait_state(gateway, "was", "10.71.2.3", 9, "down")
    gateway.upstream("was", [("10.71.2.3", 9)])
    assert wait_state(gateway, "was", "10.71.2.3", 9, "unknown")["cause"] == "none"
    assert health(gateway, "none", "10.71.2.3", 8000)["state"] == "unknown"
    found = health(gateway, "ports", "10.71.2.3", 0)
    assert found["state"] == "unknown" and "no port" in found["reason"]
    assert gateway.status()["relay"]["health"]["targets"] == 0


def test_state_outlives_relay_and_daemon(lab, gateway):
    """kill -9 of the relay, then of the daemon: what was found stays, and since when; checks go on."""
    with Answers(lab.server, "10.71.2.3", 8100, rest=500) as server:
        gateway.upstream("pool", [("10.71.2.3", 8100)], health={"type": "http", "fall": 2, **QUICK})
        before = wait_state(gateway, "pool", "10.71.2.3", 8100, "down")
        gateway.wait_relay(gateway.kill_relay())
        after = health(gateway, "pool", "10.71.2.3", 8100)
        assert after["state"] == "down" and after["since"] == before["since"]
        gateway.kill()
        gateway.start()
        with Events(gateway, "health") as events:
            after = health(gateway, "pool", "10.71.2.3", 8100)
            assert after["state"] == "down" and after["since"] == before["since"]
            asked = len(server.asked)
            wait_for(lambda: len(server.asked) > asked + 1, 10, "more checks")
            assert events.of("health") == [], "what is as it was is no news"
            server.rest = 200
            events.wait("health", lambda event: event["state"] == "up", 15)


def seconds(text):
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_checks_are_not_accepted(lab, gateway, family):
    """The program behind a port that is checked has nothing to accept, however often the check's socket is used."""
    address = SERVERS[family][0]
    with Peer(lab.server, address, 8100, lambda connection, _: connection.close()) as server:
        gateway.upstream("pool", [(address, 8100)], health={"type": "tcp", "interval_ms": 100, "timeout_ms": 100})
        wait_for(lambda: health(gateway, "pool", address, 8100)["checks"] >= 20, 20, "twenty checks")
        found = health(gateway, "pool", address, 8100)
        assert (found["state"], found["failures"], server.seen) == ("up", 0, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_known_as_the_relays(lab, gateway, family):
    """What comes back for a check takes the short way through the ruleset, as what comes for a flow does."""
    def came():
        rows = gateway.must("GET", "stats/ledger?interface=out0")["interfaces"]
        return rows[0]["stack"]["outcomes"]["relay_tcp"]["packets"] if rows else 0

    address = SERVERS[family][0]
    with Peer(lab.server, address, 8100, lambda connection, _: connection.close()):
        before = came()
        gateway.upstream("pool", [(address, 8100)], health={"type": "tcp", "interval_ms": 100, "timeout_ms": 100})
        wait_for(lambda: health(gateway, "pool", address, 8100)["checks"] >= 10, 20, "ten checks")
        assert came() - before >= 10


def test_silent_targets_delay_nobody(lab, gateway):
    """Targets that accept and never answer time out, each; beside them others are checked as often as they are to."""
    with Answers(lab.server, "10.71.2.3", 8100, rest=0), Answers(lab.server, "10.71.2.4", 8100) as good:
        gateway.upstream("silent", [("10.71.2.3", 8100)] + [(f"10.71.2.{200 + i}", 8100) for i in range(20)],
                         health={"type": "http", "fall": 1, "interval_ms": 1000, "timeout_ms": 1000})
        gateway.upstream("good", [("10.71.2.4", 8100)], health={"type": "http", **QUICK})
        found = wait_state(gateway, "silent", "10.71.2.3", 8100, "down")
        assert found["cause"] == "timeout" and "1000 ms" in found["reason"]
        wait_state(gateway, "silent", "10.71.2.210", 8100, "down")
        asked = len(good.asked)
        silent = gateway.must("GET", target_path("silent", "10.71.2.3", 8100))["health"]["checks"]
        wait_for(lambda: len(good.asked) >= asked + 10, 20, "ten checks of the good one")
        now = gateway.must("GET", target_path("silent", "10.71.2.3", 8100))["health"]["checks"]
        assert now - silent <= 6, "ten of 300 ms are hardly more than three of a second"
        assert health(gateway, "good", "10.71.2.4", 8100)["state"] == "up"


def open_flows(lab, family, n, port=80):
    """Connections to the listener's address with the name of the server that has each."""
    made = [lab.client.connect(VIP[family], port) for _ in range(n)]
    return [(connection, ask(connection)) for connection in made]


def on(flows, name):
    """How many of them this server has; each of the relay's threads has a rotation of its own."""
    return sum(one == name for _, one in flows)


@pytest.fixture
def pair(lab, request):
    """Two servers of lines in a family, "a" and "b", behind an upstream that a test makes."""
    family = getattr(request, "param", "v4")
    a, b = SERVERS[family]
    with Lines(lab.server, a, 8200, "a") as first, Lines(lab.server, b, 8200, "b") as second:
        yield family, (a, first), (b, second)


@pytest.mark.parametrize("pair", FAMILIES, indirect=True)
@pytest.mark.parametrize("on_down", ["keep", "reset"])
def test_flows_of_a_target_that_fails(lab, gateway, pair, on_down):
    """With on_down reset the flows of a target that its checks find down end in a reset, no others; with keep none."""
    family, (a, _), (b, _) = pair
    with Answers(lab.server, a, 8100) as checked, Answers(lab.server, b, 8100):
        gateway.upstream("pool", [(a, 8200), (b, 8200)], on_down=on_down,
                         health={"type": "http", "port": 8100, "fall": 2, **QUICK})
        gateway.listener("web", destinations=[VIP[family]], ports=["80"], upstream="pool")
        wait_state(gateway, "pool", a, 8200, "up")
        flows = open_flows(lab, family, 12)
        assert {name for _, name in flows} == {"a", "b"}
        checked.rest = 500
        wait_state(gateway, "pool", a, 8200, "down")
        expected = {"a": None, "b": "b"} if on_down == "reset" else {"a": "a", "b": "b"}
        if on_down == "reset":
            wait_for(lambda: gateway.must("GET", target_path("pool", a, 8200))["flows_active"] == 0, 10, "resets")
        for connection, name in flows:
            assert ask(connection) == expected[name]
            connection.close()
        resets = gateway.counters()["reset_on_down"]
        assert resets == (sum(name == "a" for _, name in flows) if on_down == "reset" else 0)


def test_flows_are_reset_after_the_relays_death(lab, gateway, pair):
    """A relay that adopts flows of a target that is set down meanwhile resets them: the order is not forgotten."""
    family, (a, _), (b, _) = pair
    gateway.upstream("pool", [(a, 8200), (b, 8200)], on_down="reset")
    gateway.listener("web", destinations=[VIP[family]], ports=["80"], upstream="pool")
    flows = open_flows(lab, family, 6)
    wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 6, 15, "kept flows")
    pid = gateway.break_relay()
    assert gateway.must("PATCH", target_path("pool", a, 8200), {"admin_state": "down"})["admin_state"] == "down"
    gateway.mend_relay()
    gateway.wait_relay(pid, 20)
    wait_for(lambda: gateway.counters()["reset_on_down"] == on(flows, "a"), 10, "resets")
    assert [ask(connection) for connection, name in flows] == [name if name == "b" else None for _, name in flows]


@pytest.mark.parametrize("pair", FAMILIES, indirect=True)
def test_drain(lab, gateway, pair):
    """Under load: no new flow goes to a target that drains, none is lost, and what is left is told until it is none."""
    family, (a, _), (b, _) = pair
    gateway.upstream("pool", [(a, 8200), (b, 8200)])
    gateway.listener("web", destinations=[VIP[family]], ports=["80"], upstream="pool")
    flows = open_flows(lab, family, 10)
    end, lost, short = threading.Event(), [], []

    def load():
        while not end.is_set():
            try:
                with lab.client.connect(VIP[family], 80) as connection:
                    short.append(ask(connection))
            except OSError as error:
                lost.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_for(lambda: {"a", "b"} <= set(short), 10, "load on both")
        drained = gateway.must("PATCH", target_path("pool", a, 8200), {"admin_state": "drain"})
        assert drained["admin_state"] == "drain" and drained["configured"]["admin_state"] == "up"
        assert drained["usable"] is False and drained["drain"]["flows_left"] >= on(flows, "a")
        before = len(short) + 1  # one may be on its way
        wait_for(lambda: len(short) > before + 30, 20, "more load")
        assert set(short[before:]) == {"b"}, short[before:]
    finally:
        end.set()
        thread.join()
    assert not lost and None not in short
    assert [ask(connection) for connection, _ in flows] == [name for _, name in flows]
    assert gateway.must("GET", target_path("pool", a, 8200))["drain"]["flows_left"] == on(flows, "a")
    for connection, _ in flows:
        connection.close()
    wait_for(lambda: gateway.must("GET", target_path("pool", a, 8200))["drain"]["flows_left"] == 0, 10, "the end")
    gateway.must("PATCH", target_path("pool", a, 8200), {"admin_state": None})
    assert {name for _, name in open_flows(lab, family, 4)} == {"a", "b"}


def test_drain_deadline(lab, gateway, pair):
    """At the deadline what is left ends gradually, at the rate that was given, and nothing of the other target."""
    family, (a, _), (b, _) = pair
    gateway.upstream("pool", [(a, 8200), (b, 8200)])
    gateway.listener("web", destinations=[VIP[family]], ports=["80"], upstream="pool")
    flows = open_flows(lab, family, 20)
    path = target_path("pool", a, 8200)
    answer = gateway.must("PATCH", path, {"admin_state": "drain", "drain_deadline_s": 1, "drain_reset_per_s": 5})
    assert answer["drain"]["deadline"] and answer["drain"]["reset_per_s"] == 5
    assert answer["drain"]["flows_left"] == on(flows, "a")
    left = [on(flows, "a")]

    def watch():
        left.append(gateway.must("GET", path)["drain"]["flows_left"])
        return left[-1] == 0

    wait_for(watch, 20, "all flows to end", interval=0.02)
    assert left == sorted(left, reverse=True) and len(set(left)) >= 5, f"gradually: {left}"
    for connection, name in flows:
        assert ask(connection) == (None if name == "a" else "b")
        connection.close()
    assert gateway.counters()["reset_drained"] == on(flows, "a")


def test_operators_word_outlives_all(lab, gateway, pair):
    """What an operator has said holds after the relay's death, the daemon's, and both; until it is configured anew."""
    family, (a, _), (b, _) = pair
    gateway.upstream("pool", [(a, 8200), (b, 8200)])
    gateway.listener("web", destinations=[VIP[family]], ports=["80"], upstream="pool")
    path = target_path("pool", a, 8200)
    revision = gateway.status()["revision"]
    gateway.must("PATCH", path, {"admin_state": "drain", "weight": 7})

    def holds():
        found = gateway.must("GET", path)
        assert (found["admin_state"], found["weight"]) == ("drain", 7), found
        flows = open_flows(lab, family, 4)
        assert {name for _, name in flows} == {"b"}
        for connection, _ in flows:
            connection.close()

    holds()
    gateway.wait_relay(gateway.kill_relay())
    holds()
    gateway.kill()
    gateway.start()
    holds()
    relay = gateway.relay_pid()
    gateway.kill()
    os.kill(relay, 9)
    gateway.start()
    holds()
    assert gateway.status()["revision"] == revision
    gateway.upstream("pool", [{"address": a, "port": 8200, "weight": 3}, (b, 8200)])
    found = gateway.must("GET", path)
    assert (found["admin_state"], found["weight"]) == ("drain", 3), "only what was configured anew"
    gateway.upstream("pool", [{"address": a, "port": 8200, "weight": 3, "admin_state": "down"}, (b, 8200)])
    found = gateway.must("GET", path)
    assert found["admin_state"] == "down" and found["override"] is None
