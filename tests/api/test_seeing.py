"""GET /doctor and POST /explain: what they answer, and what they refuse. That they are right is tested in tests/net."""

import pytest

from api.support import expect_problem, Raw

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
    {**PACKET, "destination_port": 0}, {**PACKET, "destination_port": 65536}, {**PACKET, "colour": 1}, []])
def test_explain_refuses(gateway, body):
    """What is no packet, with the place of the fault."""
    answer = gateway.api("POST", "explain", body)
    assert answer.status in (400, 422), answer
    assert answer.json["errors"] or answer.json["detail"]


def test_who_may_ask(gateway):
    """Both need a token over the network."""
    for line in ("GET /api/v1/doctor", "POST /api/v1/explain"):
        request = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        expect_problem(Raw(gateway, tcp=True).say(request.encode()), 401)
