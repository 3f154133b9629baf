"""PATCH of a target: runtime state of operators, apart from the configuration."""

import pytest

from net.control import Events

pytestmark = pytest.mark.shared_gateway

PATH = "upstreams/pool/targets/10.71.2.4:8080"


def token(gateway, role):
    """A bearer header of a new token with this role."""
    made = gateway.must("POST", "tokens", {"name": f"t-{role}", "role": role})
    return {"Authorization": f"Bearer {made['token']}"}


def test_no_revision_but_told(furnished):
    """In force at once, in no revision, in the audit log and the events; shown apart from what is configured."""
    revision, configuration = furnished.status()["revision"], furnished.api("GET", "config").body
    before = furnished.must("GET", PATH)
    assert before["override"] is None and before["drain"] is None and before["usable"] is True
    with Events(furnished, "target") as events:
        answer = furnished.api("PATCH", PATH, {"admin_state": "drain", "weight": 5, "drain_deadline_s": 600})
        assert answer.status == 200 and "Gateway-Revision" not in answer.headers
        event = events.wait("target")
        assert (event["upstream"], event["target"], event["admin_state"]) == ("pool", "10.71.2.4:8080", "drain")
        assert event["actor"] == "uid 0" and event["change"] == "operator"
    seen = furnished.must("GET", PATH)
    assert (seen["admin_state"], seen["weight"], seen["usable"]) == ("drain", 5, False)
    assert seen["configured"] == {"admin_state": before["admin_state"], "weight": before["weight"]}
    assert seen["override"]["actor"] == "uid 0" and seen["drain"]["deadline"] and seen["drain"]["reset_per_s"] == 100
    assert furnished.status()["revision"] == revision and furnished.api("GET", "config").body == configuration
    entry = furnished.must("GET", "audit?limit=1")["items"][0]
    assert (entry["method"], entry["path"], entry["status"]) == ("PATCH", f"/api/v1/{PATH}", 200)
    assert [item["weight"] for item in furnished.must("GET", "upstreams/pool/targets")["items"]
            if item["address"] == "10.71.2.4"] == [5]


def test_back_to_the_configuration(furnished):
    """null takes a word back; a field that is configured anew ends it; other writes leave it alone."""
    furnished.must("PATCH", PATH, {"admin_state": "down", "weight": 0})
    assert furnished.must("PATCH", PATH, {"weight": None})["weight"] == 1
    furnished.must("PATCH", "upstreams/pool", {"comment": "changed"})
    assert furnished.must("GET", PATH)["admin_state"] == "down"
    furnished.must("PUT", PATH, {"weight": 3})
    assert (furnished.must("GET", PATH)["admin_state"], furnished.must("GET", PATH)["weight"]) == ("down", 3)
    furnished.must("PUT", PATH, {"weight": 3, "admin_state": "drain"})
    seen = furnished.must("GET", PATH)
    assert seen["admin_state"] == "drain" and seen["override"] is None
    furnished.must("PATCH", PATH, {"admin_state": "up"})
    furnished.must("DELETE", PATH)
    furnished.must("PUT", PATH, {})
    assert furnished.must("GET", PATH)["override"] is None, "a target of the same name is another one"


@pytest.mark.parametrize("body, pointer, code", [
    ({"admin_state": "off"}, "/admin_state", "bad_value"),
    ({"weight": 257}, "/weight", "out_of_range"),
    ({"weight": "1"}, "/weight", "wrong_type"),
    ({"backup": True}, "/backup", "unknown_key"),
    ({"drain_deadline_s": 5}, "/drain_deadline_s", "not_applicable"),
    ({"admin_state": "drain", "drain_reset_per_s": 0}, "/drain_reset_per_s", "out_of_range"),
    ({"admin_state": "up", "drain_deadline_s": 604801}, "/drain_deadline_s", "out_of_range"),
])
def test_faults(furnished, body, pointer, code):
    """What cannot be is refused, and nothing of it is done."""
    before = furnished.must("GET", PATH)
    answer = furnished.api("PATCH", PATH, body)
    assert answer.status == 422, answer
    assert (answer.json["errors"][0]["pointer"], answer.json["errors"][0]["code"]) == (pointer, code)
    assert furnished.must("GET", PATH) == before


def test_who_may(furnished):
    """Operators say what targets do now; configuring them is for admins."""
    tcp = "http://127.0.0.1:8080"
    for role, patch, put in (("viewer", 403, 403), ("operator", 200, 403), ("admin", 200, 200)):
        headers = token(furnished, role)
        for method, expected, body, kind in (("PATCH", patch, '{"weight":2}', "application/merge-patch+json"),
                                             ("PUT", put, '{"weight":1}', "application/json")):
            done = furnished.lab.gateway.run(
                "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-d", body, "-H",
                f"Content-Type: {kind}", "-H", f"Authorization: {headers['Authorization']}", f"{tcp}/api/v1/{PATH}")
            assert done.stdout == str(expected), (role, method)
    assert furnished.api("POST", "transactions", [{"method": "PATCH", "path": PATH, "body": {"weight": 2}}]).status == 422
