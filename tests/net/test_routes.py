"""Routes: the first bytes of a connection decide where it goes, and reach the server as they were sent."""

import socket
import struct
from pathlib import Path

import pytest

from lab.process import wait_for
from lab.servers import Peer, tls_server

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVERS = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
HELLOS = Path(__file__).parents[1] / "fuzz" / "corpus" / "first_tls"
EGRESS = [{"sni": ["*.openai.com", "api.anthropic.com"]}, {"action": "reject"}]


@pytest.fixture(scope="module")
def tls(lab):
    """openssl s_server on port 443 of the server."""
    process, _ = tls_server(lab, lab.server, 443)
    yield process
    process.stop()


def counters(gateway, *names):
    """Sums of the relay's counters."""
    found = gateway.counters()
    return tuple(found[name] for name in names)


def bracketed(address):
    return f"[{address}]" if ":" in address else address


def curl_tls(host, address, name, *more):
    """curl's exit code and output for https://name/ at the address, whatever the name is."""
    done = host.run("curl", "-sk", "-m", 10, *more, "--connect-to", f"::{bracketed(address)}:443", f"https://{name}/",
                    check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_egress_by_server_name(lab, tls, gateway, family):
    """The names that are listed are reached, with every client; the rest is reset."""
    gateway.listener("egress", ports=["443"], routes=EGRESS)
    for name in ("api.openai.com", "a.b.openai.com", "API.Anthropic.com"):
        code, text = curl_tls(lab.client, SERVERS[family], name)
        assert code == 0 and "s_server" in text, (name, code, text)
    for name in ("openai.com", "xopenai.com", "www.anthropic.com", "example.org"):
        assert curl_tls(lab.client, SERVERS[family], name)[0] == 35, name
    assert curl_tls(lab.client, SERVERS[family], "api.openai.com", "--tls-max", "1.2")[0] == 0
    for name, good in (("eu.openai.com", True), ("example.org", False)):
        done = lab.client.run("openssl", "s_client", "-connect", f"{bracketed(SERVERS[family])}:443", "-servername",
                              name, input="", check=False)
        assert ("BEGIN CERTIFICATE" in done.stdout) == good, done.stdout + done.stderr
    assert counters(gateway, "first_bytes_tls", "route_matched", "route_rejected") == (10, 10, 5)


@pytest.mark.parametrize("bytes_said", [b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff",
                                        b"GET / HTTP/1.1\r\nHost: api.openai.com\r\n\r\n"])
def test_what_has_no_name_is_refused(lab, tls, gateway, bytes_said):
    """Another protocol, a hello beyond the bound and an HTTP request meet no server name."""
    gateway.listener("egress", ports=["443"], routes=EGRESS)
    with lab.client.connect(SERVERS["v4"], 443) as connection:
        connection.sendall(bytes_said)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def recut(hello, size):
    """The same handshake in records of `size` bytes."""
    payload = b""
    while hello:
        length = struct.unpack(">H", hello[3:5])[0]
        payload, hello = payload + hello[5:5 + length], hello[5 + length:]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part
                    for part in (payload[i:i + size] for i in range(0, len(payload), size)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("records", [None, 1, 100])
def test_hello_in_pieces(lab, gateway, family, records):
    """A hello that comes byte by byte, in any records, is understood, and reaches the server whole and once."""
    hello = (HELLOS / "openssl_tls13").read_bytes()
    hello = recut(hello, records) if records else hello
    got = []

    def handle(connection, _address):
        data = b""
        while len(data) < len(hello) + 4 and (more := connection.recv(4096)):
            data += more
        got.append(data)
        connection.sendall(b"answer")
        connection.close()

    gateway.upstream("pool", [(SERVERS[family], 4444)])
    gateway.listener("web", ports=["443"],
                     routes=[{"sni": ["*.example.com"], "alpn": ["h2"], "upstream": "pool"}, {"action": "reject"}])
    with Peer(lab.server, SERVERS[family], 4444, handle), lab.client.connect(SERVERS[family], 443) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in hello:
            connection.sendall(bytes([byte]))
        connection.sendall(b"more")
        assert connection.recv(100) == b"answer"
    assert got == [hello + b"more"]
    assert counters(gateway, "first_bytes_tls", "first_bytes_timeout") == (1, 0)


def test_who_talks_to_whom(lab, gateway):
    """The flow's name, upstream and target are shown and counted as soon as the route has chosen; not before."""
    hello = (HELLOS / "openssl_tls13").read_bytes()

    def answer(connection, _address):
        while connection.recv(4096):
            connection.sendall(b"x")

    gateway.upstream("pool", [("10.71.2.3", 4444)])
    gateway.listener("web", ports=["443"], routes=[{"sni": ["api.example.com"], "upstream": "pool"}])
    with Peer(lab.server, "10.71.2.3", 4444, answer), lab.client.connect(SERVERS["v4"], 443) as connection:
        connection.sendall(hello[:100])
        flow = wait_for(lambda: next(iter(gateway.must("GET", "flows")["items"]), None), 5, "the flow")
        assert (flow["listener"], flow["upstream"], flow["sni"]) == ("web", None, None)
        connection.sendall(hello[100:])
        assert connection.recv(1) == b"x"
        flow = gateway.must("GET", "flows")["items"][0]
        assert (flow["listener"], flow["upstream"], flow["sni"]) == ("web", "pool", "api.example.com")
        groups = gateway.must("GET", "flows?group=sni")["items"]
        assert [(g["group"], g["flows"]) for g in groups] == [("api.example.com", 1)]
    stats = gateway.must("GET", "stats")
    for kind, name in (("listeners", "web"), ("upstreams", "pool")):
        assert [one["flows_opened"] for one in stats[kind] if one["name"] == name] == [1], stats[kind]


def ask(host, *curl):
    """Which server answered: the port that nginx names, or curl's exit code."""
    done = host.run("curl", "-s", "-m", 10, "-o", "-", *curl, check=False)
    return done.stdout.split(" sees ")[0].rsplit(":", 1)[-1] if done.returncode == 0 else done.returncode


def test_http(lab, nginx, gateway):
    """Host, method and path choose the pool; what matches none goes the listener's own way."""
    address = SERVERS["v4"]
    for port in (8001, 8002):
        gateway.upstream(f"pool{port}", [(address, port)])
    gateway.listener("web", ports=["8000"], routes=[
        {"http_host": ["no.example.com"], "action": "reject"},
        {"http_host": ["*.example.com"], "http_path_prefix": ["/who"], "upstream": "pool8001"},
        {"http_method": ["HEAD", "OPTIONS"], "upstream": "pool8002"}])
    url = f"http://{address}:8000/whoami"
    assert ask(lab.client, url) == "8000"
    assert ask(lab.client, "-H", "Host: A.example.com:99", url) == "8001"
    assert ask(lab.client, "-H", "Host: a.example.com", f"{url}?/x") == "8001"
    assert ask(lab.client, "-H", "Host: no.example.com", url) == 56
    assert ask(lab.client, "-X", "OPTIONS", url) == "8002"
    assert counters(gateway, "first_bytes_http", "route_matched", "route_default", "route_rejected") == (5, 4, 1, 1)


def test_server_speaks_first(lab, gateway):
    """A client that says nothing gets what the listener's own way has, once the time for it is over."""
    def greet(connection, _address):
        connection.sendall(b"220 hello\r\n")
        connection.recv(1)
        connection.close()

    gateway.listener("any", ports=["2525"], connect_timeout_ms=1000, routes=[{"sni": ["a"], "action": "reject"}])
    with Peer(lab.server, SERVERS["v4"], 2525, greet), lab.client.connect(SERVERS["v4"], 2525) as connection:
        assert connection.recv(100) == b"220 hello\r\n"
    assert counters(gateway, "first_bytes_timeout", "route_default") == (1, 1)


def test_client_that_goes(lab, gateway):
    """A client that resets before it has said enough leaves nothing behind."""
    gateway.listener("egress", ports=["443"], routes=EGRESS)
    with lab.client.connect(SERVERS["v4"], 443) as connection:
        connection.sendall(b"\x16\x03")
        wait_for(lambda: counters(gateway, "flows_opened") == (1,), 5, "the flow")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: counters(gateway, "flows_closed") == (1,), 10, "the flow's end")
    assert counters(gateway, "first_bytes_timeout") == (0,)


def test_routes_change(lab, tls, gateway):
    """A change of routes holds for the next connection."""
    gateway.listener("egress", ports=["443"], routes=EGRESS)
    assert curl_tls(lab.client, SERVERS["v4"], "example.org")[0] == 35
    gateway.must("PATCH", "listeners/egress", {"routes": []})
    assert curl_tls(lab.client, SERVERS["v4"], "example.org")[0] == 0
    gateway.must("PATCH", "listeners/egress", {"routes": [{"sni": ["example.org"], "action": "reject"}]})
    assert curl_tls(lab.client, SERVERS["v4"], "example.org")[0] == 35
    assert curl_tls(lab.client, SERVERS["v4"], "example.net")[0] == 0
