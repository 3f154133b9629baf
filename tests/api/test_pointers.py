"""Where a fault of the plan lies: pointers into the request, whatever its form; and the limit on a listener's lists."""

import pytest

pytestmark = pytest.mark.shared_gateway

NETS = [f"10.{n}.0.0/24" for n in range(64)]


def lists(ports):
    """A listener of 64 x 64 networks."""
    return {"destinations": NETS, "sources": NETS, "ports": [str(100 + n) for n in range(ports)]}


def test_the_product_of_lists_has_a_limit(gateway):
    """64 x 64 x 4 is the limit itself; one port more, or two interfaces, are too much: which list, and in words."""
    assert gateway.api("PUT", "listeners/big", lists(4)).status == 201
    revision = gateway.status()["revision"]
    for body in (lists(5), lists(64), lists(3) | {"interfaces": ["eth0", "eth1"]}):
        answer = gateway.api("PUT", "listeners/bigger", body)
        assert answer.status == 422
        fault = answer.json["errors"][0]
        assert (fault["code"], fault["pointer"]) == ("too_complex", "/destinations")
        assert "16384" in fault["detail"] and "bigger" in fault["detail"]
    assert gateway.status()["revision"] == revision
    # Ranges count as the prefixes they are split into: these are 14 of each.
    wide = {"destinations": ["10.0.0.1-10.0.0.254"], "sources": ["10.1.0.1-10.1.0.254"],
            "ports": [str(100 + n) for n in range(64)]}
    assert gateway.api("PUT", "listeners/wide", wide).status == 201
    assert gateway.api("PUT", "listeners/wide", wide | {"interfaces": ["a", "b"]}).status == 422


def test_sets_do_not_get_around_the_limit_of_all(gateway):
    """Entries of a set count with the ports they are used with; what makes them too many is at fault."""
    def entries(count):
        return "".join(f"10.0.{n >> 8}.{n & 255}\n" for n in range(count)).encode()

    gateway.must("PUT", "address-sets/many", {"entries": ["10.0.0.1", "10.0.0.2"]})
    fan = {"destinations": ["@many"], "ports": [str(100 + n) for n in range(60)], "action": "drop"}
    gateway.must("PUT", "listeners/fan", fan)
    answer = gateway.api("PUT", "address-sets/many/entries", entries(20000), {"Content-Type": "text/plain"})
    assert answer.status == 422
    assert (answer.json["errors"][0]["code"], answer.json["errors"][0]["pointer"]) == ("too_complex", "")
    assert "fan" in answer.json["errors"][0]["detail"]
    gateway.api("DELETE", "listeners/fan")
    assert gateway.api("PUT", "address-sets/many/entries", entries(20000), {"Content-Type": "text/plain"}).status == 200
    answer = gateway.api("PUT", "listeners/fan", fan)
    assert answer.status == 422
    assert (answer.json["errors"][0]["code"], answer.json["errors"][0]["pointer"]) == ("too_complex", "/destinations")


def test_ranges_of_many_addresses_have_sets_of_their_own(gateway):
    """A range for many addresses is as quick as one port; for a few it lies with other ranges, which have a bound."""
    def entries(first, count):
        return "".join(f"{first}.0.{n >> 8}.{n & 255}\n" for n in range(count)).encode()

    text = {"Content-Type": "text/plain"}
    gateway.must("PUT", "address-sets/many", {"entries": ["10.0.0.1"]})
    gateway.must("PUT", "address-sets/many/entries", entries(10, 20000), headers=text)
    gateway.must("PUT", "listeners/wide", {"destinations": ["@many"], "action": "drop", "ports": ["2-65533"]})
    assert "tcp4_d32_s0_p2-65533_drop" in gateway.api("GET", "ruleset").text
    gateway.must("PUT", "listeners/wide", {"destinations": ["@many"], "action": "drop", "ports": ["1-65535"]})
    assert "-65533_" not in gateway.api("GET", "ruleset").text
    for first in range(11, 21):
        gateway.must("PUT", f"address-sets/few{first}", {"entries": [f"{first}.0.0.1"]})
        gateway.must("PUT", f"address-sets/few{first}/entries", entries(first, 2000), headers=text)
    for first in range(11, 20):
        gateway.must("PUT", f"listeners/few{first}", {"destinations": [f"@few{first}"], "action": "drop", "ports": ["2-65533"]})
    answer = gateway.api("PUT", "listeners/last", {"destinations": ["@few20"], "action": "drop", "ports": ["2-65533"]})
    assert answer.status == 422
    fault = answer.json["errors"][0]
    assert (fault["code"], fault["pointer"]) == ("too_complex", "/ports")
    assert '"last"' in fault["detail"] and "524288" in fault["detail"]


@pytest.mark.parametrize("ports, item", [(["1", "80", "81"], "/ports/1"), (["1-2", "70-90"], "/ports/1"), ([], "/ports")])
def test_a_tie_names_the_item(gateway, ports, item):
    """The same fault by way of a resource, a document and a transaction."""
    gateway.listener("first", ports=["80"] if "80" in ports else ["75-85"] if ports else [], destinations=["10.9.0.0/24"])
    tied = {"name": "other", "ports": ports if item != "/ports/1" or "80" in ports else ["1-2", "80-90"],
            "destinations": ["10.9.0.0/24"]}
    for method, path, body, base in (
            ("PUT", "listeners/other", tied, ""),
            ("POST", "listeners", tied, ""),
            ("POST", "transactions", [{"method": "PUT", "path": "listeners/x", "body": {"ports": ["7"]}},
                                      {"method": "PUT", "path": "listeners/other", "body": tied}], "/1/body")):
        answer = gateway.api(method, path, body)
        assert answer.status == 409, answer.text
        fault = answer.json["errors"][0]
        assert (fault["code"], fault["pointer"]) == ("overlap", base + item)
        assert '"first"' in fault["detail"] and '"other"' in fault["detail"]
    document = gateway.must("GET", "config")
    document["listeners"].append(tied)
    answer = gateway.api("PUT", "config", document)
    assert answer.status == 409
    assert answer.json["errors"][0]["pointer"] == f"/listeners/{len(document['listeners']) - 1}{item}"


def test_unknown_references_in_a_document(gateway):
    """What refers to nothing is pointed at in the document too."""
    answer = gateway.api("PUT", "config", {"listeners": [{"name": "a", "ports": ["1"]},
                                                         {"name": "b", "ports": ["2"], "upstream": "nowhere"}]})
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"] == "/listeners/1/upstream"


def test_the_sentence_says_where(gateway):
    """Who reads nothing but `detail` learns which field is meant, and whether there are more faults."""
    one = gateway.api("POST", "/api/v1/listeners", {"name": "new", "prots": ["80"]})
    assert one.json["detail"] == "/prots: " + one.json["errors"][0]["detail"]
    two = gateway.api("POST", "/api/v1/listeners", {"name": "new", "prots": ["80"], "ports": ["0"]})
    assert two.json["detail"].startswith(two.json["errors"][0]["pointer"] + ": ") and two.json["detail"].endswith(" (and 1 more)")
    whole = gateway.api("POST", "/api/v1/revisions/9999/rollback")
    assert whole.json["detail"] == whole.json["errors"][0]["detail"]
