"""Where the prefilter can be attached and where not, how it is said, and that the gateway works either way; what outlives the
daemon there, and what --cleanup leaves."""

import contextlib
import json
import socket

import pytest

from lab import kernel
from lab.gateway import ROOT, end_process
from lab.process import alive, amount, wait_for
from lab.segments import SYN, Wire
from net.test_prefilter import CLIENT, FAMILIES, GATEWAY, SERVER, Drops, datagrams, pings, prefilter, red, status
from net.test_transparent import ask

pytestmark = pytest.mark.shared_gateway

JUMBO = 9000
SECOND, SECOND_ROUTER = {4: "10.71.5.2", 6: "fd71:5::2"}, {4: "10.71.5.1", 6: "fd71:5::1"}
NET = {4: ("10.71.77.1", "10.71.77.2"), 6: ("fd71:77::1", "fd71:77::2")}


@pytest.fixture
def gateway(make_gateway):
    """A gateway whose programs can be pinned."""
    return make_gateway(bpf=True)


@contextlib.contextmanager
def cable(lab, name, mtu=1500, bridge=False, free=True):
    """A cable from the gateway to the client, with addresses of its own; the gateway's end, or a bridge that it is part of,
    has this name. free: nothing is dropped at it yet."""
    end, far = f"{name}p" if bridge else name, f"{name}c"
    lab.gateway.run("ip", "link", "add", end, "mtu", mtu, "type", "veth", "peer", "name", far, "mtu", mtu, "netns", lab.client.name)
    try:
        if bridge:
            lab.gateway.run("ip", "link", "add", name, "type", "bridge")
            lab.gateway.run("ip", "link", "set", end, "master", name)
            lab.gateway.run("ip", "link", "set", end, "up")
        for host, device, side in ((lab.gateway, name, 0), (lab.client, far, 1)):
            for family, bits in ((4, 24), (6, 64)):
                host.run("ip", "addr", "add", f"{NET[family][side]}/{bits}", "dev", device, *(["nodad"] if family == 6 else []))
            host.run("ip", "link", "set", device, "up")
        for family in FAMILIES if free else ():
            wait_for(lambda family=family: pings(lab.client, NET[family][0], 1) == 1, 5, "the cable")
        yield
    finally:
        if bridge:
            lab.gateway.run("ip", "link", "del", name, check=False)
        lab.gateway.run("ip", "link", "del", end, check=False)


def plain_program(lab, directory):
    """A program that knows no frames in pieces, as an object file."""
    source = directory / "plain.c"
    source.write_text('__attribute__((section("xdp"), used)) int plain(void *c) { return 2; }\n'
                      'char l[] __attribute__((section("license"), used)) = "GPL";\n')
    lab.gateway.run("clang", "-O2", "-target", "bpf", "-c", source, "-o", directory / "plain.o")
    return directory / "plain.o"


@pytest.mark.parametrize("mode", ["auto", "native", "generic"])
def test_jumbo_frames(lab, gateway, tmp_path, mode):
    """At an MTU at which the driver refuses programs that know whole frames only, ours runs in each mode, on frames in pieces."""
    with cable(lab, "big0", mtu=JUMBO):
        plain = lab.gateway.run("ip", "link", "set", "big0", "xdpdrv", "obj", plain_program(lab, tmp_path), "sec", "xdp", check=False)
        assert plain.returncode != 0 and "MTU" in plain.stderr, plain
        row = prefilter(gateway, "big0", mode=mode, deny=["203.0.113.0/24"], drop_bogons=True, drop_fragments=True)
        assert (row["state"], row["mode"]) == ("on", "native" if mode == "native" else "generic")
        for family in FAMILIES:
            with Drops(gateway, "big0") as drops:
                assert pings(lab.client, NET[family][0], 3, JUMBO - 100) == 3
            assert drops.by_reason == {}
        prefilter(gateway, "big0", mode=mode, deny=["10.71.77.2", "fd71:77::2"])
        for family in FAMILIES:
            with Drops(gateway, "big0") as drops:
                assert pings(lab.client, NET[family][0], 3, JUMBO - 100) == 0
            assert drops.by_reason["denied"] >= 3
        gateway.must("DELETE", "prefilters/big0")


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_of_vlans(lab, gateway, mode):
    """On a wire: what is in frames with a tag and with two is judged as what is in those without, in either mode."""
    prefilter(gateway, mode=mode, deny=["198.18.0.0/24", "fd99::/64"])
    with Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        for tags in (b"", b"\x81\0\0\x07", b"\x88\xa8\0\x07\x81\0\0\x08"):
            for denied, other, to in (("198.18.0.9", "198.18.1.9", GATEWAY[4]), ("fd99::9", "fd98::9", GATEWAY[6])):
                with Drops(gateway) as drops:
                    for source in (denied, denied, other):
                        frame = wire.frame(source, to, 5000, 9, SYN)
                        wire.socket.send(frame[:12] + tags + frame[12:])
                    assert pings(lab.client, to, 1) == 1  # behind them
                assert drops.by_reason == {"denied": 2}, tags


def test_a_driver_without_native_mode(lab, gateway):
    """Asked for, it is refused in words, and what is in force stays; auto takes the stack instead and says why."""
    with cable(lab, "br8", bridge=True):
        answer = gateway.api("PUT", "prefilters/br8", {"mode": "native"})
        assert answer.status == 422 and "br8 does not take the program in its driver" in answer.text, answer
        assert gateway.status()["prefilters"] == []
        row = prefilter(gateway, "br8", deny=["10.71.77.2"])
        assert (row["state"], row["mode"]) == ("on", "generic") and row["why"].startswith("not native: "), row
        answer = gateway.api("PATCH", "prefilters/br8", {"mode": "native"})
        assert answer.status == 422 and "in its driver" in answer.text, answer
        assert gateway.must("GET", "prefilters/br8")["mode"] == "auto" and status(gateway, "br8")["mode"] == "generic"
        with Drops(gateway, "br8") as drops:
            assert pings(lab.client, NET[4][0]) == 0 and pings(lab.client, NET[6][0]) == 3
        assert drops.by_reason["denied"] >= 3
        gateway.must("DELETE", "prefilters/br8")


def test_an_interface_that_comes_back_as_another_kind(lab, nginx, gateway):
    """Native mode on what has none, found at the start: said by status, doctor and readiness; the gateway does the rest, and
    once the interface can, the prefilter is there."""
    gateway.listener("web", ports=["8000"])
    with cable(lab, "pf6"):
        prefilter(gateway, "pf6", mode="native", deny=["10.71.77.2"])
        gateway.stop()
    with cable(lab, "pf6", bridge=True):
        gateway.start(ready=False)
        wait_for(lambda: gateway.status()["relay"]["state"] == "running", 10, "the relay")
        row = status(gateway, "pf6")
        assert (row["state"], row["mode"], row["program"], row["foreign"]) == ("failed", "off", None, None)
        assert "pf6 does not take the program in its driver" in row["why"] and row["why"] in red(gateway)
        assert gateway.api("GET", "/readyz").status == 503
        for family in FAMILIES:
            assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
        gateway.must("POST", "bans", {"address": CLIENT[4]})
        with pytest.raises(OSError):
            lab.client.connect(SERVER[4], 8000, timeout=0.5)
        gateway.must("DELETE", f"bans?address={CLIENT[4]}")
    with cable(lab, "pf6", free=False):
        wait_for(lambda: status(gateway, "pf6")["state"] == "on", 10, "the prefilter")
        assert status(gateway, "pf6")["mode"] == "native" and red(gateway) is None
        wait_for(lambda: pings(lab.client, NET[6][0], 1) == 1, 5, "the cable")
        assert pings(lab.client, NET[4][0], 1) == 0
    gateway.must("DELETE", "prefilters/pf6")
    gateway.wait_ready()


def test_own_bans_outlive_the_daemon(lab, gateway):
    """kill -9: whom the program has banned, and whom the daemon, stays out while nobody is there and with the next daemon, which
    lists them with their time and lets them in when told to."""
    prefilter(gateway, source_pps={"rate": 2, "burst": 50, "action": "ban", "ban_s": 600})
    for family in FAMILIES:
        datagrams(lab.client, family, 9, 100)
    gateway.must("POST", "bans", {"address": "192.0.2.0/24", "ban_s": 600, "placement": "xdp"})

    def listed():
        return [(ban["address"], ban["actor"], ban["expires_at"], ban["interfaces"]) for ban in gateway.must("GET", "bans")["items"]]

    before = wait_for(lambda: found if len(found := listed()) == 3 else None, 10, "all bans")
    program = status(gateway)["program"]
    gateway.kill()
    for family in FAMILIES:
        assert pings(lab.client, GATEWAY[family], 2) == 0
    gateway.start()
    assert [(address, actor, interfaces) for address, actor, _, interfaces in listed()] == [
        (address, actor, interfaces) for address, actor, _, interfaces in before]
    assert status(gateway)["program"] != program and status(gateway)["bans"] == 2
    for family in FAMILIES:
        assert pings(lab.client, GATEWAY[family], 2) == 0
        gateway.must("DELETE", f"bans/{CLIENT[family]}")
        wait_for(lambda family=family: pings(lab.client, GATEWAY[family], 1) == 1, 10, "the way in")
    gateway.must("DELETE", "bans/192.0.2.0/24")


def kernel_state(lab, gateway):
    """What of ours can be in the kernel: rules, routing, qdiscs, filters, programs on interfaces, pins."""
    links = json.loads(lab.gateway.run("ip", "-j", "link").stdout)
    filters = [lab.gateway.run("tc", "filter", "show", "dev", link["ifname"], "ingress", check=False).stdout for link in links]
    return {"rules": kernel.ruleset(lab.gateway), "routing": kernel.routing(lab.gateway), "filters": filters,
            "qdiscs": lab.gateway.run("tc", "qdisc", "show").stdout,
            "xdp": [(link["ifname"], link["xdp"]) for link in links if "xdp" in link],
            "pins": sorted(str(path) for path in gateway.bpf.rglob("*"))}


@pytest.mark.own_gateway
@pytest.mark.parametrize("killed", [False, True])
def test_cleanup_leaves_nothing(lab, make_gateway, killed):
    """Prefilters in both modes, bans of each kind, limits, the second engine and the short cut: all gone, after kill -9 as well."""
    gateway = make_gateway(bpf=True, start=False)
    before = kernel_state(lab, gateway)
    gateway.start()
    gateway.must("PATCH", "settings", {"interception": "ebpf"})
    gateway.must("PUT", "rate-limits/few", {"rate": 10, "action": "ban", "escalate": {"after": 9}})
    gateway.must("PUT", "rate-limits/most", {"rate": 10, "metric": "concurrent_connections"})
    gateway.listener("web", ports=["8000"], rate_limits=["few", "most"])
    gateway.listener("u", protocol="udp", ports=["8000"])
    prefilter(gateway, "in0", deny=["10.71.1.77"], source_pps={"rate": 100, "action": "ban", "ban_s": 600}, syn_cookies="auto")
    prefilter(gateway, "out0", mode="native")
    prefilter(gateway, "later.7", deny=["192.0.2.1"])
    gateway.must("POST", "bans", {"address": "192.0.2.0/24", "placement": "xdp"})
    relay, during = gateway.relay_pid(), kernel_state(lab, gateway)
    assert [name for name in during if during[name] == before[name]] == []
    assert [name for name, _ in during["xdp"]] == ["in0", "out0"]
    if killed:
        gateway.kill()
    else:
        gateway.stop()
    done = gateway.run_once("--cleanup")
    assert done.returncode == 0, done.stderr
    assert kernel_state(lab, gateway) == before
    if alive(relay):
        end_process(relay)
    for family in FAMILIES:
        assert pings(lab.client, GATEWAY[family]) == 3


def with_entries(make_gateway, n):
    """A gateway with an address set of both families; the second client is in it."""
    if not (ROOT / "build/release/bin/gatewayd").exists():
        pytest.skip("no release build here: it takes a sanitized one minutes")
    gateway = make_gateway(bpf=True, build="release")
    lines = [f"2001:db8:{i >> 16:x}:{i & 0xffff:x}::/64\n" if i % 4 == 0 else f"{100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.1\n"
             for i in range(n - 2)] + [f"{address}\n" for address in SECOND.values()]
    gateway.must("PUT", "address-sets/all", {})
    gateway.must("PUT", "address-sets/all/entries", "".join(lines).encode(), headers={"Content-Type": "text/plain"}, timeout=60)
    return gateway


@pytest.mark.own_gateway
def test_a_million_entries(lab, make_gateway):
    """The whole of an address set in a list; a change of one entry is the running program's; no more go in."""
    million = with_entries(make_gateway, 1_000_000)
    row = prefilter(million, "in1", deny=["@all"])
    found = million.must("GET", "prefilters/in1")["observed"]
    assert sum(found["entries"]["deny"].values()) == found["entries_max"] == 1_000_000
    for address in SECOND_ROUTER.values():
        assert pings(lab.client2, address) == 0
    with Drops(million, "in1") as drops, lab.client2.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_IP, 19, 1)
        made.bind(("103.2.1.1", 0))
        made.sendto(b"x", (SECOND_ROUTER[4], 9))
    assert drops.by_reason["denied"] >= 1
    for family, address in SECOND.items():
        million.must("DELETE", "address-sets/all/entries", [address], timeout=60)
        assert pings(lab.client2, SECOND_ROUTER[family]) == 3
    assert status(million, "in1")["program"] == row["program"]
    million.must("POST", "address-sets/all/entries", list(SECOND.values()), timeout=60)
    answer = million.api("PATCH", "prefilters/in1", {"deny": ["@all", "192.0.2.1"]}, timeout=60)
    assert answer.status == 422 and "1000000" in answer.text, answer
    assert pings(lab.client2, SECOND_ROUTER[4]) == 0


@pytest.mark.own_gateway
def test_a_million_sources(lab, nginx, make_gateway):
    """The same of a listener, in nft and in the relay, which takes the time it needs: who is in the set is relayed, others are
    not, and one entry more or less counts at once."""
    million = with_entries(make_gateway, amount(200_000, 1_000_000))
    for action in ("drop", "relay"):
        million.must("PUT", "listeners/web", {"ports": ["8000"], "sources": ["@all"], "action": action}, timeout=90)
    relay = million.relay_pid()
    for family, address in SECOND.items():
        assert ask(lab.client2, SERVER[family]) == f"{SERVER[family]}:8000 sees {address}"
    assert million.counters()["flows_opened"] == 2
    for family in FAMILIES:
        assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
    million.must("DELETE", "address-sets/all/entries", [SECOND[4]], timeout=60)
    assert ask(lab.client2, SERVER[4]) and ask(lab.client2, SERVER[6])
    assert million.counters()["flows_opened"] == 3
    assert relay and million.relay_pid() == relay and "killing relay" not in million.log.read_text()
