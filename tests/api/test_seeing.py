"""GET /doctor and POST /explain: what they answer, and what they refuse. That they are right is tested in tests/net."""

import json

import pytest

from api.support import expect_problem, Raw

pytestmark = pytest.mark.shared_gateway

PACKET = {"protocol": "tcp", "source": "10.71.1.2", "destination": "10.71.2.2", "destination_port": 8000}


def test_doctor(gateway):
    """Each check has a name of its own; what is red has words to mend it, and is a warning of the status."""
    document = gateway.must("GET", "doctor")
    names = [check["name"] for check in document["checks"]]
    assert len(names) == len(set(names)) > 10
    assert document["ok"] == all(check["ok"] for check in document["checks"])
    assert all(check["detail"] and (check["ok"] or check["fix"]) for check in document["checks"])
    red = {check["name"] for check in document["checks"] if not check["ok"]}
    assert red <= {warning["code"] for warning in gateway.status()["warnings"]}
    answer = gateway.api("POST", "doctor/probe")
    assert answer.status == 202 and answer.json == {"targets": 0}


def test_explain(gateway):
    """From the listener to the target, or that there is none."""
    stages = {stage["stage"]: stage["verdict"] for stage in gateway.must("POST", "explain", PACKET)["stages"]}
    assert stages["nft"] == "none"
    gateway.upstream("pool", [("10.71.2.3", 8080)])
    gateway.listener("web", ports=["8000"], upstream="pool")
    answer = gateway.must("POST", "explain", {**PACKET, "source_port": 40000, "interface": "in0"})
    stages = {stage["stage"]: stage for stage in answer["stages"]}
    assert (stages["nft"]["listener"], stages["nft"]["verdict"]) == ("web", "relay")
    assert stages["upstream"]["candidates"][0]["address"] == "10.71.2.3"


@pytest.mark.parametrize("body", [
    {}, {**PACKET, "protocol": "sctp"}, {**PACKET, "source": "somewhere"}, {**PACKET, "destination": "fd71:2::2"},
    {**PACKET, "sni": "a.example", "http_host": "b.example"}, {**PACKET, "sni": "no name"}, {**PACKET, "http_path": ""},
    {**PACKET, "http_host": "a.example:80"}, {**PACKET, "alpn": "x" * 256}, {**PACKET, "destination_port": 0}, {**PACKET, "destination_port": 65536}, {**PACKET, "colour": 1}, []])
def test_explain_refuses(gateway, body):
    """What is no packet, with the place of the fault."""
    answer = gateway.api("POST", "explain", body)
    assert answer.status in (400, 422), answer
    assert answer.json["errors"] or answer.json["detail"]


def test_trace(gateway):
    """Armed, listed, told, ended; what is kept has a bound."""
    order = {**PACKET, "seconds": 60, "packets": 3}
    answer = gateway.api("POST", "trace", order)
    assert answer.status == 201 and answer.headers["Location"] == f"/api/v1/trace/{answer.json['id']}"
    assert (answer.json["state"], answer.json["why"], answer.json["packets"]) == ("armed", None, [])
    one = gateway.must("GET", answer.headers["Location"])
    assert one["source_port"] is None and one["packets_max"] == 3
    assert gateway.api("DELETE", answer.headers["Location"]).status == 204
    assert gateway.must("GET", answer.headers["Location"])["why"] == "ended"
    for _ in range(16):
        gateway.must("DELETE", gateway.api("POST", "trace", order).headers["Location"])
    assert len(gateway.must("GET", "trace")["items"]) == 16
    assert gateway.api("GET", answer.headers["Location"]).status == 404


@pytest.mark.parametrize("change, pointer", [
    ({"seconds": 0}, "/seconds"), ({"seconds": 301}, "/seconds"), ({"packets": "x"}, "/packets"), ({"packets": 201}, "/packets"),
    ({"interface": "in0"}, "/interface"), ({"source": "x"}, "/source"), ({"protocol": "icmp"}, "/protocol"), ({"more": 1}, "")])
def test_trace_refuses(gateway, change, pointer):
    """What cannot be traced, with the place of the fault."""
    answer = gateway.api("POST", "trace", {**PACKET, **change})
    assert answer.status == 422 and pointer in [fault["pointer"] for fault in answer.json["errors"]]


@pytest.mark.parametrize("number", ["0", "99", "x", "1" * 30])
def test_no_such_trace(gateway, number):
    """Numbers of none."""
    assert gateway.api("GET", f"trace/{number}").status == 404
    assert gateway.api("DELETE", f"trace/{number}").status == 404


def test_who_may_ask(gateway):
    """All need a token over the network; tracing is for operators."""
    viewer = gateway.must("POST", "tokens", {"name": "looker", "role": "viewer"})["token"]
    body = json.dumps(PACKET)
    request = (f"POST /api/v1/trace HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {viewer}\r\n"
               f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    expect_problem(Raw(gateway, tcp=True).say(request.encode()), 403)
    request = f"POST /api/v1/doctor/probe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {viewer}\r\nContent-Length: 0\r\n\r\n"
    expect_problem(Raw(gateway, tcp=True).say(request.encode()), 403)
    for line in ("GET /api/v1/doctor", "POST /api/v1/doctor/probe", "POST /api/v1/explain", "POST /api/v1/trace", "GET /api/v1/trace"):
        request = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        expect_problem(Raw(gateway, tcp=True).say(request.encode()), 401)
