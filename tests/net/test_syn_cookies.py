"""SYN floods from sources that do not exist: real clients get through, by the kernel's cookies and by the prefilter's.

The gateway's queues are short here, so that a few hundred SYNs are a flood.
"""

import socket

import pytest

from lab.process import wait_for
from lab.seen import grow_old
from lab.segments import ACK, RST, SYN, Wire
from lab.servers import Peer
from net.test_prefilter import Drops, FAMILIES, GATEWAY, SERVER, counts, prefilter, status
from net.test_transparent import ask

SPOOFED = {4: "198.18.0.0/16", 6: "fd99::/64"}
ROUTER = {4: "10.71.1.2", 6: "fd71:1::2"}
QUEUE = 32  # of each listening socket, of which there is one for each thread and family
FLOOD = 600


@pytest.fixture
def gateway(lab, make_gateway):
    """A gateway with short queues, and a way back to the sources that do not exist."""
    old = lab.gateway.sysctl("net.core.somaxconn", QUEUE)
    for family, prefix in SPOOFED.items():
        lab.gateway.run("ip", f"-{family}", "route", "add", prefix, "via", ROUTER[family])
    try:
        yield make_gateway(bpf=True)
    finally:
        lab.gateway.sysctl("net.core.somaxconn", old)
        lab.gateway.sysctl("net.ipv4.tcp_syncookies", 1)
        for family, prefix in SPOOFED.items():
            lab.gateway.run("ip", f"-{family}", "route", "del", prefix)


@pytest.fixture
def wire(lab):
    """The client's end of its cable."""
    with Wire(lab.client, "up0", lab.gateway, "in0") as made:
        yield made


class Kernel:
    """What the gateway's kernel counts between entering and leaving: cookies sent, taken back, refused."""

    NAMES = {"sent": "TcpExtSyncookiesSent", "taken": "TcpExtSyncookiesRecv", "refused": "TcpExtSyncookiesFailed"}

    def __init__(self, lab):
        self.lab = lab

    def _now(self):
        text = self.lab.gateway.run("nstat", "-asz").stdout
        return {name: int(text.split(key)[1].split()[0]) for name, key in self.NAMES.items()}

    def __enter__(self):
        self.before = self._now()
        return self

    def __exit__(self, *_):
        for name, value in self._now().items():
            setattr(self, name, value - self.before[name])


def gets_through(lab, family, port=8000):
    """Whether a client is served by the server it asked for, which sees the client."""
    return ask(lab.client, SERVER[family], port) == f"{SERVER[family]}:{port} sees {getattr(lab.client, f'v{family}')}"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernels_cookies_hold(lab, nginx, gateway, wire, family):
    """Without them a flood shuts real clients out; with them each gets through, at a transparent listener, too."""
    gateway.listener("web", ports=["8000"])
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", 0)
    wire.flood(SPOOFED[family], SERVER[family], 8000, FLOOD)
    with pytest.raises(OSError):
        lab.client.connect(SERVER[family], 8000, timeout=0.5)
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", 1)
    with Kernel(lab) as kernel:
        wire.flood(SPOOFED[family], SERVER[family], 8000, FLOOD)
        assert all(gets_through(lab, family) for _ in range(3))
    assert kernel.sent > FLOOD / 2 and kernel.taken == 3 and kernel.refused == 0


@pytest.fixture
def takes_frames(lab, tmp_path):
    """Native mode sends the answers as frames, which a veth takes only if the other end has a program, too."""
    source = tmp_path / "pass.c"
    source.write_text('__attribute__((section("xdp"), used)) int f(void *c) { return 2; }\n'
                      'char l[] __attribute__((section("license"), used)) = "GPL";\n')
    lab.client.run("clang", "-O2", "-target", "bpf", "-c", source, "-o", tmp_path / "pass.o")
    lab.client.run("ip", "link", "set", "up0", "xdpdrv", "obj", tmp_path / "pass.o", "sec", "xdp")
    yield
    lab.client.run("ip", "link", "set", "up0", "xdpdrv", "off")


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_the_prefilter_answers_while_queues_are_full(lab, nginx, gateway, wire, takes_frames, mode):
    """auto: nothing happens before the flood; in it the stack sees hardly a SYN, and each client gets through."""
    gateway.listener("web", ports=["8000"])
    assert prefilter(gateway, mode=mode, syn_cookies="auto")["syn_cookies"] == {"state": "ready", "why": None}
    with Drops(gateway) as drops:
        assert gets_through(lab, 4) and gets_through(lab, 6)
    assert drops.by_reason == {}
    for family in FAMILIES:
        wire.flood(SPOOFED[family], SERVER[family], 8000, FLOOD)
        with Kernel(lab) as kernel, Drops(gateway) as drops:
            sent, before = 0, counts(gateway).get("syn_cookie_ok", 0)
            # One listening socket is asked for all, a while: the other may have a place for a client.
            while counts(gateway).get("syn_cookie_ok", 0) < before + 3 and sent < 20 * FLOOD:
                wire.flood(SPOOFED[family], SERVER[family], 8000, FLOOD)
                sent += FLOOD
                assert gets_through(lab, family)
        assert kernel.sent < sent * 0.3 and kernel.taken >= 3 and kernel.refused == 0
        assert drops.by_reason["syn_cookie_sent"] > sent * 0.7 and drops.by_reason["syn_cookie_ok"] == 3
    row = status(gateway)
    assert row["syn_cookies"] == {"state": "engaged", "why": None}, row
    assert 'gateway_xdp_syn_cookies_engaged{interface="in0"} 1' in gateway.api("GET", "/metrics").text
    packet = {"protocol": "tcp", "source": "198.18.77.1", "source_port": 40000, "destination": SERVER[4],
              "destination_port": 8000, "interface": "in0"}

    def answered():
        """Asked while the queue of the listening socket that is asked is full."""
        wire.flood(SPOOFED[4], SERVER[4], 8000, FLOOD)
        stages = gateway.must("POST", "explain", packet)["stages"]
        return stages[0]["verdict"] == "answer" and "cookie" in stages[0]["why"] and stages[1]["stage"] == "nft"

    wait_for(answered, 20, "an explanation that names the cookie")


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_would_be_relayed_is_answered(lab, nginx, gateway, wire, family):
    """With net.ipv4.tcp_syncookies=2 each request is; but only to what nft leads to the relay, source and all."""
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", 2)
    net, host = ("10.71.2.0/24", "10.71.2.3") if family == 4 else ("fd71:2::/64", "fd71:2::3")
    gateway.must("PUT", "rate-limits/many", {"metric": "new_connections", "rate": 1000})
    gateway.listener("web", ports=["8000-8001"], destinations=[net])
    gateway.listener("not", ports=["8001"], destinations=[net], action="bypass")
    gateway.listener("from", ports=["8000"], destinations=[host], sources=[SPOOFED[family]], action="reject")
    gateway.listener("counted", ports=["8002"], destinations=[net], rate_limits=["many"])
    row = prefilter(gateway, syn_cookies="always")
    assert row["syn_cookies"]["state"] == "ready" and "1 of 2 listeners" in row["syn_cookies"]["why"]
    own = lab.gateway.listen(GATEWAY[family], 8000)
    with own, Drops(gateway) as drops:
        assert gets_through(lab, family, 8001) and gets_through(lab, family, 8002)
        lab.client.connect(GATEWAY[family], 8000).close()
        wire.socket.send(wire.frame("198.18.0.9" if family == 4 else "fd99::9", host, 5000, 8000, SYN))
        assert wire.answer(host, 8000, 5000)[0] & RST
    assert drops.by_reason == {}
    with Kernel(lab) as kernel, Drops(gateway) as drops:
        assert all(gets_through(lab, family) for _ in range(3)) and ask(lab.client, host).startswith(f"{host}:8000 sees")
    assert kernel.taken == 4 and drops.by_reason == {"syn_cookie_sent": 4, "syn_cookie_ok": 4}
    # An ACK that brings nothing back is counted, and reset by the stack.
    with Drops(gateway) as drops:
        wire.socket.send(wire.frame(ROUTER[family], SERVER[family], 5001, 8000, ACK, ack=12345))
        assert wire.answer(SERVER[family], 8000, 5001)[0] & RST
    assert drops.by_reason == {"syn_cookie_bad": 1}


def old_prefilter(gateway, old):
    """One that gives cookies, and has been there for long, or not."""
    row = prefilter(gateway, syn_cookies="auto")
    if old:
        grow_old(row["program"])


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ports_in_time_wait(lab, gateway, wire, family, old):  # pylint: disable=too-many-arguments,too-many-positional-arguments
    """Who uses a port again whose last connection is not over yet at the gateway gets another one, in a flood too."""
    def reuse(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((ROUTER[family], 9458))

    gateway.listener("web", ports=["7203"])
    old_prefilter(gateway, old)
    with Peer(lab.server, SERVER[family], 7203, lambda made, _: (made.recv(100), made.close())):
        for _ in range(3):
            with lab.client.connect(SERVER[family], 7203, timeout=3, before=reuse) as made:
                made.sendall(b"bye")
                assert made.recv(10) == b""
            wait_for(lambda: "TIME-WAIT" in lab.gateway.run("ss", "-Htan", "sport = :7203").stdout, 3,
                     "the socket is not in TIME_WAIT")
            wire.flood(SPOOFED[family], SERVER[family], 7203, FLOOD)
    assert counts(gateway)["syn_cookie_sent"] > FLOOD


@pytest.mark.parametrize("family", FAMILIES)
def test_half_open_before_the_flood(lab, gateway, wire, family):
    """A request that is sent again, for its answer was lost, hears the same answer, which the stack remembers."""
    gateway.listener("web", ports=["8000"])
    old_prefilter(gateway, True)
    source = "198.18.200.1" if family == 4 else "fd99::c801"
    request = wire.frame(source, SERVER[family], 5003, 8000, SYN, seq=77)
    wire.socket.send(request)
    flags, sequence, _, _ = wire.answer(SERVER[family], 8000, 5003)
    assert flags & SYN and flags & ACK
    wire.flood(SPOOFED[family], SERVER[family], 8000, FLOOD)
    assert counts(gateway)["syn_cookie_sent"] > 0
    wire.lengths()
    with Drops(gateway) as drops:
        wire.socket.send(request)
        assert wire.answer(SERVER[family], 8000, 5003)[1] == sequence
    assert drops.by_reason == {}


def test_what_is_said_when_there_are_none(lab, gateway):
    """Off, refused by the kernel's setting, and less than was asked for."""
    assert prefilter(gateway)["syn_cookies"] == {"state": "off", "why": None}
    why = prefilter(gateway, syn_cookies="always")["syn_cookies"]
    assert why == {"state": "ready", "why": "not always: net.ipv4.tcp_syncookies is 1, not 2"}
    lab.gateway.sysctl("net.ipv4.tcp_syncookies", 0)
    why = status(gateway)["syn_cookies"]
    assert why == {"state": "unavailable", "why": "net.ipv4.tcp_syncookies is 0"}
