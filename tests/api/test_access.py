"""Who gets in by TCP and by the unix socket."""

import stat

from api.support import Raw, expect_problem
from lab.process import wait_for


def status_of(gateway, *lines, host="127.0.0.1", path="/api/v1/status"):
    """The answer to a GET over TCP with these header lines."""
    text = "".join(line + "\r\n" for line in lines)
    return Raw(gateway, tcp=True).say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{text}\r\n".encode())


def test_token(gateway):
    """The token of the first start is the key; without it there is nothing to be learned."""
    good = f"Authorization: Bearer {gateway.token()}"
    assert status_of(gateway, good)[0] == 200
    answer = status_of(gateway)
    expect_problem(answer, 401)
    assert answer[1]["www-authenticate"].startswith("Bearer")
    for path in ("/api/v1/listeners", "/api/v1/nothing", "/openapi.json"):
        expect_problem(status_of(gateway, path=path), 401)
    for wrong in (good + "x", good[:-1], "Authorization: Bearer", "Authorization: Basic eDp5"):
        expect_problem(status_of(gateway, wrong), 401)
    assert status_of(gateway, path="/healthz")[0] == 200
    assert status_of(gateway, path="/readyz")[0] == 200
    assert gateway.token() not in gateway.tail(10**7)


def test_token_file(gateway):
    """Nobody but its owner reads the token."""
    assert stat.S_IMODE((gateway.state / "admin.token").stat().st_mode) == 0o600


def test_attempts_are_limited(gateway):
    """Guessing ends after some attempts; the unix socket stays open."""
    statuses = [status_of(gateway, f"Authorization: Bearer guess{i}")[0] for i in range(15)]
    assert statuses == [401] * 10 + [429] * 5
    answer = status_of(gateway, f"Authorization: Bearer {gateway.token()}")
    expect_problem(answer, 429)
    assert 0 < int(answer[1]["retry-after"]) <= 60
    assert gateway.api("GET", "status").status == 200


def test_host(gateway):
    """A name that leads here by somebody else's DNS is refused, token or not."""
    good = f"Authorization: Bearer {gateway.token()}"
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert status_of(gateway, good, host=host)[0] == 200
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
        expect_problem(status_of(gateway, good, host=host), 421)


def test_users_of_the_unix_socket(gateway):
    """A user who is neither root nor in the group does not get in, whatever the file's mode is."""
    gateway.runtime.chmod(0o755)
    gateway.directory.chmod(0o755)
    gateway.socket.chmod(0o666)
    done = gateway.lab.gateway.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS", "-o",
                                   "/dev/null", "-w", "%{http_code}", "--unix-socket", gateway.socket,
                                   "http://localhost/api/v1/status")
    assert done.stdout == "403"


def test_a_flood_of_connections(gateway):
    """As many as one address may have, and more: others are served all the time, and the flood is gone in the end."""
    raw = Raw(gateway, tcp=True)
    held = []
    try:
        for _ in range(100):
            context = raw.connection(timeout=2)
            held.append((context, context.__enter__()))
        assert gateway.api("GET", "/healthz").status == 200
    finally:
        for context, _ in held:
            context.__exit__(None, None, None)
    # A refused connection is closed without an answer; the server has yet to see the ends of the others.
    wait_for(lambda: status_of(gateway, path="/healthz")[0] == 200, 5, "the end of the flood")
