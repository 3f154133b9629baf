"""Requests as raw bytes to a running gatewayd, and a picture of everything it holds."""

import contextlib
import json
import socket
import sqlite3


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
            return read_answer(opened)

    def send(self, method, path, body, kind="application/json"):
        """A request with a body."""
        kind = [f"Content-Type: {kind}"] if kind else []
        return self.say(self.head(method, path, *kind, f"Content-Length: {len(body)}"), body)


def database(gateway):
    """The database as SQL text, without the audit log, which notes refusals too."""
    with contextlib.closing(sqlite3.connect(f"file:{gateway.state / 'gateway.db'}?mode=ro", uri=True)) as opened:
        return [line for line in opened.iterdump()
                if not line.startswith(('INSERT INTO "audit"', 'INSERT INTO "sqlite_sequence" VALUES(\'audit\''))]


def without_counts(value):
    """An nft document without packets and bytes, which traffic changes."""
    if isinstance(value, dict):
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
