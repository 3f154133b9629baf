"""POST /relay/restart: who may, what it answers, and that another relay serves then. What becomes of flows is tested in
tests/net."""

from api.support import Raw, expect_problem
from lab.process import wait_for


def test_restart(gateway):
    """An operator may; the relay that is told hands over, and another one serves."""
    tokens = {role: gateway.must("POST", "tokens", {"name": f"t-{role}", "role": role})["token"]
              for role in ("viewer", "operator")}

    def ask(role):
        key = f"Authorization: Bearer {tokens[role]}\r\n" if role else ""
        return Raw(gateway, tcp=True).say(
            f"POST /api/v1/relay/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{key}\r\n".encode())

    expect_problem(ask(None), 401)
    expect_problem(ask("viewer"), 403)
    old = gateway.relay_pid()
    assert ask("operator")[0] == 202
    gateway.wait_relay(old)
    assert wait_for(lambda: gateway.status()["relay"]["state"] == "running", 5, "the next relay")
    audit = gateway.must("GET", "audit")["items"]
    assert ("token t-operator", 202) in [(one["actor"], one["status"]) for one in audit if one["path"] == "/api/v1/relay/restart"]


def test_refused(gateway):
    """Unknown parameters are faults, other methods are not allowed, and a relay that cannot be followed goes on."""
    assert gateway.api("POST", "relay/restart?soon=1").status == 400
    assert gateway.api("GET", "relay/restart").headers["Allow"] == "POST, OPTIONS"
    gateway.break_relay()
    assert gateway.api("POST", "relay/restart").status in (409, 503)
    gateway.mend_relay()
