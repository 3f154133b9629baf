"""The OpenAPI document: that it describes what the daemon does, and that the check would notice if it did not."""

import copy
import json

import pytest

from api.contract import CONTRACT, Contract
from lab.gateway import UnixConnection

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def contract(gateway):
    """A contract of its own, whose faults are looked at here."""
    connection = UnixConnection(gateway.socket)
    connection.request("GET", "/api/v1/openapi.json")
    made = Contract()
    made.load(json.loads(connection.getresponse().read()))
    connection.close()
    return made


LISTENER = "/api/v1/listeners/web"
KIND = {"Content-Type": "application/json"}


def test_the_check_notices(contract, furnished):
    """Each kind of difference between the document and an exchange is found."""
    good = furnished.api("GET", "listeners/web")
    headers = dict(good.headers)

    def faults(*exchange):
        contract.faults.clear()
        contract.exchange(*exchange)
        return " ".join(contract.faults)

    def answered(**changes):
        return json.dumps({**good.json, **changes}).encode()

    assert not faults("GET", LISTENER, {}, b"", 200, headers, good.body)
    assert "sctp" in faults("GET", LISTENER, {}, b"", 200, headers, answered(protocol="sctp"))
    assert "surprise" in faults("GET", LISTENER, {}, b"", 200, headers, answered(surprise=1))
    assert "'name'" in faults("GET", LISTENER, {}, b"", 200, headers, b"{}")
    assert "not JSON" in faults("GET", LISTENER, {}, b"", 200, headers, b"{")
    assert "299, which is not declared" in faults("GET", LISTENER, {}, b"", 299, headers, good.body)
    assert "text/html" in faults("GET", LISTENER, {}, b"", 200, {**headers, "Content-Type": "text/html"}, b"x")
    assert "gateway-new" in faults("GET", LISTENER, {}, b"", 200, {**headers, "Gateway-New": "1"}, good.body)
    assert "colour" in faults("GET", LISTENER + "?colour=1", {}, b"", 200, headers, good.body)
    assert "not declared" in faults("GET", "/api/v1/secrets", {}, b"", 200, headers, good.body)
    assert "priority" in faults("PUT", LISTENER, KIND, b'{"priority":"high"}', 200, headers, good.body)
    assert "text/plain" in faults("PUT", LISTENER, {"Content-Type": "text/plain"}, b"{}", 200, headers, good.body)
    assert "Allow has" in faults("POST", LISTENER, {}, b"", 405, {"Allow": "GET, HEAD, OPTIONS"}, b"")
    assert "confirm_within" in faults("PUT", LISTENER + "?confirm_within=1", KIND, b"{}", 200, headers, good.body)
    assert not faults("PUT", LISTENER + "?confirm_within=10", KIND, b"{}", 200, {**headers, "Gateway-Revision": "1"}, good.body)


def test_references(contract):
    """Every local reference leads somewhere, and every example is one of its schema."""
    def walk(value, found):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found.append(value)
            for inner in value.values():
                walk(inner, found)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, found)
        return found

    references = walk(contract.document, [])
    assert len(references) > 100
    for reference in references:
        assert contract.resolve(reference) is not None
    for method, path in contract.operations():
        operation = contract.document["paths"][path][method.lower()]
        for answer in map(contract.resolve, [*operation["responses"].values(), operation.get("requestBody", {})]):
            for kind, content in answer.get("content", {}).items():
                if "example" in content and kind.endswith("json"):
                    assert not list(contract.schema_faults(content["schema"], content["example"])), (method, path)


def test_a_broken_document_is_noticed(contract, furnished):
    """A document that lacks a path, a status or a field is found out by what the daemon answers."""
    good = furnished.api("GET", "listeners/web")
    for damage in ("path", "status", "field"):
        document = copy.deepcopy(contract.document)
        if damage == "path":
            del document["paths"]["/api/v1/listeners/{name}"]
        elif damage == "status":
            document["paths"]["/api/v1/listeners/{name}"]["get"]["responses"].pop("200")
            document["paths"]["/api/v1/listeners/{name}"]["get"]["responses"].pop("default", None)
        else:
            del document["components"]["schemas"]["listener"]["properties"]["ports"]
        broken = Contract()
        broken.load(document)
        broken.exchange("GET", LISTENER, {}, b"", 200, dict(good.headers), good.body)
        assert broken.faults, damage


def test_all_exchanges_were_as_declared(request):
    """What all API tests of this run met; and, if all of them ran, that they left no operation out."""
    if CONTRACT.document is None:
        pytest.skip("no other test of the API ran")
    told = [f"{fault}   (in {where})" for fault, where in sorted(CONTRACT.faults.items())]
    files = {item.path.name for item in request.session.items if item.path.parent == request.node.path.parent}
    if files >= {path.name for path in request.node.path.parent.glob("test_*.py")} and not request.config.getoption("keyword"):
        told += [f"{method} {path}: no test asks for it" for method, path in sorted(CONTRACT.operations() - CONTRACT.exercised)]
    assert not told, "\n".join(["the API is not as its document says:", *told])
