"""From an answer of the API to the kernel: at once, atomically, without traces, and found again after a restart."""

import json
import time

import pytest

from lab import kernel, servers
from lab.gateway import end_process
from lab.process import alive, amount, wait_for
from net.control import database, release_or_default

pytestmark = pytest.mark.shared_gateway


def target_of(lab, address="10.71.2.2", port=8000):
    """Which server answers a connection to an address."""
    with lab.client.connect(address, port, timeout=5) as connection:
        connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        return connection.recv(4096).decode().split("\r\n\r\n")[1].split(":8000 ")[0]


@pytest.mark.parametrize("address, own, first, second", [
    ("10.71.2.2", "10.71.2.2", "10.71.2.3", "10.71.2.4"),
    ("fd71:2::2", "fd71:2::2", "fd71:2::3", "fd71:2::4"),
])
def test_effect_within_the_answer(lab, nginx, gateway, address, own, first, second):
    """When the API has answered, the next connection is treated accordingly; time and again."""
    gateway.upstream("first", [(first, 0)])
    gateway.upstream("second", [(second, 0)])
    # No TIME_WAIT on the gateway: such a socket of a relayed flow would take packets of a forwarded one that happens
    # to use the same port.
    with lab.gateway.sysctls(net__ipv4__tcp_max_tw_buckets=0):
        change_and_look(lab, gateway, address, own, first, second)


def change_and_look(lab, gateway, address, own, first, second):
    """Create, change, disable, delete; after each answer one connection tells what is in force."""
    for _ in range(amount(6, 20)):
        assert gateway.api("POST", "listeners", {"name": "web", "ports": ["8000"], "upstream": "first"}).status == 201
        assert target_of(lab, address) == first
        assert gateway.api("PATCH", "listeners/web", {"upstream": "second"}).status == 200
        assert target_of(lab, address) == second
        assert gateway.api("PATCH", "listeners/web", {"ports": ["8001"]}).status == 200
        assert target_of(lab, address) == own
        assert gateway.api("PATCH", "listeners/web", {"ports": ["8000"], "enabled": False}).status == 200
        assert target_of(lab, address) == own
        assert gateway.api("PATCH", "listeners/web", {"enabled": True}).status == 200
        assert target_of(lab, address) == second
        assert gateway.api("DELETE", "listeners/web").status == 204
        assert target_of(lab, address) == own


def test_targets_change_within_the_answer(lab, nginx, gateway):
    """The same for the targets of an upstream in use."""
    gateway.upstream("pool", [("10.71.2.3", 0)])
    gateway.listener("web", ports=["8000"], upstream="pool")
    for target in ("10.71.2.4", "10.71.2.5", "10.71.2.3") * 5:
        gateway.upstream("pool", [(target, 0)])
        assert target_of(lab) == target


def test_a_change_leaves_established_flows_alone(lab, gateway):
    """Deleting the listener does not end what runs."""
    gateway.listener("l", ports=["7901"])

    def echo(connection, _address):
        while data := connection.recv(100):
            connection.sendall(data)

    with servers.Peer(lab.server, "10.71.2.2", 7901, echo):
        with lab.client.connect("10.71.2.2", 7901) as connection:
            connection.sendall(b"before")
            assert connection.recv(100) == b"before"
            gateway.delete("listeners", "l")
            connection.sendall(b"after")
            assert connection.recv(100) == b"after"


HOSTILE = [
    'x"', "x' ", "x\n", "x\nflush ruleset", 'a"; flush ruleset; add table inet pwned', "a;b", "a}b", "a{b", "$(id)", "`id`",
    "../../etc/passwd", "a b", "A", "é", "\u0000", "a\u0000b", "-" * 64, "", "a,b", "a*", "@all", "0.0.0.0/0 accept",
    "inet gatewayd", "%s%n", "\\", "a\tb", "\u202e", "x" * 4096,
]


@pytest.mark.parametrize("field", ["name", "interfaces", "sources", "destinations", "ports"])
def test_no_injection_through_strings(lab, gateway, field):
    """Hostile strings are refused, and kernel and configuration stay what they were."""
    gateway.listener("innocent", ports=["8000"])
    before, routes = kernel.ruleset(lab.gateway), kernel.routing(lab.gateway)
    revision = gateway.status()["revision"]
    for text in HOSTILE:
        body = {"name": "hostile", "ports": ["80"]}
        body[field] = text if field == "name" else [text]
        answer = gateway.api("POST", "listeners", body)
        harmless_interface = field == "interfaces" and answer.status == 201
        if harmless_interface:
            # An interface may be called many things; what is taken must stay inside its quotes.
            assert '"' not in text and "\n" not in text and "\\" not in text and len(text) < 16, text
            gateway.delete("listeners", "hostile")
            before = kernel.ruleset(lab.gateway)
            continue
        assert answer.status in (400, 422), f"{text!r}: {answer}"
        assert "problem+json" in answer.headers["Content-Type"]
        assert kernel.ruleset(lab.gateway) == before, f"{text!r} changed the kernel"
    tables = {o["table"]["name"] for o in kernel.nft_json(lab.gateway, "tables")}
    assert tables == {"gatewayd"}
    assert kernel.routing(lab.gateway) == routes
    if field != "interfaces":
        assert gateway.status()["revision"] == revision


def test_comments_are_text(lab, gateway):
    """A comment may hold anything; it comes back as it was, and the kernel never sees it."""
    for text in ('"; flush ruleset; "', "<script>alert(1)</script>", "é\u202e", "' OR 1=1 --"):
        gateway.listener("commented", ports=["8000"], comment=text)
        assert gateway.must("GET", "listeners/commented")["comment"] == text
        assert "flush" not in json.dumps(kernel.nft_json(lab.gateway, "ruleset"))


def test_a_refused_change_changes_nothing(lab, gateway):
    """A tie with another listener: 409 with both names, kernel and revision unchanged."""
    gateway.listener("one", ports=["8000"])
    before, revision = kernel.ruleset(lab.gateway), gateway.status()["revision"]
    answer = gateway.api("POST", "listeners", {"name": "two", "ports": ["8000"]})
    assert answer.status == 409
    assert "one" in answer.text and "two" in answer.text
    assert kernel.ruleset(lab.gateway) == before
    assert gateway.status()["revision"] == revision
    assert gateway.api("GET", "listeners/two").status == 404


@pytest.mark.own_gateway
def test_cleanup_leaves_nothing(lab, make_gateway):
    """After --cleanup the kernel is as it was before the first start: tables, rules, routes."""
    gateway = make_gateway(start=False)
    rules, routes = kernel.ruleset(lab.gateway), kernel.routing(lab.gateway)
    gateway.start()
    gateway.listener("web", ports=["8000", "9000-9100"], destinations=["10.71.2.0/24", "fd71:2::/64"])
    assert kernel.ruleset(lab.gateway) != rules
    assert kernel.routing(lab.gateway) != routes
    relay = gateway.relay_pid()
    gateway.stop()
    done = gateway.run_once("--cleanup")
    assert done.returncode == 0, done.stderr
    assert kernel.ruleset(lab.gateway) == rules
    assert kernel.routing(lab.gateway) == routes
    assert gateway.run_once("--cleanup").returncode == 0, "a second time"
    if alive(relay):

        end_process(relay)


@pytest.mark.own_gateway
def test_foreign_objects_survive(lab, make_gateway):
    """Start, changes, stop and clean-up leave other people's tables, rules and routes alone."""
    gateway = make_gateway(start=False)
    lab.gateway.nft("add table inet other\nadd chain inet other c { type filter hook prerouting priority mangle; }\n"
                    "add rule inet other c counter\n")
    lab.gateway.run("ip", "rule", "add", "fwmark", "0x7", "lookup", "77", "pref", "77")
    lab.gateway.run("ip", "route", "add", "blackhole", "10.99.0.0/16", "table", "77")
    try:
        rules, routes = kernel.ruleset(lab.gateway), kernel.routing(lab.gateway)
        gateway.start()
        gateway.listener("web", ports=["8000"])
        assert set(rules) <= set(kernel.ruleset(lab.gateway))
        gateway.close()
        assert kernel.ruleset(lab.gateway) == rules
        assert kernel.routing(lab.gateway) == routes
    finally:
        lab.gateway.nft("delete table inet other")
        lab.gateway.run("ip", "rule", "del", "pref", "77")
        lab.gateway.run("ip", "route", "flush", "table", "77")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_adoption_at_restart(lab, nginx, gateway, how):
    """A new daemon finds table, routes and relay and takes them over: same table, same process, flows go on."""
    gateway.upstream("pool", [("10.71.2.3", 0)])
    gateway.listener("web", ports=["8000"], upstream="pool")
    handle, relay, rules, routes = (kernel.table_handle(lab.gateway), gateway.relay_pid(),
                                    kernel.ruleset(lab.gateway), kernel.routing(lab.gateway))
    revision = gateway.status()["revision"]
    with lab.client.connect("10.71.2.2", 8000) as connection:
        connection.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"10.71.2.3" in connection.recv(1000)
        getattr(gateway, how)()
        assert alive(relay), "the relay goes on by itself"
        connection.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"10.71.2.3" in connection.recv(1000), "established flows need no daemon"
        assert target_of(lab) == "10.71.2.3", "nor do new ones"
        gateway.start()
        connection.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"10.71.2.3" in connection.recv(1000)
    assert gateway.relay_pid() == relay
    assert kernel.table_handle(lab.gateway) == handle
    assert kernel.ruleset(lab.gateway) == rules
    assert kernel.routing(lab.gateway) == routes
    assert gateway.status()["revision"] == revision
    assert target_of(lab) == "10.71.2.3"


def test_restart_without_kernel_state(lab, nginx, gateway):
    """A reboot, in effect: everything of ours is gone from the kernel, and comes back from the database."""
    gateway.upstream("pool", [("10.71.2.3", 0)])
    gateway.listener("web", ports=["8000"], upstream="pool")
    rules, routes = kernel.our_table(lab.gateway), kernel.routing(lab.gateway)
    relay = gateway.relay_pid()
    gateway.stop()
    gateway.run_once("--cleanup")

    end_process(relay)
    assert target_of(lab) == "10.71.2.2"
    gateway.start()
    assert kernel.routing(lab.gateway) == routes
    assert target_of(lab) == "10.71.2.3"
    assert [len(rules)] == [len(kernel.our_table(lab.gateway))]


def test_more_than_may_be_written_still_starts(lab, gateway):
    """Ranges of ports for more addresses than anybody may write today, stored already: the daemon starts with them, they
    can be changed otherwise, and come back. Each listener has too few addresses for sets of its own."""
    for i in range(10):
        entries = "".join(f"10.{9 + i}.{n >> 8}.{n & 255}\n" for n in range(2000)).encode()
        gateway.must("PUT", f"address-sets/many{i}", {"entries": ["10.9.0.1"]})
        gateway.must("PUT", f"address-sets/many{i}/entries", entries, headers={"Content-Type": "text/plain"})
        gateway.listener(f"wide{i}", destinations=[f"@many{i}"], ports=["1-65535"], action="drop")
    gateway.stop()
    with database(gateway, write=True) as opened:
        opened.execute("UPDATE listener SET ports = '[\"2-65533\"]' WHERE name LIKE 'wide%'")
        opened.execute("UPDATE revision SET config_hash = NULL")
    gateway.start(timeout=60)
    assert gateway.must("GET", "listeners/wide9")["ports"] == ["2-65533"]
    gateway.must("PATCH", "listeners/wide9", {"comment": "as it was"}, timeout=60)
    before = gateway.status()["revision"]
    assert gateway.api("PUT", "address-sets/many9/entries", entries + b"10.200.0.1\n", {"Content-Type": "text/plain"},
                       timeout=60).status == 422
    gateway.must("PATCH", "listeners/wide9", {"ports": ["1-65535"]}, timeout=60)
    assert gateway.api("PATCH", "listeners/wide9", {"ports": ["2-65533"]}, timeout=60).status == 422
    gateway.must("POST", f"revisions/{before}/rollback", timeout=60)
    assert gateway.must("GET", "listeners/wide9")["ports"] == ["2-65533"]


def test_check_option(lab, gateway):
    """--check of a sound database exits 0 and touches nothing."""
    gateway.listener("web", ports=["8000"])
    gateway.stop()
    rules = kernel.ruleset(lab.gateway)
    done = gateway.run_once("--check")
    assert done.returncode == 0, done.stderr
    assert kernel.ruleset(lab.gateway) == rules
    gateway.start()


def test_a_thousand_listeners(lab, nginx, make_gateway, figure):
    """Each in force when its answer comes; the last one as quick to make as the first."""
    gateway = make_gateway(build=release_or_default())
    times = []
    for number in range(1000):
        started = time.monotonic()
        gateway.listener(f"l{number}", ports=[str(10000 + number)])
        times.append((time.monotonic() - started) * 1000)
    figure("median ms of a PUT", f"first hundred {sorted(times[:100])[50]:.1f}, last hundred {sorted(times[-100:])[50]:.1f}")
    assert len(kernel.our_elements(lab.gateway)) >= 1000
    gateway.listener("web", ports=["8000"])
    assert target_of(lab) == "10.71.2.2"
    wait_for(lambda: gateway.status()["ready"], 5, "readiness")
