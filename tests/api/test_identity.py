"""Tokens, roles, sessions, events and the certificate, on a running gateway."""

import json
import socket
import ssl

from api.support import Raw, expect_problem, read_answer


class Client(Raw):
    """Raw requests over TCP with header lines of one's own choice."""

    def __init__(self, gateway, *lines):
        super().__init__(gateway, True)
        self.authorization = "".join(line + "\r\n" for line in lines)


def make_token(gateway, name, role, **fields):
    """A client that uses a new token."""
    answer = gateway.must("POST", "tokens", {"name": name, "role": role, **fields})
    assert "hash" not in answer
    return Client(gateway, "Authorization: Bearer " + answer["token"])


def test_roles(gateway):
    """A viewer reads and does not write; the row's end is the token's."""
    viewer, admin = make_token(gateway, "v", "viewer"), make_token(gateway, "a", "admin")
    assert viewer.say(viewer.head("GET", "/api/v1/listeners"))[0] == 200
    expect_problem(viewer.send("PUT", "/api/v1/listeners/web", b'{"ports":["80"]}'), 403)
    assert admin.send("PUT", "/api/v1/listeners/web", b'{"ports":["80"]}')[0] == 201
    assert gateway.must("GET", "audit?limit=1")["items"][0]["actor"] == "token a"
    assert gateway.must("GET", "audit?limit=2")["items"][1]["status"] == 403
    assert gateway.api("DELETE", "tokens/a").status == 204
    expect_problem(admin.say(admin.head("GET", "/api/v1/listeners")), 401)


def test_tokens_outlive_a_restart_and_a_configuration(gateway):
    """The secret is in the database as a hash only, and PUT of a configuration does not touch it."""
    viewer = make_token(gateway, "v", "viewer")
    secret = viewer.authorization.split()[-1]
    gateway.must("PUT", "config", {})
    gateway.stop()
    assert secret.encode() not in b"".join(p.read_bytes() for p in gateway.state.iterdir() if p.is_file())
    gateway.start()
    assert viewer.say(viewer.head("GET", "/api/v1/listeners"))[0] == 200
    assert secret not in gateway.tail(10**7)


def test_expired(gateway):
    """A token whose time is over."""
    old = make_token(gateway, "old", "admin", expires_at="2020-01-01T00:00:00Z")
    expect_problem(old.say(old.head("GET", "/api/v1/status")), 401)


def test_session(gateway):
    """Login, a read by cookie, a write with and without the CSRF token, logout."""
    status, headers, body = Client(gateway).send(
        "POST", "/api/v1/session", json.dumps({"token": gateway.token()}).encode())
    assert status == 200
    cookie = "Cookie: " + headers["set-cookie"].partition(";")[0]
    csrf = "X-CSRF-Token: " + json.loads(body)["csrf_token"]
    reader, writer = Client(gateway, cookie), Client(gateway, cookie, csrf)
    assert reader.say(reader.head("GET", "/api/v1/status"))[0] == 200
    expect_problem(reader.send("PUT", "/api/v1/listeners/web", b'{"ports":["80"]}'), 403)
    assert writer.send("PUT", "/api/v1/listeners/web", b'{"ports":["80"]}')[0] == 201
    assert writer.say(writer.head("DELETE", "/api/v1/session"))[0] == 204
    expect_problem(reader.say(reader.head("GET", "/api/v1/status")), 401)


def test_stop_under_readers_of_events(gateway):
    """Streams that wait do not keep the daemon from ending in good order."""
    raw = Raw(gateway, tcp=False)
    held = []
    for _ in range(20):
        context = raw.connection()
        opened = context.__enter__()
        held.append((context, opened))
        opened.sendall(raw.head("GET", "/api/v1/events"))
        assert b"text/event-stream" in opened.recv(4096)
    gateway.stop()
    assert gateway.process.popen.returncode == 0
    for context, _ in held:
        context.__exit__(None, None, None)


def secure_get(gateway, context, path):
    """A GET over TLS: (answer, certificate as DER)."""
    with gateway.lab.gateway.connect("127.0.0.1", 8443, timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as opened:
            opened.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {gateway.token()}\r\n\r\n".encode())
            return read_answer(opened), opened.getpeercert(True)


def test_certificate(make_gateway):
    """Made at the first start, good for localhost, the same after a restart; plain text gets no answer."""
    gateway = make_gateway(listen="https://127.0.0.1:8443")
    context = ssl.create_default_context(cafile=str(gateway.state / "tls" / "cert.pem"))
    answer, certificate = secure_get(gateway, context, "/api/v1/tls")
    assert answer[0] == 200 and json.loads(answer[2])["self_signed"]
    assert (gateway.state / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert json.loads(answer[2])["fingerprint"] in gateway.tail(10**6)
    gateway.stop()
    gateway.start()
    assert secure_get(gateway, context, "/api/v1/tls")[1] == certificate
    with gateway.lab.gateway.connect("127.0.0.1", 8443, timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            assert b"HTTP" not in plain.recv(4096)
        except socket.error:
            pass
