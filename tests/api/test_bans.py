"""/bans and /stats/rate-limits: parameters, faults, and the form of the documents. That packets are dropped is tested in
tests/net."""

import json

import pytest

from api.support import expect_problem

pytestmark = pytest.mark.shared_gateway

DAYS_30 = 30 * 86400


@pytest.fixture(autouse=True)
def nobody_stays_banned(gateway):
    """Bans are no configuration: who borrows the gateway next finds none."""
    yield
    for ban in gateway.must("GET", "bans?limit=1000")["items"]:
        gateway.must("DELETE", f"bans?address={ban['address']}")


@pytest.mark.parametrize("prefix", ["192.0.2.7", "192.0.2.0/24", "2001:db8::7", "2001:db8::/47", "0.0.0.0/0"])
def test_one(gateway, prefix):
    """Made, found under its own path, listed, made anew with another time, and lifted."""
    made = gateway.api("POST", "bans", {"address": prefix, "ban_s": 600, "reason": "noise"})
    assert made.status == 201 and made.headers["Location"] == f"/api/v1/bans/{prefix}"
    ban = gateway.must("GET", f"bans/{prefix}")
    assert ban == made.json
    assert (ban["address"], ban["reason"], ban["actor"], ban["rate_limit"]) == (prefix, "noise", "uid 0", None)
    assert (ban["placement"], ban["interfaces"], ban["prefilter"]) == ("nft", [], None) and ban["expires_at"]
    assert gateway.must("GET", "bans") == {"items": [ban], "next": None, "total": 1}
    again = gateway.must("POST", "bans", {"address": prefix, "placement": "xdp"})
    assert (again["expires_at"], again["reason"], again["placement"]) == (None, "", "xdp")
    assert gateway.must("GET", "bans")["total"] == 1
    gateway.must("DELETE", f"bans/{prefix}")
    for method in ("GET", "DELETE"):
        assert gateway.api(method, f"bans/{prefix}").status == 404
    assert gateway.api("DELETE", f"bans?address={prefix}").status == 404


def test_pages(gateway):
    """In the order of prefixes, each once; lifted one by one by the query."""
    prefixes = ["10.0.0.0/8", "10.0.0.1", "192.0.2.7", "2001:db8::/32", "2001:db8::1"]
    for prefix in reversed(prefixes):
        gateway.must("POST", "bans", {"address": prefix})
    found, after = [], ""
    while after is not None:
        page = gateway.must("GET", f"bans?limit=2{after and f'&after={after}'}")
        found += [ban["address"] for ban in page["items"]]
        assert page["total"] == len(prefixes)
        after = page["next"]
    assert found == prefixes
    for prefix in prefixes:
        gateway.must("DELETE", f"bans?address={prefix}")


@pytest.mark.parametrize("body, pointer", [
    ({}, "/address"), ({"address": "noise"}, "/address"), ({"address": "10.0.0.1/8"}, "/address"), ({"address": 7}, "/address"),
    ({"address": "::1", "ban_s": 0}, "/ban_s"), ({"address": "::1", "ban_s": DAYS_30 + 1}, "/ban_s"),
    ({"address": "::1", "ban_s": "1"}, "/ban_s"), ({"address": "::1", "reason": "x" * 256}, "/reason"),
    ({"address": "::1", "reason": None}, "/reason"), ({"address": "::1", "placement": "relay"}, "/placement"),
    ({"address": "::1", "until": 1}, ""),
])
def test_what_is_refused(raw, body, pointer):
    """Each fault with its place, and nobody is banned."""
    document = expect_problem(raw.send("POST", "/api/v1/bans", json.dumps(body).encode()), 422)
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert raw.gateway.must("GET", "bans")["total"] == 0


def test_all_faults_at_once(gateway):
    """Of one body."""
    answer = gateway.api("POST", "bans", {"address": "x", "ban_s": -1, "reason": 1, "placement": 1})
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/address", "/ban_s", "/reason", "/placement"]


def test_the_longest(gateway):
    """The bounds themselves are taken."""
    assert gateway.must("POST", "bans", {"address": "192.0.2.7", "ban_s": DAYS_30, "reason": "ä" * 127 + "x"})["expires_at"]


@pytest.mark.parametrize("path, status", [
    ("bans?limit=0", 400), ("bans?limit=1001", 400), ("bans?after=x", 400), ("bans?colour=1", 400), ("bans/192.0.2.7?x=1", 400),
    ("bans/noise", 404), ("bans/192.0.2.7/33", 404), ("bans/192.0.2.7/24", 404), ("stats/rate-limits?limit=0", 400),
    ("stats/rate-limits?colour=1", 400), ("stats/rate-limits/none", 404), ("stats/rate-limits/none?x=1", 400),
])
def test_paths_and_queries(raw, path, status):
    """What there is not, and what was not meant."""
    expect_problem(raw.say(raw.head("GET", f"/api/v1/{path}")), status)


@pytest.mark.parametrize("path, status", [("bans", 400), ("bans?address=noise", 404), ("bans?prefix=::1", 400), ("bans/noise", 404)])
def test_what_cannot_be_lifted(raw, path, status):
    """No address, no such ban."""
    expect_problem(raw.say(raw.head("DELETE", f"/api/v1/{path}")), status)


def test_never_banned(gateway):
    """Whom the setting exempts: a conflict."""
    gateway.must("PUT", "address-sets/friends", {"entries": ["192.0.2.0/24"]})
    gateway.must("PATCH", "settings", {"ban_exempt": "friends"}, headers={"Content-Type": "application/merge-patch+json"})
    assert gateway.api("POST", "bans", {"address": "192.0.2.7"}).status == 409
    assert gateway.must("GET", "bans")["total"] == 0


def test_limits_at_work(gateway):
    """Each limit with where it is enforced and its listeners; sources only of a limit that tells them apart."""
    for name, key in (("a", "source"), ("b", "listener"), ("c", "source")):
        gateway.must("PUT", f"rate-limits/{name}", {"key": key, "metric": "new_connections", "rate": 10, "burst": 10})
    gateway.must("PUT", "rate-limits/b", {"key": "listener", "metric": "packets", "rate": 10, "burst": 10, "mode": "shadow"})
    gateway.listener("web", ports=["8000"], action="reject", rate_limits=["a", "b"])
    first = gateway.must("GET", "stats/rate-limits?limit=2")
    last = gateway.must("GET", f"stats/rate-limits?after={first['next']}")
    assert (first["next"], first["total"], last["next"], last["total"]) == ("b", 3, None, 3)
    a, b, c = first["items"] + last["items"]
    assert [(one["name"], one["placement"], one["mode"]) for one in (a, b, c)] == [
        ("a", "nft", "enforce"), ("b", "nft", "shadow"), ("c", "none", "enforce")]
    assert [one["listeners"] for one in (a, b, c)] == [[{"listener": "web", "passed": 0, "over": 0}]] * 2 + [[]]
    assert a["sources"] == {"ipv4": 0, "ipv6": 0, "size": 65536} and b["sources"] is None
    assert gateway.must("GET", "stats/rate-limits/a") == a
