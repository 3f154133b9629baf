"""The XDP prefilter in the lab: each reason drops what it must and nothing else, and it outlives what it must."""

import contextlib
import json
import os
import shutil
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from lab.datagrams import DatagramPeer
from lab.datagrams import ask as datagram_ask
from lab.datagrams import client as datagram_client
from lab.netns import run
from lab.process import wait_for
from net.test_transparent import ask, url

pytestmark = pytest.mark.shared_gateway

SERVER = {4: "10.71.2.2", 6: "fd71:2::2"}
GATEWAY = {4: "10.71.1.1", 6: "fd71:1::1"}
CLIENT = {4: "10.71.1.2", 6: "fd71:1::2"}
FAMILIES = [4, 6]


@pytest.fixture
def gateway(make_gateway):
    """A gateway whose programs can be pinned."""
    return make_gateway(bpf=True)


def prefilter(gateway, interface="in0", **fields):
    """Creates or replaces a prefilter; its row of the status."""
    answer = gateway.api("PUT", f"prefilters/{interface}", {"interface": interface, **fields})
    if answer.status == 422 and "no right" in answer.text:
        pytest.skip(answer.text)
    assert answer.status in (200, 201), answer
    return status(gateway, interface)


def status(gateway, interface="in0"):
    """The prefilter's row of the status."""
    return next(row for row in gateway.status()["prefilters"] if row["interface"] == interface)


def counts(gateway, interface="in0"):
    """Packets by reason."""
    row = next(row for row in gateway.must("GET", "stats")["prefilters"] if row["interface"] == interface)
    return {reason: count["packets"] for reason, count in row["reasons"].items()}


class Drops:
    """What is counted between entering and leaving."""

    def __init__(self, gateway, interface="in0"):
        self.gateway, self.interface = gateway, interface

    def __enter__(self):
        self.before = counts(self.gateway, self.interface)
        return self

    def __exit__(self, *_):
        after = counts(self.gateway, self.interface)
        self.by_reason = {k: after[k] - self.before[k] for k in after if k not in ("passed", "allowed") and after[k] != self.before[k]}


def datagrams(host, family, port, n, source=None, size=20):
    """Sends datagrams to the gateway."""
    sock = host.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        if source:
            sock.setsockopt(socket.SOL_IP, 19, 1) if family == 4 else sock.setsockopt(socket.SOL_IPV6, 75, 1)
            sock.bind((source, 0))
        for _ in range(n):
            sock.sendto(b"x" * size, (GATEWAY[family], port))


def pings(host, address, n=3, size=56):
    """How many of n pings are answered."""
    v6 = ":" in address
    with host.entered():
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 58 if v6 else 1)
    marker = os.urandom(8)
    with sock:
        for number in range(n):
            head = struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0x6777, number)
            data = head + marker + bytes(size - len(marker))
            if not v6:
                words = sum(struct.unpack(f"!{len(data) // 2}H", data))
                words = (words & 0xffff) + (words >> 16)
                data = data[:2] + struct.pack("!H", ~(words + (words >> 16)) & 0xffff) + data[4:]
            sock.sendto(data, (address, 0))
        answers, deadline = set(), time.monotonic() + 1
        while len(answers) < n and time.monotonic() < deadline:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                packet = sock.recv(65536)
            except TimeoutError:
                break
            packet = packet if v6 else packet[20:]
            if packet[0] == (129 if v6 else 0) and packet[8:16] == marker:
                answers.add(packet[6:8])
    return len(answers)


@pytest.mark.parametrize("mode", ["auto", "generic", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_deny_and_allow(lab, nginx, gateway, mode, family):
    """In each mode: a denied source is dropped and counted, an allowed one in it is not; the relay works on."""
    gateway.listener("web", ports=["8000"])
    row = prefilter(gateway, mode=mode, deny=["203.0.113.0/24"], drop_bogons=True)
    assert row["state"] == "on" and row["pinned"]
    assert row["mode"] == ("native" if mode == "native" else "generic"), row
    assert bool(row["why"]) == (mode == "auto"), row
    assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
    prefilter(gateway, mode=mode, deny=["10.71.1.0/24", "fd71:1::/64"])
    with Drops(gateway) as drops:
        datagrams(lab.client, family, 9, 5)
    assert drops.by_reason == {"denied": 5}
    prefilter(gateway, mode=mode, deny=["10.71.1.0/24", "fd71:1::/64"], allow=["10.71.1.2", "fd71:1::2", "fe80::/10"])
    with Drops(gateway) as drops:
        assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
    assert drops.by_reason == {} and counts(gateway)["allowed"] > 0


def test_entries_are_changed_one_by_one(lab, gateway):
    """An address set in a list: what is added to it is dropped, what is taken out passes, by the same program."""
    entries = "".join(f"172.16.{i >> 8 & 255}.{i & 255}\n198.{18 + (i >> 16)}.{i >> 8 & 255}.{i & 255}\n" for i in range(50000)).encode()
    gateway.must("PUT", "address-sets/bad", {})
    gateway.must("PUT", "address-sets/bad/entries", entries, headers={"Content-Type": "text/plain"})
    program = prefilter(gateway, deny=["@bad"])["program"]
    assert pings(lab.client, GATEWAY[4]) == 3
    gateway.must("POST", "address-sets/bad/entries", ["10.71.1.2"])
    with Drops(gateway) as drops:
        assert pings(lab.client, GATEWAY[4]) == 0
    assert drops.by_reason == {"denied": 3}
    gateway.must("DELETE", "address-sets/bad/entries", ["10.71.1.2"])
    assert pings(lab.client, GATEWAY[4]) == 3
    assert status(gateway)["program"] == program


@pytest.mark.parametrize("family", FAMILIES)
def test_fragments(lab, gateway, family):
    """Fragments go, whole packets of the same kind do not."""
    prefilter(gateway, drop_fragments=True)
    with Drops(gateway) as drops:
        assert pings(lab.client, GATEWAY[family], 3, 1000) == 3
    assert drops.by_reason == {}
    with Drops(gateway) as drops:
        assert pings(lab.client, GATEWAY[family], 2, 2000) == 0
    assert drops.by_reason == {"fragment": 4}


def test_bogons(lab, gateway):
    """Sources that nobody can have."""
    prefilter(gateway, drop_bogons=True)
    with Drops(gateway) as drops:
        datagrams(lab.client, 4, 9, 3, source="240.1.2.3")
        assert pings(lab.client, GATEWAY[4]) == 3
    assert drops.by_reason == {"bogon": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_path_mtu_reaches_the_relay(lab, gateway, family):
    """With everything dropped that can be, an upload over a narrow path is not hung."""
    server = lab.far.listen("::" if family == 6 else "0.0.0.0", 8100)
    gateway.listener("far", ports=["8100"])
    for interface in ("in0", "out1"):
        prefilter(gateway, interface, drop_fragments=True, drop_bogons=True, only_listener_ports=interface == "in0")
    with server, lab.client.connect("fd71:4::2" if family == 6 else "10.71.4.2", 8100) as connection:
        accepted, _ = server.accept()
        with accepted:
            sender = threading.Thread(target=connection.sendall, args=(b"x" * 300000,))
            sender.start()
            accepted.settimeout(10)
            got = 0
            while got < 300000:
                got += len(accepted.recv(65536))
            sender.join()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_listener_ports(lab, nginx, gateway, family):
    """Ports of listeners, of the gateway's own sockets and return traffic pass, on both sides of it; others do not."""
    gateway.listener("web", ports=["8000"])
    gateway.listener("echo", protocol="udp", ports=["8003"])
    prefilter(gateway, "in0", only_listener_ports=True)
    prefilter(gateway, "out0", only_listener_ports=True)
    own = lab.gateway.listen(GATEWAY[family], 2222)
    with own, Drops(gateway) as drops, Drops(gateway, "out0") as outside:
        assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
        with lab.client.connect(GATEWAY[family], 2222):
            pass
        assert pings(lab.client, GATEWAY[family]) == 3
        # A connection of the gateway itself.
        assert lab.gateway.run("curl", "-sS", "-m", 5, url(SERVER[family], 8001)).stdout
        # Datagrams likewise, some of which take the short cut.
        with DatagramPeer(lab.server, SERVER[family], 8003), DatagramPeer(lab.server, SERVER[family], 8004), \
                datagram_client(lab.client, SERVER[family], 8003) as flow, datagram_client(lab.gateway, SERVER[family], 8004) as ours:
            assert [datagram_ask(flow, b"%d" % number) for number in range(40)] == [b"%d" % number for number in range(40)]
            assert datagram_ask(ours) == b"?"
    assert drops.by_reason == {} and outside.by_reason == {}
    with Drops(gateway) as drops:
        datagrams(lab.client, family, 9, 4)
        with pytest.raises(OSError):
            lab.client.connect(SERVER[family], 8001, timeout=0.5)
    assert drops.by_reason.pop("port") >= 5 and not drops.by_reason
    gateway.listener("more", ports=["8001"])
    assert ask(lab.client, SERVER[family], 8001).startswith(f"{SERVER[family]}:8001 sees")


@pytest.mark.parametrize("family", FAMILIES)
def test_rate_and_ban(lab, gateway, family):
    """Of a burst what is too much goes; another client is not hurt; with a ban nothing passes until it is over."""
    prefilter(gateway, source_pps={"rate": 1, "burst": 50})
    with Drops(gateway) as drops:
        datagrams(lab.client, family, 9, 200)
    # Besides the datagrams the client has a few of its own: neighbour discovery.
    assert 135 <= drops.by_reason["rate"] <= 155, drops.by_reason
    assert pings(lab.client2, "fd71:5::1" if family == 6 else "10.71.5.1") == 3
    prefilter(gateway, source_pps={"rate": 2, "burst": 50, "action": "ban", "ban_s": 2})
    datagrams(lab.client, family, 9, 200)
    banned = counts(gateway)["banned"]
    assert banned > 0 and status(gateway)["bans"] == 1
    gateway.kill()
    assert pings(lab.client, GATEWAY[family], 1) == 0
    gateway.start()
    assert status(gateway)["bans"] in (0, 1)
    wait_for(lambda: pings(lab.client, GATEWAY[family], 1) == 1, 10, "the end of the ban")
    assert counts(gateway)["banned"] > banned, "counted while the daemon was dead, too"


def test_it_outlives_the_daemon(lab, gateway):
    """kill -9 of the daemon: it filters on; the next one takes it over, and a change of it needs no gap; cleanup ends it."""
    prefilter(gateway, deny=["10.71.1.0/24"])
    gateway.kill()
    assert pings(lab.client, GATEWAY[4], 2) == 0 and pings(lab.client, GATEWAY[6], 2) == 2
    gateway.start()
    assert status(gateway)["state"] == "on" and counts(gateway)["denied"] >= 2
    assert gateway.status()["applied"]["xdp"] == gateway.status()["revision"]
    gateway.stop()
    assert pings(lab.client, GATEWAY[4], 2) == 0
    gateway.run_once("--cleanup")
    assert pings(lab.client, GATEWAY[4], 2) == 2
    assert "xdp" not in lab.gateway.run("ip", "link", "show", "in0").stdout
    assert not Path(gateway.bpf / "gatewayd").exists()


def test_a_prefilter_that_goes_while_no_daemon_runs(lab, gateway):
    """A deleted or disabled one leaves nothing."""
    prefilter(gateway, deny=["10.71.1.0/24"])
    gateway.must("PATCH", "prefilters/in0", {"enabled": False})
    assert gateway.status()["prefilters"] == [] and pings(lab.client, GATEWAY[4], 1) == 1
    gateway.must("PATCH", "prefilters/in0", {"enabled": True})
    assert pings(lab.client, GATEWAY[4], 1) == 0
    gateway.must("DELETE", "prefilters/in0")
    assert pings(lab.client, GATEWAY[4], 1) == 1
    assert not Path(gateway.bpf / "gatewayd/xdp/in0").exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["generic", "native"])
def test_no_packet_is_lost_or_unfiltered_during_a_change(lab, gateway, mode, family):
    """Under load, programs are replaced, entries are changed one by one, and the daemon is killed and started again: what must
    pass passes, and what must not never does."""
    kind, bad_address, bits = (socket.AF_INET, "10.71.1.77", 24) if family == 4 else (socket.AF_INET6, "fd71:1::77", 64)
    lab.client.run("ip", "addr", "add", f"{bad_address}/{bits}", "dev", "up0", *(["nodad"] if family == 6 else []))
    try:
        deny = [bad_address]
        prefilter(gateway, mode=mode, deny=deny)
        receiver = lab.gateway.socket(kind, socket.SOCK_DGRAM)
        receiver.bind(("::" if family == 6 else "0.0.0.0", 7777))
        receiver.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        good, bad = (lab.client.socket(kind, socket.SOCK_DGRAM) for _ in range(2))
        good.bind((CLIENT[family], 0))
        bad.bind((bad_address, 0))
        sent, stop = [0], threading.Event()

        def send():
            while not stop.is_set():
                good.sendto(b"good", (GATEWAY[family], 7777))
                bad.sendto(b"bad", (GATEWAY[family], 7777))
                sent[0] += 1
                time.sleep(0.0003)

        sender = threading.Thread(target=send)
        sender.start()
        programs = []
        for i in range(10):
            programs.append(prefilter(gateway, mode=mode, deny=deny, source_pps={"rate": 10000000 + i})["program"])
            deny.append(f"192.0.2.{i}" if i % 2 else f"2001:db8::{i}")
            programs.append(prefilter(gateway, mode=mode, deny=deny, source_pps={"rate": 10000000 + i})["program"])
        gateway.kill()
        time.sleep(0.1)
        gateway.start()
        programs.append(status(gateway)["program"])
        stop.set()
        sender.join()
        with receiver, good, bad:
            receiver.settimeout(0.3)
            got = []
            while True:
                try:
                    got.append(receiver.recv(16))
                except TimeoutError:
                    break
        # Another rate is another program, another entry is not; but for the first of a family, before which it asks for none.
        assert len(set(programs[::2])) == 11 and programs[4:20:2] == programs[5:20:2] and sent[0] > 100
        assert got.count(b"bad") == 0 and got.count(b"good") == sent[0]
    finally:
        lab.client.run("ip", "addr", "del", f"{bad_address}/{bits}", "dev", "up0")


def test_an_interface_that_comes_back_gets_it_again(lab, gateway):
    """Waiting, on, gone, on."""
    row = prefilter(gateway, "pf0", deny=["192.0.2.0/24"])
    assert row["state"] == "waiting" and "waiting" in row["why"]
    for _ in range(2):
        lab.gateway.run("ip", "link", "add", "pf0", "type", "veth", "peer", "name", "pf1")
        lab.gateway.run("ip", "link", "set", "pf0", "up")
        wait_for(lambda: status(gateway, "pf0")["state"] == "on", 10, "the program on the interface")
        lab.gateway.run("ip", "link", "del", "pf0")
        wait_for(lambda: status(gateway, "pf0")["state"] == "waiting", 10, "the interface's end")
    # A new name is another interface.
    lab.gateway.run("ip", "link", "add", "pf0", "type", "veth", "peer", "name", "pf1")
    wait_for(lambda: status(gateway, "pf0")["state"] == "on", 10, "the program on the interface")
    lab.gateway.run("ip", "link", "set", "pf0", "name", "pf9")
    try:
        wait_for(lambda: "xdp" not in lab.gateway.run("ip", "link", "show", "pf9").stdout, 10, "the program's end")
    finally:
        lab.gateway.run("ip", "link", "del", "pf9")


@contextlib.contextmanager
def somebody(lab, directory, interface="in0", name="their_own"):
    """A program of somebody else, of this name, on an interface in the stack; the file it is in."""
    source = directory / f"{name}.c"
    source.write_text(f'__attribute__((section("xdp"), used)) int {name}(void *c) {{ return 2; }}\n'
                      'char l[] __attribute__((section("license"), used)) = "GPL";\n')
    lab.gateway.run("clang", "-O2", "-target", "bpf", "-c", source, "-o", directory / f"{name}.o")
    lab.gateway.run("ip", "link", "set", interface, "xdpgeneric", "obj", directory / f"{name}.o", "sec", "xdp")
    try:
        yield directory / f"{name}.o"
    finally:
        lab.gateway.run("ip", "link", "set", interface, "xdpgeneric", "off")


def test_a_program_of_somebody_else_stays(lab, gateway, tmp_path):
    """A foreign program is not replaced: the write is refused in words, and nothing of it is in force."""
    with somebody(lab, tmp_path):
        before = gateway.status()["revision"]
        answer = gateway.api("PUT", "prefilters/in0", {"interface": "in0", "deny": ["10.71.1.0/24"]})
        assert answer.status == 422 and "somebody else" in answer.text, answer
        assert gateway.status()["revision"] == before and gateway.status()["prefilters"] == []
        assert gateway.api("GET", "prefilters/in0").status == 404
        assert "xdpgeneric" in lab.gateway.run("ip", "link", "show", "in0").stdout
    assert prefilter(gateway, deny=["10.71.1.0/24"])["state"] == "on"
    # And the other way round: ours is on a link, which nobody takes off by the interface.
    assert lab.gateway.run("ip", "link", "set", "in0", "xdpgeneric", "off", check=False).returncode != 0
    assert status(gateway)["state"] == "on"


def red(gateway):
    """Details of the doctor's check of prefilters, if it is red."""
    check = next(check for check in gateway.must("GET", "doctor")["checks"] if check["name"] == "prefilters")
    return None if check["ok"] else check["detail"] + check["fix"]


@pytest.fixture
def spare(lab):
    """An interface of the gateway that nothing else needs; called, it makes the daemon look at it."""
    lab.gateway.run("ip", "link", "add", "pf8", "type", "veth", "peer", "name", "pf8b")

    lab.gateway.run("ip", "link", "set", "pf8", "up")

    def poke():
        lab.gateway.run("ip", "addr", "add", "192.0.2.9/32", "dev", "pf8")
        lab.gateway.run("ip", "addr", "del", "192.0.2.9/32", "dev", "pf8")

    yield poke
    lab.gateway.run("ip", "link", "del", "pf8")


def test_somebody_was_there_before_the_daemon(lab, gateway, spare, tmp_path):
    """The state says who it is, the doctor is red, the gateway is not ready, and all else works; when it has gone, ours
    comes. libxdp's dispatcher is known by its pins, and named with what is behind it."""
    prefilter(gateway, "pf8", deny=["10.71.1.0/24"])
    assert red(gateway) is None
    gateway.stop()
    shutil.rmtree(gateway.bpf / "gatewayd/xdp/pf8")
    with somebody(lab, tmp_path, "pf8") as program:
        gateway.start(ready=False)
        wait_for(lambda: gateway.status()["relay"]["state"] == "running", 10, "the relay")
        row = status(gateway, "pf8")
        assert (row["state"], row["mode"], row["program"]) == ("failed", "off", None)
        assert row["foreign"] and f"somebody else (id {row['foreign']}" in row["why"]
        assert row["why"] in red(gateway) and "dev pf8 " in red(gateway)
        applied = gateway.status()["applied"]
        assert applied["nft"] == gateway.status()["revision"] > applied["xdp"]
        assert gateway.api("GET", "/readyz").status == 503 and pings(lab.client, GATEWAY[4], 1) == 1
        gateway.listener("l", ports=["9"])
        warned = gateway.must("PUT", "rate-limits/shut?dry_run=true", {"rate": 10, "action": "ban", "escalate": {"after": 99}})
        assert [one["code"] for one in warned["warnings"]] == ["prefilter_failed"] and "somebody else" in warned["warnings"][0]["detail"]
        index = lab.gateway.run("cat", "/sys/class/net/pf8/ifindex").stdout.strip()
        pins = gateway.bpf / f"xdp/dispatch-{index}-{row['foreign']}"
        pins.mkdir(parents=True)
        run("bpftool", "prog", "load", program, pins / "prog0-prog", "type", "xdp")
        try:
            spare()
            wait_for(lambda: "dispatcher" in status(gateway, "pf8")["why"], 10, "the dispatcher recognised")
            assert status(gateway, "pf8")["why"].endswith("pf8 --all makes room), with their_own")
        finally:
            (pins / "prog0-prog").unlink()
            pins.rmdir()
    spare()
    wait_for(lambda: status(gateway, "pf8")["state"] == "on", 10, "our program")
    assert red(gateway) is None and gateway.api("GET", "/readyz").status == 200
    assert gateway.must("PUT", "prefilters/pf7?dry_run=true", {})["warnings"][0]["code"] == "no_interface"


def test_a_dry_run_leaves_nothing(lab, gateway):
    """The program is loaded and verified, and gone."""
    answer = gateway.api("PUT", "prefilters/in0?dry_run=true", {"interface": "in0", "deny": ["10.71.1.0/24"]})
    assert answer.status == 200, answer
    assert gateway.status()["prefilters"] == [] and pings(lab.client, GATEWAY[4], 1) == 1
    assert not Path(gateway.bpf / "gatewayd/xdp/in0").exists()


def test_drops_are_told(lab, gateway):
    """As events, a few of many; and as metrics."""
    prefilter(gateway, deny=["10.71.1.0/24"])
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    with connection:
        connection.connect(str(gateway.socket))
        connection.sendall(b"GET /api/v1/events?types=drop HTTP/1.1\r\nHost: x\r\n\r\n")
        stream = connection.recv(4096)
        datagrams(lab.client, 4, 99, 500)
        ended = time.monotonic() + 1.5
        while time.monotonic() < ended or b"data: " not in stream:
            with contextlib.suppress(TimeoutError):
                connection.settimeout(0.2)
                stream += connection.recv(4096)
    event = json.loads(stream.split(b"data: ")[1].split(b"\n")[0])
    assert event["reason"] == "denied" and event["source"] == "10.71.1.2" and event["destination"] == "10.71.1.1"
    assert (event["destination_port"], event["protocol"], event["interface"]) == (99, 17, "in0")
    # Five a second of each reason and processor; a second may have ended meanwhile.
    assert 1 <= stream.count(b"event: drop") <= min(20, 5 * os.cpu_count()) * 2 and counts(gateway)["denied"] >= 500
    text = gateway.api("GET", "/metrics").text
    assert f'gateway_xdp_packets_total{{interface="in0",reason="denied"}} {counts(gateway)["denied"]}' in text


def test_without_a_bpf_file_system(lab, make_gateway):
    """It works, unpinned, and says so."""
    gateway = make_gateway(bpf=False)
    row = prefilter(gateway, deny=["10.71.1.0/24"])
    assert row["state"] == "on" and not row["pinned"]
    assert pings(lab.client, GATEWAY[4], 1) == 0
    gateway.stop()
    assert pings(lab.client, GATEWAY[4], 1) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transparent_listener_takes_the_kernels_cookies(lab, nginx, gateway, family):
    """With tcp_syncookies=2 each connection comes through a cookie: the relay's sockets accept its ACK."""
    gateway.listener("web", ports=["8000"])

    def taken():
        return int(lab.gateway.run("nstat", "-asz", "TcpExtSyncookiesRecv").stdout.split("TcpExtSyncookiesRecv")[1].split()[0])

    before = taken()
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", 2)
    try:
        for _ in range(3):
            assert ask(lab.client, SERVER[family]).startswith(f"{SERVER[family]}:8000 sees")
    finally:
        lab.gateway.sysctl("net.ipv4.tcp_syncookies", 1)
    assert taken() >= before + 3


def test_what_is_observed_and_its_own_bans(lab, gateway):
    """Beside what is configured: state, mode, counts, sizes. Whom it bans itself is in the list of bans, and can be let in."""
    fields = {"source_pps": {"rate": 500, "burst": 50, "action": "ban", "ban_s": 600}, "deny": ["203.0.113.0/24", "2001:db8::/32"]}
    prefilter(gateway, **fields)
    assert gateway.must("GET", "bans") == {"items": [], "next": None, "total": 0}
    for family in FAMILIES:
        datagrams(lab.client, family, 9, 1500)
    found = wait_for(lambda: answer if (answer := gateway.must("GET", "bans"))["total"] == 2 else None, 10, "both bans")["items"]
    assert [ban["address"] for ban in found] == [CLIENT[4], CLIENT[6]]
    for ban in found:
        assert (ban["actor"], ban["prefilter"], ban["interfaces"], ban["placement"]) == ("prefilter", "in0", ["in0"], "xdp")
        assert ban["rate_limit"] is None and "in0" in ban["reason"]
        assert seconds(ban["expires_at"]) - seconds(ban["created_at"]) == 600
    first = gateway.must("GET", "bans?limit=1")
    assert first["items"][0]["address"] == first["next"] == CLIENT[4] and first["total"] == 2
    assert [ban["address"] for ban in gateway.must("GET", f"bans?after={first['next']}")["items"]] == [CLIENT[6]]
    # One that somebody bans as well is told once, by who said so.
    gateway.must("POST", "bans", {"address": CLIENT[4], "reason": "enough"})
    gateway.must("POST", "bans", {"address": "10.71.1.0/24"})
    found = gateway.must("GET", "bans")
    assert found["total"] == 3 and [(ban["reason"], ban["prefilter"]) for ban in found["items"][:2]] == [("", None), ("enough", "in0")]
    expect_observed(gateway)
    for family in FAMILIES:
        assert gateway.api("DELETE", f"bans/{CLIENT[family]}").status == 204
        assert gateway.api("GET", f"bans/{CLIENT[family]}").status == 404
        wait_for(lambda: pings(lab.client, GATEWAY[family], 1) == 1, 10, "the way in")
    assert status(gateway)["bans"] == 0


def seconds(text):
    """A time as the API writes it, in seconds."""
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))


def expect_observed(gateway):
    """What GET has of the prefilter of in0, alone and in the list, and that what was got can be put."""
    answer = gateway.api("GET", "prefilters/in0")
    seen = answer.json["observed"]
    assert (seen["state"], seen["mode"], seen["pinned"], seen["bans"], seen["foreign"]) == ("on", "generic", True, 2, None)
    assert "veth" in seen["why"] and seen["program"] and seen["generation"] == gateway.status()["revision"]
    assert seen["entries"] == {"deny": {"ipv4": 1, "ipv6": 1}, "allow": {"ipv4": 0, "ipv6": 0}}
    assert seen["reasons"]["rate"]["packets"] > 0 and seen["reasons"]["banned"]["packets"] > 1000
    listed = gateway.must("GET", "prefilters")["items"]
    assert [row["interface"] for row in listed] == ["in0"] and listed[0]["observed"]["bans"] == 2
    again = gateway.api("GET", "prefilters/in0", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 200 and again.json["observed"]["program"] == seen["program"]
    assert gateway.api("PUT", "prefilters/in0", answer.json).status == 200
    assert gateway.must("GET", "prefilters/in0")["observed"]["program"] == seen["program"]
    assert gateway.must("PUT", "prefilters/pf7", {})["observed"]["state"] == "waiting"
    off = gateway.must("PATCH", "prefilters/pf7", {"enabled": False})["observed"]
    assert (off["state"], off["entries"], off["reasons"]) == ("off", None, None)


def test_what_waits_is_told_once(lab, make_gateway):
    """A prefilter of an interface that is not there: one line, not one for each revision; and again when it has come and gone."""
    gateway = make_gateway()
    gateway.must("PUT", "prefilters/later", {"interface": "later"})
    for port in ("7801", "7802", "7803"):
        gateway.listener("web", ports=[port])

    def told():
        return gateway.log.read_text().count("prefilter of later is not in force: waiting for interface")
    assert told() == 1
    lab.gateway.run("ip", "link", "add", "later", "type", "veth", "peer", "name", "later1")
    wait_for(lambda: "prefilter of later: generic" in gateway.log.read_text(), 10, "in force")
    lab.gateway.run("ip", "link", "del", "later")
    wait_for(lambda: told() == 2, 10, "told again")
    gateway.listener("web", ports=["7804"])
    assert told() == 2
