"""Requests as raw bytes to a running gatewayd, and a picture of everything it holds."""

import contextlib
import json
import socket
import sqlite3
import ssl

from api.contract import observe_bytes


def read_answer(connection):
    """One answer from a socket: (status, headers with lower-case names, body). The body ends with its length, or with
    the connection."""
    with connection.makefile("rb") as stream:
        line = stream.readline().split()
        headers = {}
        while (text := stream.readline().strip()):
            name, _, value = text.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", 0 if line[1] in (b"204", b"304") else None)
        return int(line[1]), headers, stream.read(int(length)) if length is not None else stream.read()


class Raw:
    """Says bytes to the API, well formed or not, over the unix socket or over TCP in the gateway's namespace."""

    def __init__(self, gateway, tcp):
        self.gateway, self.tcp = gateway, tcp
        self.authorization = f"Authorization: Bearer {gateway.token()}\r\n" if tcp else ""

    @contextlib.contextmanager
    def connection(self, timeout=30):
        """An open socket."""
        if self.tcp:
            opened = self.gateway.lab.gateway.connect("127.0.0.1", 8080, timeout=timeout)
        else:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(timeout)
            opened.connect(str(self.gateway.socket))
        with opened:
            yield opened

    def head(self, method, path, *lines):
        """Request line and headers as bytes, with credentials."""
        more = "".join(line + "\r\n" for line in lines)
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{self.authorization}{more}\r\n".encode()

    def say(self, *pieces):
        """Sends the bytes on a connection of their own; returns the answer."""
        with self.connection() as opened:
            for piece in pieces:
                opened.sendall(piece)
            answer = read_answer(opened)
        observe_bytes(self.gateway.socket, b"".join(pieces), answer)
        return answer

    def send(self, method, path, body, kind="application/json"):
        """A request with a body."""
        kind = [f"Content-Type: {kind}"] if kind else []
        return self.say(self.head(method, path, *kind, f"Content-Length: {len(body)}"), body)


class Secure(Raw):
    """The same over TLS, with header lines of one's own choice."""

    def __init__(self, gateway, *lines, context=None, server_name="localhost"):
        super().__init__(gateway, True)
        self.authorization = "".join(line + "\r\n" for line in lines)
        self.context, self.server_name = context, server_name
        if not context:
            self.context = ssl.create_default_context()
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    @contextlib.contextmanager
    def connection(self, timeout=30):
        with self.gateway.lab.gateway.connect("127.0.0.1", 8443, timeout=timeout) as plain:
            with self.context.wrap_socket(plain, server_hostname=self.server_name) as opened:
                yield opened


def database(gateway):
    """The database as SQL text, without the audit log, which notes refusals too."""
    with contextlib.closing(sqlite3.connect(f"file:{gateway.state / 'gateway.db'}?mode=ro", uri=True)) as opened:
        return [line for line in opened.iterdump()
                if not line.startswith(('INSERT INTO "audit"', 'INSERT INTO "sqlite_sequence" VALUES(\'audit\''))]


def without_counts(value):
    """An nft document without packets, bytes and the ledger's elements, which traffic changes."""
    if isinstance(value, dict):
        if value.get("name") == "ledger":
            value = {key: item for key, item in value.items() if key != "elem"}
        return {key: without_counts(item) for key, item in value.items() if key not in ("packets", "bytes")}
    return [without_counts(item) for item in value] if isinstance(value, list) else value


def table(gateway):
    """Our table in the kernel as nft lists it, with handles: made anew is not the same."""
    listing = gateway.lab.gateway.run("nft", "-s", "-j", "list", "table", "inet", "gatewayd").stdout
    return without_counts(json.loads(listing)["nftables"])


def picture(gateway):
    """Everything that a refused request must leave alone: configuration, database, kernel."""
    status = gateway.status()
    return {
        "listeners": gateway.must("GET", "listeners?limit=1000"),
        "upstreams": gateway.must("GET", "upstreams?limit=1000"),
        "revision": status["revision"],
        "database": database(gateway),
        "nft": table(gateway),
        "rules": gateway.lab.gateway.run("ip", "rule").stdout + gateway.lab.gateway.run("ip", "-6", "rule").stdout,
    }


def expect_problem(answer, status):
    """The answer is a problem document of this status; returns it."""
    got, headers, body = answer
    assert got == status, body
    assert headers["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    for fault in document.get("errors", []):
        assert fault.keys() == {"pointer", "code", "detail"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
    return document


# One of each resource, in the order of their references, with no field at its default; the first key is the name.
WHOLE = {
    "address-sets": {"name": "small", "comment": "ä ☂ \"quoted\"", "entries": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]},
    "upstreams": {
        "name": "pool", "comment": "all of it", "algorithm": "source_hash",
        "targets": [
            {"address": "10.71.2.3", "port": 8080, "weight": 7, "backup": True, "max_connections": 9,
             "admin_state": "drain"},
            {"address": "fd71:2::4", "port": 1, "weight": 0, "backup": True, "max_connections": 16777216,
             "admin_state": "down"},
        ],
        "health": {"type": "http", "interval_ms": 700, "timeout_ms": 300, "rise": 4, "fall": 5, "http_path": "/up?x=1",
                   "http_status": 204, "http_status_max": 206, "http_method": "GET", "http_host": "up.example",
                   "http_body": "ready", "port": 81},
        "quorum": 2, "max_retries": 2, "passive_failures": 9, "slow_start_s": 30, "on_down": "reset",
    },
    "rate-limits": {
        "name": "slow", "comment": "limits", "key": "source_prefix", "prefix_v4": 20, "prefix_v6": 56, "metric": "bytes",
        "rate": 1000000, "per": "minute", "burst": 2000000, "action": "ban", "ban_s": 61, "mode": "shadow",
        "escalate": {"after": 9, "ban_s": 601},
    },
    "listeners": {
        "name": "all", "enabled": False, "comment": "every field", "protocol": "tcp", "interfaces": ["eth0", "in0"],
        "sources": ["10.9.0.0/16"], "destinations": ["10.71.2.0/24"], "ports": ["443", "8000-8100"], "action": "relay",
        "upstream": "pool", "source_address": "gateway", "source_port": "any", "mover": "splice",
        "proxy_protocol": "v2", "accept_proxy_protocol": ["10.71.1.0/24", "@small"],
        "routes": [
            {"sni": ["*.example.com"], "alpn": ["h2"], "http_host": [], "http_method": [], "http_path_prefix": [],
             "action": "reject", "upstream": None},
            {"sni": [], "alpn": [], "http_host": ["www.example.com"], "http_method": ["GET"],
             "http_path_prefix": ["/a"], "action": "relay", "upstream": "pool"},
        ],
        "rate_limits": ["slow"], "on_worker_down": "direct", "connect_timeout_ms": 10, "idle_timeout_s": 604800,
        "priority": 65535,
    },
    "prefilters": {
        "interface": "eth0.5", "enabled": False, "comment": "before the stack", "mode": "generic", "deny": ["@small"],
        "allow": ["192.0.2.1", "198.51.100.0/24"], "source_pps": {"rate": 10, "burst": 20, "action": "ban", "ban_s": 61},
        "syn_cookies": "always", "drop_fragments": True, "drop_bogons": True, "only_listener_ports": True,
    },
    "tokens": {"name": "who", "role": "operator", "expires_at": "2099-12-31T23:59:59Z"},
}


def furnish_fully(gateway, up_to=None):
    """One of each resource, a large set and settings of one's own; up_to: only what comes before this path."""
    for path, whole in WHOLE.items():
        if path == up_to:
            return gateway
        gateway.must("PUT", f"{path}/{next(iter(whole.values()))}", whole)
    entries = "".join(f"172.16.{i >> 8}.{i & 255}\n" for i in range(0, 4000, 2)).encode()
    gateway.must("PUT", "address-sets/large", {})
    gateway.must("PUT", "address-sets/large/entries", entries, headers={"Content-Type": "text/plain"})
    gateway.must("PUT", "settings", {"drift": "alert", "revisions_kept": 1234})
    return gateway
