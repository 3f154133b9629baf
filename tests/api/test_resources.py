"""The resources as a user of curl meets them; each write is in the kernel when its answer is there."""

import json

import pytest

from api.support import WHOLE, furnish_fully, table

pytestmark = pytest.mark.shared_gateway

LISTENERS = "/api/v1/listeners"


def curl(gateway, *arguments):
    """curl over the unix socket; returns (status, headers, document or None)."""
    done = gateway.lab.gateway.run("curl", "-sS", "-i", "--unix-socket", gateway.socket, *arguments)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    lines = head.split("\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(body) if body.strip() else None


def kernel_text(gateway):
    """Our table as text to search in."""
    return json.dumps(table(gateway))


def test_in_the_kernel_with_the_answer(gateway):
    """Create, change, disable, enable, delete: nft shows it right after each."""
    url = "http://localhost" + LISTENERS
    kind = ("-H", "Content-Type: application/json")
    empty = kernel_text(gateway)
    status, headers, document = curl(gateway, url, *kind, "-d", '{"name":"web","destinations":["192.0.2.77"],"ports":["4711"]}')
    assert (status, headers["location"], document["ports"]) == (201, LISTENERS + "/web", ["4711"])
    assert headers["gateway-revision"] == headers["etag"].strip('"')
    assert "192.0.2.77" in kernel_text(gateway) and "4711" in kernel_text(gateway)
    status, _, document = curl(gateway, f"{url}/web", *kind, "-X", "PATCH", "-d", '{"ports":["4712"]}')
    assert (status, document["ports"]) == (200, ["4712"])
    assert "4712" in kernel_text(gateway) and "4711" not in kernel_text(gateway)
    assert curl(gateway, f"{url}/web", *kind, "-X", "PATCH", "-d", '{"enabled":false}')[0] == 200
    assert "192.0.2.77" not in kernel_text(gateway)
    assert curl(gateway, f"{url}/web", *kind, "-X", "PUT", "-d", '{"destinations":["192.0.2.78"]}')[0] == 200
    assert "192.0.2.78" in kernel_text(gateway)
    status, headers, document = curl(gateway, f"{url}/web", "-X", "DELETE")
    assert (status, document) == (204, None)
    assert "gateway-revision" in headers
    assert "192.0.2.78" not in kernel_text(gateway)
    assert curl(gateway, f"{url}/web")[0] == 404
    assert ("192.0.2" in empty, "192.0.2" in kernel_text(gateway)) == (False, False)


def test_everything_comes_back_as_it_was_put(gateway):
    """A listener with every field set to something else than its default."""
    gateway.upstream("pool", [("10.71.2.3", 0)])
    whole = {
        "name": "all", "enabled": False, "comment": "ä ☂ \"quoted\"", "protocol": "tcp", "interfaces": ["eth0", "in0"],
        "sources": ["fd71:1::/64"], "destinations": ["fd71:2::/64"], "ports": ["443", "8000-8100"], "action": "relay",
        "upstream": "pool", "source_address": "gateway", "on_worker_down": "direct", "connect_timeout_ms": 10,
        "idle_timeout_s": 604800, "priority": 65535,
    }
    assert gateway.api("POST", "listeners", whole).status == 201
    got = gateway.must("GET", "listeners/all")
    assert {key: got[key] for key in whole} == whole
    assert gateway.api("PUT", "listeners/all", got).status == 200


def test_preconditions(gateway):
    """Two writers: the second one is told that the object has changed."""
    created = gateway.api("PUT", "listeners/web", {"ports": ["80"]}, headers={"If-None-Match": "*"})
    assert created.status == 201
    first = created.headers["ETag"]
    assert gateway.api("PUT", "listeners/web", {}, headers={"If-None-Match": "*"}).status == 412
    assert gateway.api("GET", "listeners/web", headers={"If-None-Match": first}).status == 304
    changed = gateway.api("PATCH", "listeners/web", {"comment": "a"}, headers={"If-Match": first})
    assert changed.status == 200 and changed.headers["ETag"] != first
    for method, body in (("PATCH", {"comment": "b"}), ("PUT", {}), ("DELETE", None)):
        stale = gateway.api(method, "listeners/web", body, headers={"If-Match": first})
        assert stale.status == 412 and stale.headers["Content-Type"] == "application/problem+json"
    assert gateway.must("GET", "listeners/web")["comment"] == "a"
    assert gateway.api("DELETE", "listeners/web", headers={"If-Match": changed.headers["ETag"]}).status == 204


@pytest.mark.parametrize("path", [*(f"{path}/{next(iter(whole.values()))}" for path, whole in WHOLE.items()), "settings",
                                  "config", "upstreams/pool/targets/10.71.2.3:8080", "address-sets/small/entries"])
def test_a_stale_tag_is_refused_everywhere(gateway, path):
    """Every object has a tag, and no method writes it for somebody who knows another one."""
    furnish_fully(gateway)
    got, config, tokens = gateway.api("GET", path), gateway.api("GET", "config").body, gateway.must("GET", "tokens")
    assert got.headers["ETag"].startswith('"') and got.headers["ETag"] != '"0"'
    methods = {"config": ["PUT"], "settings": ["PUT", "PATCH"], "address-sets/small/entries": ["PUT", "POST", "DELETE"]}
    for method in methods.get(path, ["PUT", "PATCH", "DELETE"]):
        body = None if method == "DELETE" and "entries" not in path else [] if "entries" in path else {}
        stale = gateway.api(method, path, body, headers={"If-Match": '"0"'})
        assert stale.status == 412 and stale.json["status"] == 412, (method, stale)
    assert gateway.api("GET", path).headers["ETag"] == got.headers["ETag"]
    assert gateway.api("GET", "config").body == config and gateway.must("GET", "tokens") == tokens
    assert "override" not in (got.json if "targets" in path else {}) or gateway.must("GET", path)["override"] is None


def test_pages(gateway):
    """Walking through the pages meets every name once, in order."""
    names = sorted(f"l-{i}" for i in range(23))
    for i, name in enumerate(names):
        gateway.listener(name, ports=[str(1000 + i)])
    met, after = [], ""
    while after is not None:
        page = gateway.must("GET", f"listeners?limit=5&name=l-*{after}")
        assert page["total"] == len(names)
        met += [item["name"] for item in page["items"]]
        after = f"&after={page['next']}" if page["next"] else None
    assert met == names
    assert [item["name"] for item in gateway.must("GET", "listeners?name=l-7")["items"]] == ["l-7"]


@pytest.mark.parametrize("path", ["listeners", "upstreams", "status", "schema", "openapi.json"])
def test_head_and_options(gateway, path):
    """HEAD tells the length that GET has; OPTIONS the methods."""
    got, head = gateway.api("GET", path), gateway.api("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert path == "status" or head.headers["Content-Length"] == str(len(got.body))
    allowed = gateway.api("OPTIONS", path)
    assert allowed.status == 204 and "GET, HEAD" in allowed.headers["Allow"]


def test_system(gateway):
    """Liveness, readiness, ruleset, documents."""
    assert gateway.api("GET", "/healthz").text == "ok\n"
    assert gateway.api("GET", "/readyz").status == 200
    gateway.listener("web", destinations=["192.0.2.99"], ports=["80"])
    for query in ("", "?format=applied", "?format=desired"):
        ruleset = gateway.api("GET", "ruleset" + query)
        assert ruleset.headers["Content-Type"].startswith("text/plain")
        assert "192.0.2.99" in ruleset.text
    assert gateway.must("GET", "openapi.json")["openapi"].startswith("3.1")
    assert gateway.must("GET", "/openapi.json") == gateway.must("GET", "openapi.json")
    assert gateway.must("GET", "schema")


def test_every_answer_says_how_it_may_be_used(gateway):
    """The security headers."""
    for path in ("status", "listeners/none", "/healthz"):
        headers = gateway.api("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "default-src 'self'" in gateway.api("GET", "/").headers["Content-Security-Policy"]
