"""Ten malformed requests of each kind: the right problem document each time, and nothing changes anywhere."""

import contextlib
import itertools
import json

import pytest

from api.support import expect_problem, picture, read_answer

pytestmark = pytest.mark.shared_gateway

LISTENERS = "/api/v1/listeners"
WEB = LISTENERS + "/web"
NEW = {"name": "new", "ports": ["9000"]}


def listener(**fields):
    """The bytes of a listener with these fields on top."""
    return json.dumps({**NEW, **fields}).encode()


# Each kind: bodies that are refused with this status, and the code of a fault (None: any).
BODIES = {
    "bad JSON": (400, "malformed", [
        b"", b"{", b"}", b"nonsense", b"[]", b'{"name":}', b'{"name":"new",}', b"{'name':'new'}", b'{"name":"new"} x',
        b'\xff\xfe{"name":"new"}', b'{"name":"n\x00ew"}', b'{"name":"\\ud800"}', b"[" * 5000, b'{"a":' * 500 + b"1" + b"}" * 500,
        b'"new"', b"null", b'{"priority":1e999}', b'{"priority":NaN}',
        listener(priority=2**63), listener(priority=-2**63 - 1), listener(**{"ports\u0000": []}),
    ]),
    "duplicate keys": (400, "duplicate_key", [
        b'{"name":"new","name":"new"}', b'{"name":"new","name":"other"}', b'{"ports":[],"name":"new","ports":["1"]}',
        b'{"name":"new","priority":1,"priority":1}', b'{"name":"new","enabled":true,"enabled":false}',
        b'{"name":"new","comment":"","comment":""}', b'{"name":"new","x":1,"x":2}', b'{"name":"new","\\u006eame":"new"}',
        b'{"name":"new","sources":[],"sources":[]}', b'{"name":"new","action":"drop","action":"relay"}',
    ]),
    "wrong types": (422, None, [
        listener(name=5), listener(name=None), listener(enabled="true"), listener(enabled=1), listener(comment=[]),
        listener(ports="80"), listener(ports=[80]), listener(ports={"a": 1}), listener(priority="5"), listener(priority=1.5),
        listener(protocol=6), listener(upstream=["pool"]), listener(sources=[["10.0.0.0/8"]]), listener(interfaces=[None]),
    ]),
    "unknown keys": (422, "unknown_key", [
        listener(colour=1), listener(**{"": 1}), listener(Name="x"), listener(port="80"), listener(**{"ports ": []}),
        listener(ports_=[]), listener(id=1, uuid=2), listener(__proto__={}), listener(**{"a/b~c": 1}),
        listener(**{"x" * 5000: 1}),
    ]),
    "out of range": (422, None, [
        listener(priority=-1), listener(priority=65536), listener(priority=2**63 - 1), listener(priority=-2**63),
        listener(connect_timeout_ms=9), listener(connect_timeout_ms=600001), listener(idle_timeout_s=0),
        listener(idle_timeout_s=604801), listener(ports=["65536"]), listener(ports=["0"]), listener(ports=["90-80"]),
        listener(protocol="sctp"), listener(destinations=["10.0.0.0/33"]), listener(destinations=["10.0.0.256"]),
        listener(destinations=["10.0.0.9-10.0.0.1"]), listener(action="explode"),
    ]),
    "overlong": (422, None, [
        listener(name="x" * 64), listener(name="x" * 100000), listener(comment="x" * 256), listener(comment="ä" * 128),
        listener(ports=[str(i) for i in range(1, 66)]), listener(sources=[f"10.0.{i}.0/24" for i in range(65)]),
        listener(interfaces=["x" * 16]), listener(interfaces=[f"eth{i}" for i in range(33)]),
        listener(upstream="x" * 64), listener(destinations=["1" * 1000]),
    ]),
}


@pytest.mark.parametrize("kind", BODIES)
def test_body(raw, furnished, kind):
    """POST, PUT and PATCH of what the listener table does not allow."""
    status, code, bodies = BODIES[kind]
    assert len(bodies) >= 10
    before = picture(furnished)
    for body in bodies:
        document = expect_problem(raw.send("POST", LISTENERS, body), status)
        assert document["errors"], body
        if code:
            assert code in [fault["code"] for fault in document["errors"]], body
    for body in bodies[:10]:
        expect_problem(raw.send("PUT", WEB, body), status)
    assert picture(furnished) == before


def test_every_fault_is_told(raw, furnished):
    """One answer, all faults, each with its place."""
    before = picture(furnished)
    body = json.dumps({"enabled": 1, "ports": ["80", "x"], "colour": 1, "priority": -1, "sources": ["10.0.0.0/8", "y"]})
    document = expect_problem(raw.send("POST", LISTENERS, body.encode()), 422)
    assert {"/name", "/enabled", "/ports/1", "/colour", "/priority", "/sources/1"} <= {f["pointer"] for f in document["errors"]}
    assert picture(furnished) == before


KINDS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "text/json",
         "application/json-patch+json", "application/jsonp", "application/json; charset=latin1", "json", "*/*", "", None]


def test_media_type(raw, furnished):
    """Only JSON is read, and only when it says so: a page elsewhere can make a browser send the others."""
    before = picture(furnished)
    for kind in KINDS:
        expect_problem(raw.send("POST", LISTENERS, listener(), kind), 415)
        expect_problem(raw.send("PATCH", WEB, b"{}", kind), 415)
    assert picture(furnished) == before


def test_large_body(raw, furnished):
    """10 MB, by length, in chunks, and after asking for leave; to a client that writes it all before it reads."""
    before = picture(furnished)
    body = b'{"name":"new","comment":"' + b"x" * 10_000_000 + b'"}'
    chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    json_type = "Content-Type: application/json"
    for _ in range(10):
        expect_problem(raw.send("POST", LISTENERS, body), 413)
        expect_problem(raw.say(raw.head("POST", LISTENERS, json_type, "Transfer-Encoding: chunked"), chunk * 160, b"0\r\n\r\n"), 413)
        expect_problem(raw.say(raw.head("PUT", WEB, json_type, "Expect: 100-continue", f"Content-Length: {len(body)}")), 413)
    assert picture(furnished) == before


@pytest.mark.timeout(60)
def test_half_a_request(raw, furnished):
    """Ten of each, held open at once: each is told after its time, and the API answers others meanwhile."""
    before = picture(furnished)
    whole = raw.head("POST", LISTENERS, "Content-Type: application/json", f"Content-Length: {len(listener())}") + listener()
    halves = [whole[:20], whole[:whole.index(b"Host") + 2], whole[:whole.index(b"\r\n\r\n") + 2], whole[:-5], whole[:-1]]
    with contextlib.ExitStack() as stack:
        held = []
        for half in halves:
            for _ in range(10):
                held.append(stack.enter_context(raw.connection(timeout=25)))
                held[-1].sendall(half)
        assert furnished.api("GET", "/healthz", timeout=2).status == 200
        for connection in held:
            answer = read_answer(connection)
            assert expect_problem(answer, 408)
            assert answer[1]["connection"] == "close"
    assert picture(furnished) == before


FRAMING = [
    (400, "POST", LISTENERS, ["Content-Type: application/json", "Content-Length: 4", "Transfer-Encoding: chunked"]),
    (400, "POST", LISTENERS, ["Content-Type: application/json", "Content-Length: 4", "Content-Length: 5"]),
    (400, "POST", LISTENERS, ["Content-Type: application/json", "Content-Length: 4", "Content-Length: 4"]),
    (501, "POST", LISTENERS, ["Content-Type: application/json", "Transfer-Encoding: gzip"]),
    (400, "GET", LISTENERS, ["Host: other"]),
    (400, "GET", LISTENERS, ["Content-Length : 0"]),
    (501, "FOO", LISTENERS, []),
    (501, "TRACE", LISTENERS, []),
    (405, "DELETE", LISTENERS, []),
    (405, "POST", WEB, ["Content-Type: application/json"]),
    (404, "GET", "/api/v1/nothing", []),
    (404, "DELETE", LISTENERS + "/none", []),
    (400, "DELETE", WEB + "?force=1", []),
    (400, "DELETE", LISTENERS + "/%77e%", []),
    (400, "DELETE", LISTENERS + "/web%00", []),
    (412, "DELETE", WEB, ['If-Match: "999999"']),
    (400, "DELETE", WEB, ["If-Match: 1"]),
]


def test_framing_and_addresses(raw, furnished):
    """What is wrong before the body; a request hidden behind it is not executed."""
    before = picture(furnished)
    hidden = raw.head("DELETE", WEB)
    for status, method, path, lines in FRAMING:
        for _ in range(10):
            body = b"0\r\n\r\n" + hidden if status in (400, 501) and method == "POST" else b""
            answer = raw.say(raw.head(method, path, *lines) + body)
            expect_problem(answer, status)
            assert status not in (405, 501) or "gzip" in str(lines) or "allow" in answer[1]
    answer = raw.say(f"GET /api/v1/status HTTP/1.1\r\n{raw.authorization}\r\n".encode())
    expect_problem(answer, 400)
    assert picture(furnished) == before


def test_large_header(raw, furnished):
    """40 kB of header are refused; the daemon stays."""
    before = picture(furnished)
    for _ in range(10):
        assert raw.say(raw.head("DELETE", WEB, "X: " + "y" * 40000))[0] == 431
    assert picture(furnished) == before


def test_conflicts(raw, furnished):
    """What is in conflict with what exists: in use, taken, unknown, overlapping."""
    before = picture(furnished)
    cases = [
        (409, "DELETE", "/api/v1/upstreams/pool", None),
        (409, "POST", LISTENERS, {"name": "web"}),
        (409, "PUT", LISTENERS + "/twin", {"ports": ["8000"], "destinations": ["10.71.2.0/24"]}),
        (422, "PUT", LISTENERS + "/lost", {"ports": ["9000"], "upstream": "nowhere"}),
        (422, "PATCH", WEB, {"name": "renamed"}),
    ]
    for (status, method, path, document), _ in itertools.product(cases, range(10)):
        body = json.dumps(document).encode() if document is not None else b""
        expect_problem(raw.send(method, path, body, "application/json" if document is not None else None), status)
    assert picture(furnished) == before
