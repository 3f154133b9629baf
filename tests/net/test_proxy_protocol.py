"""PROXY headers: HAProxy and nginx read what is sent, and send what is taken; bytes stay exact in every mover."""

import socket
import statistics
import struct
import threading
import time
from pathlib import Path

import pytest

from lab import proxyproto, servers, traffic
from lab.datagrams import DatagramPeer, client as udp_client
from lab.process import in_threads, wait_for
from lab.proxyproto import write
from net.control import fastest_quarter

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
TARGET = {"v4": "10.71.2.3", "v6": "fd71:2::3"}
CLIENT = {"v4": "10.71.1.2", "v6": "fd71:1::2"}
CLIENT2 = {"v4": "10.71.5.2", "v6": "fd71:5::2"}
FRONT = {"v4": "10.71.1.0/24", "v6": "fd71:1::/64"}
TRAFFIC = 9750
HELLOS = Path(__file__).parents[1] / "fuzz" / "corpus" / "first_tls"
HELLO = (HELLOS / "openssl_tls13").read_bytes()


def counters(gateway, *names):
    """Sums of the relay's counters."""
    found = gateway.counters()
    return tuple(found[name] for name in names)


def bracketed(address):
    return f"[{address}]" if ":" in address else address


@pytest.fixture(scope="module")
def receivers(lab):
    """HAProxy, nginx and nginx's stream module on the target's addresses, which answer with what the header tells."""
    tells = [proxyproto.NGINX_TELLS.format(address=bracketed(TARGET[f]), port=port)
             for port in (9702, 9703) for f in FAMILIES]
    processes = [
        proxyproto.haproxy(lab, lab.server, "pp-haproxy", "".join(
            proxyproto.HAPROXY_TELLS.format(address=bracketed(TARGET[f]), port=9701).replace("tells", f"tells{f}")
            for f in FAMILIES), 9701),
        proxyproto.nginx(lab, lab.server, "pp-nginx", "".join(
            "server { %s }\n" % tell.replace("return", "location / { return 200").replace('";', '"; }')
            for tell in tells[:2]), "".join("server { %s }\n" % tell for tell in tells[2:]), 9703)]
    yield {"haproxy": 9701, "nginx": 9702, "nginx-stream": 9703}
    for process in processes:
        process.stop()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_read_by_others(lab, receivers, gateway, version):
    """What is sent to a target names the client and where it went, in the words of three receivers."""
    # The stream module answers without a question, and resets whoever asks one.
    asked = {"haproxy": b"GET / HTTP/1.0\r\n\r\n", "nginx": b"GET / HTTP/1.0\r\n\r\n", "nginx-stream": b""}
    for name, port in receivers.items():
        gateway.upstream(name, [(TARGET[family], port) for family in FAMILIES])
        gateway.listener(name, ports=[str(port)], upstream=name, proxy_protocol=version)
        for family in FAMILIES:
            with lab.client.connect(SERVER[family], port) as connection:
                own = connection.getsockname()
                connection.sendall(asked[name])
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            told = answer.decode().split("\r\n\r\n")[-1]
            assert told == f"{own[0]} {own[1]} {SERVER[family]} {port}", (name, family)
    assert counters(gateway, "proxy_sent", "flows_reset") == (6, 0)
    counted = {one["name"]: one["bytes_to_target"] for one in gateway.must("GET", "stats")["listeners"]}
    assert counted == {name: 2 * len(question) for name, question in asked.items()}


SENDERS = {"haproxy-v1": (9111, "send-proxy"), "haproxy-v2": (9112, "send-proxy-v2"),
           "haproxy-tlvs": (9113, "send-proxy-v2 proxy-v2-options crc32c,unique-id"), "nginx": (9114, None)}


@pytest.fixture(scope="module")
def senders(lab):
    """HAProxy and nginx on the client's host, each a proxy to port 8000 of the server, for both families."""
    sections, stream = "", ""
    for name, (port, how) in SENDERS.items():
        for family in FAMILIES:
            to, address = f"{bracketed(SERVER[family])}:8000", bracketed(CLIENT[family])
            if how:
                sections += proxyproto.HAPROXY_SENDS.format(address=address, port=port, to=to, how=how).replace(
                    "listen sends", f"listen {family}sends")
            else:
                stream += f"server {{ listen {address}:{port}; proxy_pass {to}; proxy_protocol on; }}\n"
    processes = [proxyproto.haproxy(lab, lab.client, "pp-senders", sections, 9113),
                 proxyproto.nginx(lab, lab.client, "pp-nginx-sender", "", stream, 9114)]
    yield
    for process in processes:
        process.stop()


def test_sent_by_others(lab, nginx, senders, gateway):
    """The server sees, as the source of packets, the client whom a proxy in front names; so do the flows."""
    gateway.listener("web", ports=["8000"], accept_proxy_protocol=list(FRONT.values()))
    for number, family in enumerate(FAMILIES):
        check_sent(lab, gateway, family, 5 * number)


def check_sent(lab, gateway, family, before):
    """Over one family, after so many headers."""
    url = f"http://{bracketed(CLIENT[family])}"
    for name, (port, _) in SENDERS.items():
        done = lab.client2.run("curl", "-s", "-m", 10, f"{url}:{port}/whoami", check=False)
        assert done.stdout.strip() == f"{SERVER[family]}:8000 sees {CLIENT2[family]}", (name, done)
    with lab.client2.connect(CLIENT[family], 9112) as connection:
        connection.sendall(b"GET /")
        own = connection.getsockname()
        wait_for(lambda: [f for f in gateway.must("GET", "flows")["items"]
                          if (f["client"]["address"], f["client"]["port"]) == own[:2]], 5, "the flow")
    assert counters(gateway, "proxy_accepted", "proxy_malformed") == (before + 5, 0)
    # A client that is no proxy is relayed as ever, though it looks like one.
    with lab.client2.connect(SERVER[family], 8000) as connection:
        connection.sendall(write(1, "1.2.3.4", 5, "6.7.8.9", 10))
        assert b"400 Bad Request" in connection.recv(4096)
    assert counters(gateway, "proxy_accepted") == (before + 5,)


def pair(lab, family, port, handle):
    """A peer that reads a header, keeps (what it told, the address that it sees), and goes on with handle."""
    seen = []

    def serve(connection, address):
        seen.append((proxyproto.read(connection), address[:2]))
        handle(connection)

    return servers.Peer(lab.server, TARGET[family], port, serve), seen


def echo(connection):
    """Sends back all that comes."""
    while data := connection.recv(4096):
        connection.sendall(data)
    connection.close()


def test_passed_on(lab, gateway):
    """From a proxy in front to a target that is told too; in pieces of any size; LOCAL: the proxy itself."""
    combinations = [(family, version) for family in FAMILIES for version in (1, 2)]
    for family, version in combinations:
        check_passed_on(lab, gateway, family, version)
    assert counters(gateway, "proxy_accepted", "proxy_sent", "bytes_to_target") == (16, 16, 80)


def check_passed_on(lab, gateway, family, version):
    """A header of one version comes, one of the other is sent."""
    peer, seen = pair(lab, family, 4501, echo)
    header = write(version, CLIENT2[family], 4711, SERVER[family], 443)
    gateway.upstream("pool", [(TARGET[family], 4501)])
    gateway.listener("web", ports=["4500"], upstream="pool", accept_proxy_protocol=[FRONT[family]],
                     proxy_protocol=f"v{3 - version}")
    with peer:
        for pieces in ([header + b"hello"], [bytes([byte]) for byte in header + b"hello"], [header, b"hello"]):
            with lab.client.connect(SERVER[family], 4500) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)
                assert connection.recv(100) == b"hello"
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
        told = (CLIENT2[family], 4711, SERVER[family], 4500)
        assert [one[0] for one in seen] == [told] * 3
        assert seen[0][1] == (CLIENT2[family], 4711)
        with lab.client.connect(SERVER[family], 4500) as connection:
            connection.sendall((b"PROXY UNKNOWN\r\n" if version == 1 else proxyproto.local()) + b"hello")
            assert connection.recv(100) == b"hello"
            assert seen[3][0][:2] == connection.getsockname()[:2]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_families_mix(lab, gateway, version):
    """A client of one family and a target of the other; and a client that the proxy reached over the other family."""
    gateway.upstream("six", [(TARGET["v6"], 4501)])
    gateway.listener("l", ports=["4500"], upstream="six", source_address="gateway", proxy_protocol=version,
                     accept_proxy_protocol=["10.71.1.2-10.71.1.9"])
    peer, seen = pair(lab, "v6", 4501, echo)
    with peer:
        for header in (write(2, "192.0.2.1", 1, "192.0.2.2", 2), write(1, "2001:db8::1", 3, "2001:db8::2", 4),
                       write(2, "::ffff:192.0.2.1", 5, "::ffff:192.0.2.2", 6)):
            with lab.client.connect(SERVER["v4"], 4500) as connection:
                connection.sendall(header + b"x")
                assert connection.recv(1) == b"x"
    assert [one[0] for one in seen] == [("192.0.2.1", 1, "10.71.2.2", 4500),
                                        ("2001:db8::1", 3, "::ffff:10.71.2.2" if version == "v1" else
                                         "::ffff:a47:202", 4500),
                                        ("192.0.2.1", 5, "10.71.2.2", 4500)]
    # Such a client cannot be the source of packets to where the connection was going.
    gateway.must("PATCH", "listeners/l", {"upstream": None, "source_address": "client"})
    with lab.client.connect(SERVER["v4"], 4500) as connection, pytest.raises(ConnectionResetError):
        connection.sendall(write(1, "2001:db8::1", 3, "2001:db8::2", 4))
        connection.recv(1)
    assert counters(gateway, "refused_no_target") == (1,)


BAD = {
    "request": (b"GET / HTTP/1.0\r\n\r\n", "proxy_missing"),
    "hello": (HELLO, "proxy_missing"),
    "line": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "proxy_malformed"),
    "long line": (b"PROXY TCP4 " + b"1" * 200, "proxy_malformed"),
    "family": (write(1, "1.2.3.4", 1, "5.6.7.8", 2).replace(b"TCP4", b"TCP6"), "proxy_malformed"),
    "any": (write(2, "0.0.0.0", 1, "5.6.7.8", 2), "proxy_malformed"),
    "group": (write(1, "ff02::1", 1, "fd00::1", 2), "proxy_malformed"),
    "command": (proxyproto.SIGNATURE + b"\x2f\x11" + write(2, "1.2.3.4", 1, "5.6.7.8", 2)[14:], "proxy_malformed"),
    "long": (write(2, "1.2.3.4", 1, "5.6.7.8", 2)[:14] + struct.pack(">H", 4081), "proxy_malformed"),
    "half": (write(2, "1.2.3.4", 1, "5.6.7.8", 2)[:-1], "proxy_timeout"),
    "half line": (b"PROXY TCP4 1.2.3.4", "proxy_timeout"),
    "nothing": (b"", "proxy_timeout"),
}


def test_bad_headers(lab, gateway):
    """What does not begin with a header, or never completes it, is reset and counted, and reaches nobody."""
    gateway.listener("web", ports=["4503"], accept_proxy_protocol=["0.0.0.0/0"], connect_timeout_ms=500)
    before = counters(gateway, *(sorted({counter for _, counter in BAD.values()})))

    def try_one(said):
        with lab.client.connect(SERVER["v4"], 4503) as connection, pytest.raises(ConnectionResetError):
            connection.sendall(said)
            connection.recv(1)

    with servers.Peer(lab.server, SERVER["v4"], 4503, lambda connection, _: connection.recv(1)) as peer:
        in_threads([lambda said=said: try_one(said) for said, _ in BAD.values()])
        with lab.client.connect(SERVER["v4"], 4503) as connection:  # one that ends before it has said all
            connection.sendall(b"PROXY ")
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert peer.seen == []
    assert before == (0, 0, 0)
    assert counters(gateway, "proxy_malformed", "proxy_missing", "proxy_timeout") == (7, 2, 4)
    assert counters(gateway, "proxy_accepted", "flows_reset") == (0, 13)


def test_routes_behind_a_header(lab, gateway):
    """A header and a hello, in one segment or in many: the hello decides, and reaches the server whole and once."""
    got = []
    size = len(HELLO) + 4
    header = write(2, CLIENT2["v4"], 4711, SERVER["v4"], 443)

    def take(connection):
        data = b""
        while len(data) < size and (more := connection.recv(size)):
            data += more
        got.append(data)
        connection.sendall(b"done")

    peer, seen = pair(lab, "v4", 4501, take)
    gateway.upstream("pool", [(TARGET["v4"], 4501)])
    gateway.listener("web", ports=["443"], accept_proxy_protocol=["10.71.1.2"], proxy_protocol="v1",
                     routes=[{"sni": ["*.example.com"], "upstream": "pool"}, {"action": "reject"}])
    with peer:
        for sent in ([header + HELLO], [(header + HELLO)[at:at + 7] for at in range(0, len(header + HELLO), 7)]):
            with lab.client.connect(SERVER["v4"], 443) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in sent:
                    connection.sendall(piece)
                connection.sendall(b"more")
                assert connection.recv(4) == b"done"
                flows = gateway.must("GET", "flows")["items"]
                assert (CLIENT2["v4"], "api.example.com") in [(f["client"]["address"], f["sni"]) for f in flows]
        with lab.client.connect(SERVER["v4"], 443) as connection, pytest.raises(ConnectionResetError):
            connection.sendall(header + b"SSH-2.0-x\r\n")
            connection.recv(1)
    assert got == [HELLO + b"more"] * 2
    assert [told for told, _ in seen] == [(CLIENT2["v4"], 4711, SERVER["v4"], 443)] * 2
    assert counters(gateway, "first_bytes_tls", "route_matched", "route_rejected", "proxy_accepted") == (2, 3, 1, 3)


def test_trust_changes(lab, gateway):
    """Who is trusted follows the listener and the address sets that it names, and outlives the relay."""
    gateway.must("PUT", "address-sets/fronts", {"entries": ["10.71.5.0/24"]})
    gateway.listener("l", ports=["4502"], accept_proxy_protocol=["@fronts"])

    def trusted():
        with lab.client.connect(SERVER["v4"], 4502) as connection:
            connection.sendall(write(1, CLIENT["v4"], 0, SERVER["v4"], 1) + b"x")
            return connection.recv(100) == b"x"

    with servers.Peer(lab.server, SERVER["v4"], 4502, lambda connection, _: echo(connection)):
        assert not trusted()
        gateway.must("PUT", "address-sets/fronts", {"entries": ["10.71.5.0/24", "10.71.1.2"]})
        assert trusted()
        gateway.wait_relay(gateway.kill_relay(), 20)
        assert trusted()
        gateway.must("PUT", "address-sets/fronts", {"entries": ["10.71.5.0/24"]})
        assert not trusted()
        gateway.must("PATCH", "listeners/l", {"accept_proxy_protocol": ["10.0.0.0/8"]})
        assert trusted()
    assert gateway.api("DELETE", "address-sets/fronts").status == 204
    assert gateway.api("PATCH", "listeners/l", {"accept_proxy_protocol": ["@fronts"]}).status == 422


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("version", [1, 2])
def test_retried_at_another_target(lab, gateway, family, version):
    """A target that refuses gets nothing, the next one the header, whole and once, and what the client said behind it.

    In turns with and without a header from a proxy in front, and with a target in front that refuses, or none."""
    got, n = [], 8

    def swallow(connection, _address):
        data = b""
        while piece := connection.recv(4096):
            data += piece
        got.append(data)
        connection.sendall(b"heard")
        connection.close()

    gateway.upstream("pool", [(TARGET[family], 4502), (TARGET[family], 4503), (TARGET[family], 4501)], max_retries=2)
    gateway.listener("l", ports=["4500"], upstream="pool", proxy_protocol=f"v{version}")
    wanted = []
    with servers.Peer(lab.server, TARGET[family], 4501, swallow):
        for i in range(n):
            if i == n // 2:
                gateway.must("PATCH", "listeners/l", {"accept_proxy_protocol": [FRONT[family]]})
            with lab.client.connect(SERVER[family], 4500) as connection:
                who, words = connection.getsockname()[:2], f"words of {i}".encode() * 500
                front = b""
                if i >= n // 2:
                    who = (CLIENT2[family], 4700 + i)
                    front = write(3 - version, *who, SERVER[family], 443)
                connection.sendall(front + words)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(100) == b"heard"
            wanted.append(write(version, *who, SERVER[family], 4500) + words)
    assert got == wanted
    sent, retried, reset = counters(gateway, "proxy_sent", "connect_retried", "flows_reset")
    assert (sent, reset) == (n, 0)
    # Each thread takes turns by itself: of its flows, in a row of three, one tries both before, one one of them.
    assert n // 2 <= retried <= 2 * n


def test_header_is_not_held_back(lab, gateway, figure):
    """It waits for the client's first bytes, but not if there are none: the server may be the one that speaks first."""
    family = "v6"
    gateway.upstream("pool", [(TARGET[family], 4501)])
    gateway.listener("l", ports=["4500"], upstream="pool", proxy_protocol="v2")
    peer, _ = pair(lab, family, 4501, lambda connection: connection.sendall(b"220 hello\r\n"))
    times = []
    with peer:
        for _ in range(20):
            started = time.monotonic()
            with lab.client.connect(SERVER[family], 4500) as connection:
                assert connection.recv(100) == b"220 hello\r\n"
            times.append((time.monotonic() - started) * 1000)
    figure("until the greeting, median and worst, ms", f"{statistics.median(times):.1f} {max(times):.1f}")
    assert fastest_quarter(times) < 120, "the kernel's timer for bytes that wait for more is 200 ms"


# --- bytes ---

@pytest.fixture(scope="module")
def results(lab):
    """Results of the checked-traffic server behind headers, by seed."""
    process, path = servers.traffic_server(lab, lab.server, TRAFFIC, proxied=True)
    yield lambda: {line["seed"]: line for line in map(traffic.json.loads, path.read_text().splitlines())} \
        if path.exists() else {}
    process.stop()


def wait_kept(gateway, number):
    """Waits until so many flows are held for the next relay."""
    wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == number, 10, f"{number} kept flows")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mover, family, version, order", [
    ("copy", "v4", 1, "client"), ("splice", "v6", 2, "server"), ("sockmap", "v6", 1, "both")])
def test_bytes_are_exact_through_kills(lab, make_gateway, results, figure, mover, family, version, order):
    """A header in front of both legs, much traffic both ways, the relay killed again and again: every byte arrives,
    once, in order, and headers count as no payload."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(TRAFFIC)], proxy_protocol=f"v{version}",
                     accept_proxy_protocol=[FRONT[family]])
    seeds = [f"proxied {mover} {family} {order} {n}" for n in range(3)]
    size = 15_000_000
    stop = threading.Event()
    kills = [0]

    def kill():
        while not stop.is_set():
            gateway.wait_relay(gateway.kill_relay(), 20)
            kills[0] += 1
            stop.wait(0.05)

    def begin(number):
        connection = lab.client.connect(SERVER[family], TRAFFIC, timeout=60)
        connection.sendall(write(3 - version, CLIENT2[family], 5000 + number, SERVER[family], 1))
        return connection

    connections = [begin(number) for number in range(3)]
    wait_kept(gateway, 3)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = in_threads([lambda c=c, s=s: traffic.client(c, s, size, size, order)
                               for c, s in zip(connections, seeds)])
    finally:
        stop.set()
        killer.join()
    figure("kills", kills[0])
    assert [o for o in outcomes if not o["ok"]] == []
    wait_for(lambda: set(seeds) <= set(results()), 20, "the server's results")
    for number, seed in enumerate(seeds):
        assert results()[seed]["ok"], results()[seed]
        assert results()[seed]["told"] == [CLIENT2[family], 5000 + number, SERVER[family], TRAFFIC]
    assert kills[0] >= 1
    assert gateway.status()["relay"]["kept"]["lost"] == 0


@pytest.mark.parametrize("mover, family", [("copy", "v6"), ("splice", "v4"), ("sockmap", "v6")])
def test_movers_and_counts(lab, make_gateway, results, mover, family):
    """Each mover moves what is behind the header, and just that counts; also in the relay that takes the flow over."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(TRAFFIC)], proxy_protocol="v2", accept_proxy_protocol=[FRONT[family]])
    name = {"copy": "bytes_copied", "splice": "bytes_spliced", "sockmap": "bytes_sockmap"}[mover]
    for taken_over in (True, False):
        connection = lab.client.connect(SERVER[family], TRAFFIC, timeout=60)
        before = counters(gateway, "bytes_to_target", "bytes_to_client", name)
        # A byte right behind the header: its packet is read in part.
        connection.sendall(write(1, CLIENT2[family], 5100, SERVER[family], 1) + b" ")
        wait_kept(gateway, 1)
        if taken_over:
            gateway.wait_relay(gateway.kill_relay(), 20)
        seed = f"counted {mover} {family} {taken_over}"
        head = traffic.json.dumps({"seed": seed, "up": 500_000, "down": 700_000, "order": "both"}).encode() + b"\n"
        assert traffic.client(connection, seed, 500_000, 700_000, "both")["ok"]
        assert wait_for(lambda: results().get(seed), 20, "the server's result")["ok"]
        wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the flow's end")
        up, down, moved = (now - then for now, then in
                           zip(counters(gateway, "bytes_to_target", "bytes_to_client", name), before))
        assert (up, down) == (1 + len(head) + 500_000, 700_000)
        assert taken_over or moved == up + down - (mover == "sockmap")
    assert gateway.status()["relay"]["kept"]["lost"] == 0


# --- UDP ---

@pytest.mark.parametrize("family", FAMILIES)
def test_udp(lab, gateway, family):
    """Each datagram has a header of its own, also those that come as one, and an empty one; answers have none."""
    def answer(data, _address):
        told, kind, rest = proxyproto.split(data)
        assert kind == proxyproto.DATAGRAM
        return f"{told}".encode() + rest

    gateway.upstream("pool", [(TARGET[family], 7301)])
    gateway.listener("u", protocol="udp", ports=["7300"], upstream="pool", proxy_protocol="v2")
    with DatagramPeer(lab.server, TARGET[family], 7301, answer) as peer, \
            udp_client(lab.client, SERVER[family], 7300) as made:
        own = made.getsockname()[:2]
        told = f"{(*own, SERVER[family], 7300)}".encode()
        for data in (b"question", b"", b"x" * 1200):
            made.send(data)
            assert made.recv(65536) == told + data
        assert peer.seen[0][1] == own
        made.setsockopt(socket.SOL_UDP if hasattr(socket, "SOL_UDP") else 17, 103, 100)  # UDP_SEGMENT
        made.send(b"".join(b"%03d" % n + b"." * 97 for n in range(40)) + b"last")
        got = [made.recv(65536) for _ in range(41)]
        assert got == [told + b"%03d" % n + b"." * 97 for n in range(40)] + [told + b"last"]
    assert counters(gateway, "datagrams_to_target", "bytes_to_target", "proxy_sent", "udp_dropped") == \
        (44, 8 + 1200 + 4004, 1, 0)


def test_udp_target_refuses(lab, gateway):
    """That nobody is at the target's port is noticed with headers too; nothing is sent to anybody else."""
    gateway.upstream("pool", [(TARGET["v4"], 7302)])
    gateway.listener("u", protocol="udp", ports=["7302"], upstream="pool", proxy_protocol="v2")
    with udp_client(lab.client, SERVER["v4"], 7302, timeout=0.2) as made:
        made.send(b"a")
        wait_for(lambda: counters(gateway, "udp_refused", "udp_flows_closed") == (1, 1), 5, "the refusal")
        with DatagramPeer(lab.server, TARGET["v4"], 7302, lambda data, _: proxyproto.split(data)[2]):
            made.send(b"b")
            assert made.recv(10) == b"b"
