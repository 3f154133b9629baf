"""A listener relays, and nobody on either side can tell: addresses, destinations, pools."""

import socket

import pytest

from lab import servers
from lab.process import in_threads, wait_for

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVERS = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
TARGETS = {"v4": ["10.71.2.3", "10.71.2.4", "10.71.2.5"], "v6": ["fd71:2::3", "fd71:2::4", "fd71:2::5"]}


def url(address, port=8000, path="/whoami"):
    """A URL with the address in brackets where it must have them."""
    return f"http://[{address}]:{port}{path}" if ":" in address else f"http://{address}:{port}{path}"


def ask(host, address, port=8000, path="/whoami"):
    """What nginx answers to a request from a host."""
    return host.run("curl", "-sS", "-m", 5, url(address, port, path), check=False).stdout.strip()


def held_sockets(lab, port):
    """The gateway's own established sockets towards or from a port, as (local, peer) pairs."""
    text = lab.gateway.run("ss", "-Htn", "state", "established", f"( sport = :{port} or dport = :{port} )").stdout
    return [tuple(line.split()[2:4]) for line in text.splitlines()]


@pytest.mark.parametrize("family", FAMILIES)
def test_own_destination(lab, nginx, gateway, family):
    """Without an upstream the flow goes where the client wanted, and the server sees the client."""
    gateway.listener("web", ports=["8000"])
    client = getattr(lab.client, family)
    for address in (SERVERS[family], TARGETS[family][0]):
        assert ask(lab.client, address, path=f"/whoami?own-{family}") == f"{address}:8000 sees {client}"
    assert nginx.wait_line(f"/whoami?own-{family}").startswith(client + " ")
    with lab.client.connect(SERVERS[family], 8000):
        # Both halves of the flow end on the gateway: it relays, it does not merely forward.
        wait_for(lambda: len(held_sockets(lab, 8000)) == 2, 5, "both halves of the flow on the gateway")


@pytest.mark.parametrize("family", FAMILIES)
def test_client_sees_the_server_it_asked_for(lab, nginx, gateway, family):
    """The client's socket knows only the address it connected to, also when a target elsewhere answers."""
    gateway.upstream("pool", [(TARGETS[family][0], 8001)])
    gateway.listener("web", ports=["8000"], upstream="pool")
    with lab.client.connect(SERVERS[family], 8000) as connection:
        connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        answer = connection.recv(4096)
        assert connection.getpeername()[0] == SERVERS[family]
        assert f"{TARGETS[family][0]}:8001 sees {getattr(lab.client, family)}".encode() in answer


@pytest.mark.parametrize("family", FAMILIES)
def test_round_robin(lab, nginx, gateway, family):
    """New flows go to the targets in turn; port 0 keeps the port that was asked for.

    Each thread of the relay keeps its own turn, so shares may differ by the number of threads, and no more."""
    gateway.upstream("pool", [(address, 0) for address in TARGETS[family]])
    gateway.listener("web", ports=["8000"], upstream="pool")
    answers = [ask(lab.client, SERVERS[family]).split(" sees ")[0] for _ in range(30)]
    assert set(answers) == {f"{address}:8000" for address in TARGETS[family]}
    shares = [answers.count(a) for a in set(answers)]
    assert max(shares) - min(shares) <= gateway.status()["relay"]["threads"], shares


def test_weights_and_admin_state(lab, nginx, gateway):
    """Shares follow the weights; a target in drain or down gets nothing new."""
    a, b, c = TARGETS["v4"]
    gateway.upstream("pool", [{"address": a, "port": 0, "weight": 3}, {"address": b, "port": 0, "weight": 1},
                              {"address": c, "port": 0, "admin_state": "drain"}])
    gateway.listener("web", ports=["8000"], upstream="pool")
    answers = [ask(lab.client, SERVERS["v4"]).split(":")[0] for _ in range(12)]
    assert (answers.count(a), answers.count(b), answers.count(c)) in [(9, 3, 0), (8, 4, 0), (10, 2, 0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_source_address_gateway(lab, nginx, gateway, family):
    """With source_address gateway the server sees the gateway. The relay's socket is a transparent one all the same, for
    which the ruleset does not search in all its maps."""
    gateway.listener("web", ports=["8000"], source_address="gateway")
    seen = ask(lab.client, SERVERS[family]).split(" sees ")[1]
    assert seen == {"v4": "10.71.2.1", "v6": "fd71:2::1"}[family]
    with lab.client.connect(SERVERS[family], 8000):
        def to_server():
            return lab.gateway.run("ss", "-Htn", "--inet-sockopt", "state", "established", "dport", "=", "8000").stdout
        wait_for(to_server, 5, "a relayed flow")
        assert "transparent" in to_server(), to_server()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_matched(lab, nginx, gateway, family):
    """Sources, destinations, ports and interfaces select; everything else is forwarded as if we were not there."""
    prefix = {"v4": "10.71.2.2/32", "v6": "fd71:2::2/128"}[family]
    source = {"v4": "10.71.1.0/24", "v6": "fd71:1::/64"}[family]
    gateway.listener("web", ports=["8000-8001"], destinations=[prefix], sources=[source], interfaces=["in0"])

    def relayed(host, address, port):
        with host.connect(address, port):
            return len(held_sockets(lab, port)) > 0

    assert wait_for(lambda: relayed(lab.client, SERVERS[family], 8000), 5, "a relayed flow")
    assert relayed(lab.client, SERVERS[family], 8001)
    wait_for(lambda: not held_sockets(lab, 8000) and not held_sockets(lab, 8001), 5, "the end of these flows")
    assert not relayed(lab.client, SERVERS[family], 8002), "port"
    assert not relayed(lab.client, TARGETS[family][0], 8000), "destination"
    assert not relayed(lab.client2, SERVERS[family], 8000), "source and interface"
    assert ask(lab.client2, SERVERS[family]).endswith(getattr(lab.client2, family))


def test_precedence(lab, nginx, gateway):
    """The more specific destination wins over the wider one, whatever the order of creation."""
    gateway.upstream("wide", [(TARGETS["v4"][0], 0)])
    gateway.upstream("narrow", [(TARGETS["v4"][1], 0)])
    gateway.listener("narrow", ports=["8000"], destinations=["10.71.2.2/32"], upstream="narrow")
    gateway.listener("wide", ports=["8000"], destinations=["10.71.2.0/24"], upstream="wide")
    assert ask(lab.client, "10.71.2.2").startswith(TARGETS["v4"][1])
    assert ask(lab.client, "10.71.2.5").startswith(TARGETS["v4"][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_reject_drop_bypass(lab, nginx, gateway, family):
    """The other actions: refused at once, silence, forwarded untouched."""
    gateway.listener("r", ports=["8000"], action="reject")
    gateway.listener("d", ports=["8001"], action="drop")
    gateway.listener("b", ports=["8002"], action="bypass")
    with pytest.raises(ConnectionRefusedError):
        lab.client.connect(SERVERS[family], 8000)
    with pytest.raises(socket.timeout):
        lab.client.connect(SERVERS[family], 8001, timeout=1.2)
    with lab.client.connect(SERVERS[family], 8002):
        assert held_sockets(lab, 8002) == []


def test_tls_passes(lab, gateway):
    """A TLS session through the gateway, verified by the client."""
    _, certificate = servers.tls_server(lab, lab.server, 4433)
    gateway.listener("tls", ports=["4433"])
    done = lab.client.run("curl", "-sS", "-m", 10, "--cacert", certificate, "--resolve", "lab.test:4433:10.71.2.2",
                          "https://lab.test:4433/")
    assert "TLSv1.3" in done.stdout


@pytest.mark.parametrize("mover", ["copy", "splice"])
def test_iperf(lab, make_gateway, figure, mover):
    """iperf3 both ways, as a program that was not written for this test."""
    servers.iperf_server(lab, lab.server, 5300 + (mover == "copy"))
    gateway = make_gateway(mover=mover)
    gateway.listener("iperf", ports=["5300-5301"])
    for direction in ([], ["-R"]):
        done = lab.client.run("iperf3", "-c", lab.server.v4, "-p", 5300 + (mover == "copy"), "-t", 1, "-J", *direction)
        speed = float(done.stdout.split('"sum_received"')[1].split('"bits_per_second":')[1].split(",")[0]) / 1e9
        figure(f"iperf3 {mover} {' '.join(direction)}", f"{speed:.2f} Gbit/s (sanitized build)")
        assert speed > 0.05


def test_many_at_once(lab, nginx, gateway):
    """200 clients' connections open at the same time, each answered on its own connection."""
    gateway.listener("web", ports=["8000"])

    def one(number):
        with lab.client.connect("10.71.2.2", 8000) as connection:
            connection.sendall(f"GET /whoami?{number} HTTP/1.0\r\n\r\n".encode())
            return b"sees 10.71.1.2" in connection.recv(4096)

    assert all(in_threads([lambda n=n: one(n) for n in range(200)]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.own_gateway
def test_a_failure_is_told_with_whose_it_is(lab, gateway, family):
    """The log says which client wanted to go where, and which target failed; nothing of lines that were left out if none was."""
    server = SERVERS[family]
    gateway.listener("nobody", ports=["7899"])
    assert ask(lab.client, server, 7899) == ""
    where, client = (f"[{server}]:7899", f"[{lab.client.v6}]:") if family == "v6" else (f"{server}:7899", f"{lab.client.v4}:")
    line = wait_for(lambda: next((one for one in gateway.log.read_text().splitlines() if "connect_failed" in one), None), 10, "told")
    assert "Connection refused" in line and f"client {client}" in line and f"to {where}" in line
    assert "more since" not in line


@pytest.mark.own_gateway
def test_a_refusal_is_told_with_whose_it_is(lab, gateway):
    """Where there is no target, the line says so."""
    gateway.upstream("none", [("10.71.2.3", 8000)])
    gateway.must("PATCH", "upstreams/none/targets/10.71.2.3:8000", {"admin_state": "down"})
    gateway.listener("nobody", ports=["7899"], upstream="none")
    assert ask(lab.client, SERVERS["v4"], 7899) == ""
    line = wait_for(lambda: next((one for one in gateway.log.read_text().splitlines() if "refused_no_target" in one), None), 10, "told")
    assert f"client {lab.client.v4}:" in line and line.endswith(f"to {SERVERS['v4']}:7899")
    gateway.must("PUT", "upstreams/none", {"targets": [{"address": "10.71.2.4", "port": 7898}]})
    assert ask(lab.client, SERVERS["v4"], 7899) == ""
    wait_for(lambda: f"to {SERVERS['v4']}:7899, target 10.71.2.4:7898" in gateway.log.read_text(), 10, "told with its target")


@pytest.mark.own_gateway
def test_nobody_is_warned_of_what_nobody_asked_for(lab, gateway):
    """That connections go past a relay that is not there is told where a listener says so, and not at each start."""
    assert "past it" not in gateway.log.read_text()
    gateway.listener("web", ports=["8000"], on_worker_down="direct")
    gateway.break_relay()
    try:
        wait_for(lambda: "no relay serves: connections of direct listeners go past it" in gateway.log.read_text(), 15, "told")
    finally:
        gateway.mend_relay()
