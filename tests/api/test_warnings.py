"""What was accepted, and relies on something that is not there: told in the answer, and before, in a dry run."""

import pytest

pytestmark = pytest.mark.shared_gateway

LISTENER = {"ports": ["80"], "interfaces": ["in0", "nowhere0"]}


def warnings(answer):
    """The headers' texts."""
    return answer.headers.get_all("Gateway-Warning") or []


def test_an_interface_that_is_not_there(gateway):
    """By way of a resource, a dry run and a transaction: which of them, and where it is named; not of what is off."""
    answer = gateway.api("PUT", "listeners/web", LISTENER)
    assert answer.status == 201 and len(warnings(answer)) == 1
    assert warnings(answer)[0].startswith('no_interface; There is no interface "nowhere0" now:')
    told = gateway.must("PUT", "listeners/web?dry_run=true", {**LISTENER, "priority": 2})["warnings"]
    assert [(one["code"], one["pointer"]) for one in told] == [("no_interface", "/interfaces/1")]
    done = gateway.must("POST", "transactions", [
        {"method": "PUT", "path": "listeners/there", "body": {"ports": ["81"], "interfaces": ["in0"]}},
        {"method": "PUT", "path": "listeners/web", "body": {**LISTENER, "priority": 3}}])
    assert [(one["code"], one["pointer"]) for one in done["warnings"]] == [("no_interface", "/1/body/interfaces/1")]
    assert warnings(gateway.api("PUT", "listeners/web", {**LISTENER, "enabled": False})) == []
    assert warnings(gateway.api("PUT", "listeners/web", {**LISTENER, "interfaces": ["in0"]})) == []


def test_there_are_not_too_many(gateway):
    """A document of all may name any number of them."""
    document = gateway.must("GET", "config")
    document["listeners"] = [{"name": f"l{n}", "ports": [str(1000 + n)], "interfaces": [f"no{k}" for k in range(32)]}
                             for n in range(5)]
    assert len(gateway.must("PUT", "config", document)["warnings"]) == 100


@pytest.mark.parametrize("field, value", [("routes", [{"sni": ["a.example"], "action": "reject"}]), ("proxy_protocol", "v2"),
                                          ("source_address", "gateway"), ("protocol", "udp"),
                                          ("accept_proxy_protocol", ["192.0.2.1"])])
def test_a_mover_that_is_not_used(gateway, field, value):
    """Connections without sockets, and something that needs them; not if nothing does, nor with another mover."""
    wanted = {"ports": ["80"], "mover": "kernel"}
    assert gateway.must("PUT", "listeners/web?dry_run=true", wanted)["warnings"] == []
    told = gateway.must("PUT", "listeners/web?dry_run=true", {**wanted, field: value})["warnings"]
    assert [(one["code"], one["pointer"]) for one in told] == [("mover_not_used", "/mover")]
    assert field in told[0]["detail"]
    assert gateway.must("PUT", "listeners/web?dry_run=true", {"ports": ["80"], field: value})["warnings"] == []
