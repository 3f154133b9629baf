"""Every kind of resource with every field filled in: one by one, and as one document, byte for byte."""

import json

import pytest

from api.support import furnish_fully, WHOLE

pytestmark = pytest.mark.shared_gateway

LARGE = 1500


@pytest.fixture
def full(gateway):
    """A gateway with one of each, no field at its default."""
    return furnish_fully(gateway)


def configured(document):
    """Without what is observed, which nobody wrote."""
    return {key: value for key, value in document.items() if key != "observed"}


@pytest.mark.parametrize("path", WHOLE)
def test_one(gateway, path):
    """Made, got, listed, changed, put back, deleted; nothing is lost and nothing is made up."""
    furnish_fully(gateway, up_to=path)
    whole = WHOLE[path]
    key = next(iter(whole))
    name = whole[key]
    answer = gateway.api("POST", path, whole)
    assert answer.status == 201, answer
    assert answer.headers["Location"] == f"/api/v1/{path}/{name}"
    made = answer.json
    made.pop("token", None)
    assert configured(made) == whole and ("observed" in made) == (path == "prefilters")
    assert gateway.api("POST", path, whole).status == 409
    assert configured(gateway.must("GET", f"{path}/{name}")) == whole
    assert [configured(item) for item in gateway.must("GET", f"{path}?name={name}")["items"]] == [whole]
    if "comment" in whole:
        changed = gateway.must("PATCH", f"{path}/{name}", {"comment": None})
        assert configured(changed) == {**whole, "comment": ""}
    else:
        gateway.must("PATCH", f"{path}/{name}", {})
    assert configured(gateway.must("PUT", f"{path}/{name}", whole)) == whole
    assert gateway.api("PUT", f"{path}/{name}", {**whole, "colour": 1}).status == 422
    assert gateway.api("DELETE", f"{path}/{name}").status == 204
    assert gateway.api("GET", f"{path}/{name}").status == 404


def test_settings(gateway):
    """The one row that there always is."""
    first = gateway.must("GET", "settings")
    assert gateway.must("PATCH", "settings", {"drift": "alert"}) == {**first, "drift": "alert"}
    assert gateway.must("PUT", "settings", {"revisions_kept": 77}) == {**first, "revisions_kept": 77}
    assert gateway.must("GET", "status")
    for method in ("POST", "DELETE"):
        assert gateway.api(method, "settings").status == 405
    gateway.must("PUT", "settings", first)


def test_defaults_differ(gateway):
    """WHOLE leaves no field at its default, or a field that is lost on the way would not be noticed.

    Two have one word only that goes with the rest: routes are for tcp, an upstream is for relay."""
    for path, whole in WHOLE.items():
        kept = {key: whole[key] for key in list(whole)[:1]}
        kept.update({key: whole[key] for key in ("rate", "role") if path == "rate-limits" and key in whole})
        name = kept[next(iter(kept))]
        bare = gateway.must("PUT", f"{path}/{name}", kept)
        same = [key for key in whole if key not in kept and bare[key] == whole[key]]
        assert same == (["protocol", "action"] if path == "listeners" else []), path
        gateway.must("DELETE", f"{path}/{name}")
    tables = gateway.must("GET", "schema")
    assert {resource["path"] for resource in tables["resources"] if resource.get("path")} == {*WHOLE, "settings"}


def test_round_trip_of_everything(full):
    """GET, PUT on an empty gateway, GET: the same bytes, and no revision for what is the same already."""
    first = full.api("GET", "config")
    document = first.json
    assert all(document[kind] for kind in document), document.keys()
    assert len(document["address_sets"][0]["entries"]) > LARGE or len(document["address_sets"][1]["entries"]) > LARGE
    full.must("PUT", "config", {})
    assert full.api("GET", "config").body != first.body
    put = full.must("PUT", "config", first.body)
    assert put["changed"]
    assert full.api("GET", "config").body == first.body
    again = full.must("PUT", "config", first.body)
    assert not again["changed"] and again["revision"] == put["revision"]
    pretty = json.dumps(document, indent=4).encode()
    assert not full.must("PUT", "config", pretty)["changed"]


def test_round_trip_over_a_restart(full):
    """What the database gives back is what was put into it."""
    first = full.api("GET", "config").body
    full.stop()
    full.start()
    assert full.api("GET", "config").body == first


def test_history_of_one(full):
    """A revision by itself: what it changed, of a large set only what differs."""
    answer = full.api("POST", "address-sets/large/entries", b"203.0.113.9\n", {"Content-Type": "text/plain"})
    revision = full.must("GET", f"revisions/{answer.json['revision']}")
    assert "203.0.113.9" in json.dumps(revision) and len(json.dumps(revision)) < 2000
    assert full.must("GET", "revisions?limit=1")["items"][0]["revision"] == answer.json["revision"]


def test_targets_are_made_by_post(full):
    """A target more, without putting the whole upstream."""
    answer = full.api("POST", "upstreams/pool/targets", {"address": "10.71.2.99", "port": 8099})
    assert answer.status == 201
    assert answer.headers["Location"] == "/api/v1/upstreams/pool/targets/10.71.2.99:8099"
    assert full.api("POST", "upstreams/pool/targets", {"address": "10.71.2.99", "port": 8099}).status == 409
