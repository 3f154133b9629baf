"""GET /doctor: each thing that stands in the way, made in the lab, turns exactly its check red; its end turns it green."""

import contextlib
import itertools
import os
import time
from pathlib import Path

import pytest

from lab.netns import run
from lab.process import wait_for
from net.control import database, redirect
from net.test_drift import LOCAL_TABLE, nft_delete_element


def red(gateway):
    """Names of the checks that found something."""
    return {check["name"] for check in gateway.must("GET", "doctor")["checks"] if not check["ok"]}


def check_of(gateway, name):
    """One check."""
    return next(check for check in gateway.must("GET", "doctor")["checks"] if check["name"] == name)


def setting(key, value):
    """A sysctl of the gateway's namespace."""
    @contextlib.contextmanager
    def broken(lab, _gateway):
        with lab.gateway.sysctls(**{key.replace(".", "__"): value}):
            yield
    return broken


def table(text, name):
    """A table of somebody else's."""
    @contextlib.contextmanager
    def broken(lab, _gateway):
        lab.gateway.nft(text)
        try:
            yield
        finally:
            lab.gateway.nft(f"delete table {name}")
    return broken


@contextlib.contextmanager
def foreign_route(lab, _gateway):
    """A route of theirs in our table."""
    lab.gateway.run("ip", "route", "add", "blackhole", "10.71.9.0/24", "table", LOCAL_TABLE)
    try:
        yield
    finally:
        lab.gateway.run("ip", "route", "del", "blackhole", "10.71.9.0/24", "table", LOCAL_TABLE)


@contextlib.contextmanager
def foreign_rule(lab, _gateway):
    """A rule of theirs before ours that looks at the whole mark, as wg-quick makes them."""
    lab.gateway.run("ip", "-6", "rule", "add", "not", "fwmark", "51820", "lookup", "51820", "pref", "50")
    try:
        yield
    finally:
        lab.gateway.run("ip", "-6", "rule", "del", "pref", "50")


@contextlib.contextmanager
def told_only(gateway):
    """Drift is not put right meanwhile."""
    gateway.must("PATCH", "settings", {"drift": "alert"})
    try:
        yield
    finally:
        gateway.must("PATCH", "settings", {"drift": "heal"})


@contextlib.contextmanager
def no_route(lab, gateway):
    """Our IPv6 route is gone."""
    with told_only(gateway):
        lab.gateway.run("ip", "-6", "route", "flush", "table", LOCAL_TABLE)
        yield


@contextlib.contextmanager
def no_element(lab, gateway):
    """An element of ours is gone."""
    redirect(gateway)
    with told_only(gateway):
        nft_delete_element(lab)
        yield


@contextlib.contextmanager
def narrow_link(lab, _gateway):
    """An interface that cannot have IPv6."""
    lab.gateway.run("ip", "link", "add", "narrow", "mtu", "1200", "type", "veth", "peer", "name", "narrow-far")
    lab.gateway.run("ip", "link", "set", "narrow", "up")
    try:
        yield
    finally:
        lab.gateway.run("ip", "link", "del", "narrow")


@contextlib.contextmanager
def bridge(lab, _gateway):
    """A bridge whose frames meet the rules of IP."""
    lab.gateway.run("ip", "link", "add", "switch", "type", "bridge")
    key = "net.bridge.bridge-nf-call-iptables"
    old = None
    try:
        try:
            old = lab.gateway.sysctl(key, 1)
        except FileNotFoundError:
            pytest.skip("this kernel has no br_netfilter")
        yield
    finally:
        if old is not None:
            lab.gateway.sysctl(key, old)
        lab.gateway.run("ip", "link", "del", "switch")


@contextlib.contextmanager
def future_revision(_lab, gateway):
    """The clock went back a day after the last change."""
    redirect(gateway)
    with database(gateway, write=True) as opened:
        opened.execute("UPDATE revision SET created_at = created_at + 86400")
    try:
        yield
    finally:
        with database(gateway, write=True) as opened:
            opened.execute("UPDATE revision SET created_at = created_at - 86400")


@contextlib.contextmanager
def no_relay(_lab, gateway):
    """A relay that cannot be started."""
    gateway.break_relay()
    try:
        yield
    finally:
        gateway.mend_relay()


BROKEN = {
    "ip_forward": setting("net.ipv4.ip_forward", 0),
    "ip6_forward": setting("net.ipv6.conf.all.forwarding", 0),
    "rp_filter": setting("net.ipv4.conf.in0.rp_filter", 1),
    "route_localnet": setting("net.ipv4.conf.in0.route_localnet", 1),
    "backlog": setting("net.core.somaxconn", 128),
    "bridge_netfilter": bridge,
    "routing": no_route,
    "nft_table": no_element,
    "foreign_route": foreign_route,
    "foreign_marks": foreign_rule,
    "input_drop": table("add table inet wall\nadd chain inet wall in { type filter hook input priority 0; policy drop; }\n",
                        "inet wall"),
    "forward_drop": table("add table inet wall\nadd chain inet wall through { type filter hook forward priority 0; policy drop; }\n",
                          "inet wall"),
    "source_nat": table("add table ip hide\nadd chain ip hide post { type nat hook postrouting priority 100; }\n"
                        "add rule ip hide post oifname out0 masquerade\n", "ip hide"),
    "mtu": narrow_link,
    "clock": future_revision,
    "relay": no_relay,
}


@pytest.fixture(scope="module")
def shared(lab):
    """One gateway for all rows: each leaves it as it was."""
    from lab import Gateway
    with Gateway(lab) as made:
        yield made


@pytest.mark.parametrize("name", BROKEN)
def test_exactly_its_check(lab, shared, name):
    """Green before, red alone while it is broken with a word about the mend, green after."""
    wait_for(lambda: red(shared) == set(), 10, f"green: {red(shared)}")
    with BROKEN[name](lab, shared):
        wait_for(lambda: red(shared) == {name}, 10, f"{name} red alone: {red(shared)}")
        check = check_of(shared, name)
        assert check["fix"] and check["detail"]
        # What the status warns of is the same, by the same words.
        assert [(w["code"], w["fix"]) for w in shared.status()["warnings"]] == [(name, check["fix"])]
    wait_for(lambda: red(shared) == set(), 15, f"green again: {red(shared)}")


@pytest.mark.parametrize("name", ["ip_forward", "ip6_forward", "backlog", "route_localnet", "rp_filter", "mtu", "input_drop",
                                  "source_nat"])
def test_mended_by_its_own_words(lab, shared, name):
    """The command in `fix`, run as it stands, turns the check green."""
    with BROKEN[name](lab, shared):
        wait_for(lambda: red(shared) == {name}, 10, f"{name} red")
        command = check_of(shared, name)["fix"].split(":")[0]
        lab.gateway.run(*command.split())
        assert red(shared) == set()
        if name == "rp_filter":
            lab.gateway.sysctl("net.ipv4.conf.all.rp_filter", 0)


WALL = "add table inet wall\nadd chain inet wall in { type filter hook input priority 0; policy %s; }\nadd chain inet wall ours\n"
HIDE = "add table ip hide\nadd chain ip hide post { type nat hook postrouting priority 100; }\nadd chain ip hide more\n"


RULES = [
    ("no default, but a last rule", WALL % "accept" + "add rule inet wall in ct state established accept\nadd rule inet wall in counter reject\n",
     "input_drop"),
    ("drops some", WALL % "accept" + "add rule inet wall in tcp dport 9 drop\n", None),
    ("our mark among others'", WALL % "drop" + "add rule inet wall in meta mark and 0xff000000 == 0x01000000 counter accept\n", None),
    ("our mark alone", WALL % "drop" + "add rule inet wall in meta mark 0x01000000 accept\n", None),
    ("our mark, in a chain that it jumps to", WALL % "drop" + "add rule inet wall ours meta mark 0x01000000 accept\n"
     "add rule inet wall in jump ours\n", None),
    ("another mark", WALL % "drop" + "add rule inet wall in meta mark 0x02000000 accept\n", "input_drop"),
    ("our mark of some", WALL % "drop" + "add rule inet wall in tcp dport 80 meta mark 0x01000000 accept\n", "input_drop"),
    ("our mark, and not accepted", WALL % "drop" + "add rule inet wall in meta mark 0x01000000 counter\n", "input_drop"),
    ("somebody else is exempt", HIDE + "add rule ip hide post meta skuid 1 accept\nadd rule ip hide post masquerade\n", "source_nat"),
    ("the relay is exempt too late", HIDE + "add rule ip hide post masquerade\nadd rule ip hide post meta skuid UID accept\n", "source_nat"),
    ("the relay is exempt", HIDE + "add rule ip hide post meta skuid UID return\nadd rule ip hide post jump more\n"
     "add rule ip hide more snat to 192.0.2.1\n", None),
    ("nothing is rewritten", HIDE + "add rule ip hide post oifname out0 accept\n", None),
]


@pytest.mark.parametrize("name, text, found", RULES, ids=[row[0] for row in RULES])
def test_rules_of_others(lab, shared, name, text, found):
    """What their rules do, and whom they exempt, counts: a firewall that lets us in is no fault for ever."""
    status = Path(f"/proc/{shared.status()['relay']['pid']}/status").read_text()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    with table(text.replace("UID", uid), text.split()[2] + " " + text.split()[3])(lab, shared):
        assert red(shared) == ({found} if found else set()), name


def test_what_is_mended_works(lab, shared, nginx):
    """The two commands do what they say: flows come through, and the target sees the client."""
    shared.listener("web", ports=["8000"])
    for name in ("input_drop", "source_nat"):
        with BROKEN[name](lab, shared):
            lab.gateway.run(*check_of(shared, name)["fix"].split(":")[0].split())
            assert f"sees {lab.client.v4}" in lab.client.run("curl", "-sS", "-m", 5, f"http://{lab.server.v4}:8000/whoami").stdout, name
    shared.must("DELETE", "listeners/web")


FORWARD = "add table inet wall\nadd chain inet wall through { type filter hook forward priority 0; policy %s; }\nadd chain inet wall other\n"
ANSWERS = "add rule inet wall through ct state established,related accept\n"

FORWARDS = [
    ("no default, but a last rule", FORWARD % "accept" + ANSWERS + "add rule inet wall through counter reject\n", True),
    ("drops some", FORWARD % "accept" + "add rule inet wall through tcp dport 9 drop\n", False),
    ("lets ours through, and answers", FORWARD % "drop" + ANSWERS + "add rule inet wall through iifname in0 accept\n", False),
    ("both by name", FORWARD % "drop" + "add rule inet wall through iifname { lo, in0 } counter accept\n"
     "add rule inet wall through oifname in* accept\n", False),
    ("lets ours through, and no answers", FORWARD % "drop" + "add rule inet wall through iifname in0 accept\n", True),
    ("lets another through", FORWARD % "drop" + ANSWERS + "add rule inet wall through iifname out0 accept\n", True),
    ("all but another", FORWARD % "drop" + ANSWERS + "add rule inet wall through iifname != out0 accept\n", False),
    ("some of ours", FORWARD % "drop" + ANSWERS + "add rule inet wall through iifname in0 tcp dport 80 accept\n", True),
    ("in a chain that it jumps to", FORWARD % "drop" + ANSWERS + "add rule inet wall other iifname in0 accept\n"
     "add rule inet wall through jump other\n", False),
    ("in a chain that nobody jumps to", FORWARD % "drop" + ANSWERS + "add rule inet wall other accept\n", True),
    ("in a chain that some jump to", FORWARD % "drop" + ANSWERS + "add rule inet wall other accept\n"
     "add rule inet wall through udp dport 53 jump other\n", True),
    ("too late", FORWARD % "accept" + ANSWERS + "add rule inet wall through drop\nadd rule inet wall through iifname in0 accept\n", True),
    ("of a bridge", "add table bridge wall\nadd chain bridge wall through { type filter hook forward priority 0; policy drop; }\n", False),
]


@pytest.mark.parametrize("name, text, found", FORWARDS, ids=[row[0] for row in FORWARDS])
def test_forward_chains_of_others(lab, shared, name, text, found):
    """Whether they let through what comes in at the listeners' interface, and the answers: what holds for some is no default."""
    shared.listener("web", ports=["8000"], interfaces=["in0"], action="bypass")
    try:
        with table(text, text.split()[2] + " " + text.split()[3])(lab, shared):
            assert red(shared) == ({"forward_drop"} if found else set()), (name, check_of(shared, "forward_drop"))
    finally:
        shared.must("DELETE", "listeners/web")


DOCKER = {"inet wall": FORWARD % "drop", "ip filter": None}


@pytest.mark.parametrize("place", DOCKER)
def test_forwarded_again(lab, shared, nginx, place):
    """What a listener bypasses dies in a chain of a firewall, or of Docker: the doctor says so, the explanation does not
    promise, and the command that the doctor tells lets it through."""
    iptables = [("-P", "FORWARD", "DROP"), ("-N", "DOCKER-USER"), ("-A", "FORWARD", "-j", "DOCKER-USER"),
                ("-A", "DOCKER-USER", "-j", "RETURN")]
    packet = {"protocol": "tcp", "source": lab.client.v4, "destination": lab.server.v4, "destination_port": 8000, "interface": "in0"}
    fetch = ("curl", "-sS", "-m", "2", f"http://{lab.server.v4}:8000/whoami")
    shared.listener("web", ports=["8000"], interfaces=["in0"], action="bypass")

    def stages(**more):
        told = shared.must("POST", "explain", {**packet, **more})
        return [(stage["stage"], stage["verdict"]) for stage in told["stages"]], told

    try:
        assert ("forward", "may_drop") not in stages()[0]
        assert f"sees {lab.client.v4}" in lab.client.run(*fetch).stdout
        if DOCKER[place]:
            lab.gateway.nft(DOCKER[place])
        else:
            for command in iptables:
                lab.gateway.run("iptables", *command)
        assert lab.client.run(*fetch, check=False).returncode != 0
        assert red(shared) == {"forward_drop"}
        check = check_of(shared, "forward_drop")
        assert f"chain {place} " in check["detail"] and "in0" in check["detail"], check
        assert ("DOCKER-USER" in check["fix"]) == (place == "ip filter"), check
        for port in (8000, 8001):
            short, told = stages(destination_port=port)
            assert told["verdict"] == ("bypass" if port == 8000 else "forward")
            assert short[-1] == ("forward", "may_drop"), told
            assert all(word in told["stages"][-1]["why"] for word in place.split()), told
        lab.gateway.run("sh", "-c", check["fix"].split(":")[0])
        assert red(shared) == set(), check_of(shared, "forward_drop")
        assert ("forward", "may_drop") not in stages()[0]
        assert f"sees {lab.client.v4}" in lab.client.run(*fetch).stdout
    finally:
        lab.gateway.nft(f"add table {place}\ndelete table {place}")
        shared.must("DELETE", "listeners/web")


def test_src_valid_mark(lab, shared):
    """It does no harm while our rules are there, and is named when they are not."""
    with lab.gateway.sysctls(net__ipv4__conf__all__src_valid_mark=1):
        assert red(shared) == set()
        assert "first routing rule" in check_of(shared, "src_valid_mark")["detail"]
        with no_route(lab, shared):
            wait_for(lambda: red(shared) == {"routing", "src_valid_mark"}, 10, f"{red(shared)}")
    wait_for(lambda: red(shared) == set(), 10, "green again")


def test_disk_nearly_full(lab, shared, make_gateway):
    """The state directory's file system has little room left."""
    shared.stop()
    gateway = make_gateway(start=False, listen="http://127.0.0.1:8090")
    run("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", gateway.state)
    try:
        gateway.start()
        assert "disk" not in red(gateway)
        (gateway.state / "filler").write_bytes(os.urandom(1) * (24 << 20))
        assert red(gateway) == {"disk"}
        (gateway.state / "filler").unlink()
        assert red(gateway) == set()
    finally:
        gateway.stop()
        run("umount", "-l", gateway.state)
        shared.start()


def test_cost(lab, shared, figure):
    """What a look costs the daemon's one thread; a figure, not a judgement."""
    started = time.monotonic()
    for _ in range(20):
        red(shared)
    figure("ms for one", f"{(time.monotonic() - started) * 50:.1f}")


def warned(gateway):
    """The codes that the status warns of."""
    return {warning["code"] for warning in gateway.status()["warnings"]}


def test_the_status_remembers(lab, shared):
    """The status looks at what was found last for a moment, the doctor looks anew, and a change of ours ends the moment."""
    numbers = itertools.count(10)
    wait_for(lambda: red(shared) == set(), 15, "green")
    for way in (lambda: shared.must("GET", "doctor"), lambda: redirect(shared, f"10.71.2.{next(numbers)}")):
        for _ in range(20):
            assert red(shared) == set()
            with lab.gateway.sysctls(net__ipv4__ip_forward=0):
                kept = warned(shared)
                way()
                assert warned(shared) == {"ip_forward"}
            if kept == set():
                break
        else:
            raise AssertionError("the status never answered from what was found before")
    assert red(shared) == set()
