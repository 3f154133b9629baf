"""The API over https: certificates, tokens and roles, attempts, sessions."""

import json
import ssl
import subprocess

import pytest

from api.support import Secure, expect_problem, read_answer

NEW = b'{"ports":["80"]}'
WEB = "/api/v1/listeners/web"


@pytest.fixture
def secure(make_gateway):
    """A gateway that speaks TLS only."""
    return make_gateway(listen="https://127.0.0.1:8443")


def bearer(gateway, role, **fields):
    """A client with a new token of this role."""
    answer = gateway.must("POST", "tokens", {"name": f"t-{role}", "role": role, **fields})
    return Secure(gateway, f"Authorization: Bearer {answer['token']}")


def certificate(directory, name, days=2, key="ec"):
    """(certificate, key) in PEM, made by openssl."""
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else ["-newkey", "rsa:2048"]
    subprocess.run(["openssl", "req", "-x509", *kind, "-nodes", "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name},DNS:localhost", "-keyout", directory / "key.pem",
                    "-out", directory / "cert.pem"], check=True, capture_output=True)
    return (directory / "cert.pem").read_text(), (directory / "key.pem").read_text()


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_another_certificate(secure, tmp_path, key):
    """Taken for the next connection; the open one goes on, also in the middle of a request; kept over a restart."""
    admin = Secure(secure, f"Authorization: Bearer {secure.token()}")
    cert, private = certificate(tmp_path, "gw.example", key=key)
    old = secure.must("GET", "tls")
    with admin.connection() as opened:
        before = opened.getpeercert(True)
        half = admin.head("PUT", WEB, "Content-Type: application/json", f"Content-Length: {len(NEW)}") + NEW
        opened.sendall(half[:-5])
        put = admin.send("PUT", "/api/v1/tls", json.dumps({"certificate": cert, "private_key": private}).encode())
        assert put[0] == 200, put
        opened.sendall(half[-5:])
        assert read_answer(opened)[0] == 201
        opened.sendall(admin.head("GET", WEB))
        assert read_answer(opened)[0] == 200
    told = json.loads(put[2])
    assert "gw.example" in told["subject"] and told["fingerprint"] != old["fingerprint"] and old["self_signed"]
    trusted = ssl.create_default_context(cadata=cert)
    for _ in range(2):
        with Secure(secure, context=trusted, server_name="gw.example").connection() as opened:
            assert opened.getpeercert(True) == ssl.PEM_cert_to_DER_cert(cert) != before
        secure.stop()
        assert private.splitlines()[1] not in secure.tail(10**7)
        secure.start()
    assert secure.must("GET", "tls") == told
    assert "PRIVATE" not in json.dumps(secure.must("GET", "audit")) + json.dumps(secure.must("GET", "revisions"))


def test_a_bad_certificate(secure, tmp_path):
    """Refused with words, and the one in use stays."""
    (tmp_path / "b").mkdir()
    cert, private = certificate(tmp_path, "gw.example")
    other_cert, other_private = certificate(tmp_path / "b", "other.example")
    before = secure.must("GET", "tls")
    admin = Secure(secure, f"Authorization: Bearer {secure.token()}")
    for body in ({"certificate": cert, "private_key": other_private}, {"certificate": other_cert, "private_key": private},
                 {"certificate": "x", "private_key": private}, {"certificate": cert, "private_key": ""},
                 {"certificate": cert}, {"certificate": cert, "private_key": private, "x": 1}):
        document = expect_problem(admin.send("PUT", "/api/v1/tls", json.dumps(body).encode()), 422)
        assert document["errors"] and "PRIVATE" not in json.dumps(document)
    assert secure.must("GET", "tls") == before
    expect_problem(bearer(secure, "viewer").send("PUT", "/api/v1/tls", b"{}"), 403)


READS = ["/api/v1/status", "/api/v1/listeners", "/api/v1/config", "/api/v1/revisions", "/api/v1/settings", "/api/v1/tls",
         "/api/v1/openapi.json"]
ADMIN_READS = ["/api/v1/audit", "/api/v1/backup"]
WRITES = [("PUT", WEB, NEW), ("POST", "/api/v1/listeners", NEW), ("PATCH", WEB, NEW), ("DELETE", WEB, b""),
          ("PUT", "/api/v1/config", b"{}"), ("POST", "/api/v1/transactions", b"[]"), ("PATCH", "/api/v1/settings", b"{}"),
          ("POST", "/api/v1/revisions/1/rollback", b""), ("POST", "/api/v1/revisions/1/confirm", b""),
          ("POST", "/api/v1/tokens", b'{"name":"x","role":"admin"}'), ("DELETE", "/api/v1/tokens/t-viewer", b""),
          ("PUT", "/api/v1/address-sets/a/entries", b"[]")]


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_roles(secure, role):
    """Viewer and operator read, and change nothing of the configuration, rehearsals included."""
    client = bearer(secure, role)
    before = secure.api("GET", "config").body
    for path in READS:
        assert client.say(client.head("GET", path))[0] == 200, path
    for path in ADMIN_READS:
        expect_problem(client.say(client.head("GET", path)), 403)
    for method, path, body in WRITES:
        for query in ("", "?dry_run=true"):
            expect_problem(client.send(method, path + query, body), 403)
    assert secure.api("GET", "config").body == before
    admin = bearer(secure, "admin")
    for path in READS + ADMIN_READS:
        assert admin.say(admin.head("GET", path))[0] == 200, path
    assert admin.send("PUT", WEB, NEW)[0] == 201
    assert {entry["actor"] for entry in secure.must("GET", "audit?limit=3")["items"]} == {"token t-admin", "uid 0", f"token t-{role}"}


def test_tokens_that_do_not_work(secure):
    """None, wrong, expired, deleted, changed to less."""
    expect_problem(Secure(secure).say(Secure(secure).head("GET", "/api/v1/status")), 401)
    old = bearer(secure, "admin", expires_at="2020-01-01T00:00:00Z")
    expect_problem(old.say(old.head("GET", "/api/v1/status")), 401)
    # A new time makes it good again: what failed was the time and nothing else.
    secure.must("PATCH", "tokens/t-admin", {"expires_at": "2099-01-01T00:00:00Z"})
    assert old.say(old.head("GET", "/api/v1/status"))[0] == 200
    assert old.send("PUT", WEB, NEW)[0] == 201
    secure.must("PATCH", "tokens/t-admin", {"role": "viewer"})
    expect_problem(old.send("PUT", WEB, NEW), 403)
    secure.must("DELETE", "tokens/t-admin")
    expect_problem(old.say(old.head("GET", "/api/v1/status")), 401)


def test_attempts(secure):
    """Guessing over https ends with 429 and the time to wait; the unix socket and open doors stay."""
    good = Secure(secure, f"Authorization: Bearer {secure.token()}")
    statuses = []
    for i in range(13):
        guess = Secure(secure, f"Authorization: Bearer guess{i}")
        answer = guess.say(guess.head("GET", "/api/v1/status"))
        statuses.append(answer[0])
    assert statuses == [401] * 10 + [429] * 3
    assert 0 < int(answer[1]["retry-after"]) <= 60
    expect_problem(good.say(good.head("GET", "/api/v1/status")), 429)
    expect_problem(good.send("POST", "/api/v1/session", json.dumps({"token": secure.token()}).encode()), 429)
    assert good.say(good.head("GET", "/healthz"))[0] == 200
    assert secure.api("GET", "status").status == 200


def test_session(secure):
    """A cookie that scripts cannot read and plain http does not carry; writes need the other half of it."""
    nobody = Secure(secure)
    status, headers, body = nobody.send("POST", "/api/v1/session", json.dumps({"token": secure.token()}).encode())
    assert status == 200
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(attributes)
    told = json.loads(body)
    reader = Secure(secure, f"Cookie: {cookie}")
    writer = Secure(secure, f"Cookie: other=1; {cookie}", f"X-CSRF-Token: {told['csrf_token']}")
    assert json.loads(reader.say(reader.head("GET", "/api/v1/session"))[2])["csrf_token"] == told["csrf_token"]
    for method, path, content in WRITES:
        expect_problem(reader.send(method, path, content), 403)
    wrong = Secure(secure, f"Cookie: {cookie}", f"X-CSRF-Token: {'0' * len(told['csrf_token'])}")
    expect_problem(wrong.send("PUT", WEB, NEW), 403)
    assert writer.send("PUT", WEB, NEW)[0] == 201
    expect_problem(reader.say(reader.head("DELETE", "/api/v1/session")), 403)
    assert writer.say(writer.head("DELETE", "/api/v1/session"))[0] == 204
    expect_problem(writer.say(writer.head("GET", "/api/v1/status")), 401)
    expect_problem(nobody.send("POST", "/api/v1/session", b'{"token":"wrong"}'), 401)


def test_a_session_is_worth_its_token(secure):
    """Deleting the token ends what was opened with it."""
    token = secure.must("POST", "tokens", {"name": "ui", "role": "viewer"})["token"]
    nobody = Secure(secure)
    headers = nobody.send("POST", "/api/v1/session", json.dumps({"token": token}).encode())[1]
    reader = Secure(secure, "Cookie: " + headers["set-cookie"].partition(";")[0])
    assert reader.say(reader.head("GET", "/api/v1/status"))[0] == 200
    secure.must("DELETE", "tokens/ui")
    expect_problem(reader.say(reader.head("GET", "/api/v1/status")), 401)
