"""Address sets in bulk: text in, text out, with curl as a user would."""

import ipaddress
import json
import random

from api.support import expect_problem, picture, Raw
from lab.process import wait_for

TEXT = {"Content-Type": "text/plain"}
PATH = "address-sets/blocked/entries"


def entries(gateway, path=PATH):
    """The lines of a set."""
    answer = gateway.api("GET", path)
    assert answer.headers["Content-Type"].startswith("text/plain")
    return answer.text.splitlines()


def canonical(networks):
    """Sorted as the API does: IPv4 first, by address, then by length."""
    return [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n)
            for n in sorted(set(networks), key=lambda n: (n.version, int(n.network_address), n.prefixlen))]


def test_against_a_model(gateway):
    """Random additions, removals and replacements: the set is that of a plain set in Python, each answer counts right."""
    chance = random.Random(7)
    pool = [ipaddress.ip_network((chance.getrandbits(32) & ~0xff, 24 if i % 3 else 32)) for i in range(60)]
    pool += [ipaddress.ip_network((chance.getrandbits(128) & ~0xffff, 112 if i % 2 else 128)) for i in range(40)]
    gateway.must("PUT", "address-sets/blocked", {"comment": "kept"})
    model = set()
    for step in range(60):
        given = set(chance.sample(pool, chance.randrange(1, 30)))
        method = chance.choice(["POST", "POST", "PUT", "DELETE"])
        lines = [str(network) for network in given]
        body, kind = ("\n".join(lines).encode(), TEXT) if step % 2 else (lines, {})
        new = given if method == "PUT" else model | given if method == "POST" else model - given
        answer = gateway.must(method, PATH, body, headers=kind)
        assert (answer["entries"], answer["added"], answer["removed"]) == (len(new), len(new - model), len(model - new))
        assert answer["changed"] == (new != model)
        model = new
        assert entries(gateway) == canonical(model)
    assert gateway.api("GET", PATH, headers={"Accept": "application/json"}).json == canonical(model)
    assert gateway.must("GET", "address-sets/blocked")["comment"] == "kept"
    gateway.stop()
    gateway.start()
    assert entries(gateway) == canonical(model)


def test_saved_beside_the_database(gateway):
    """A large set is saved by a child, soon; an orderly stop saves what is newer; the daemon can start from it."""
    saved = gateway.state / "gateway.lastgood"
    lines = [f"10.{number >> 8}.{number & 255}.1" for number in range(5000)]
    gateway.must("PUT", "address-sets/blocked", {})
    gateway.must("PUT", PATH, "\n".join(lines).encode(), headers=TEXT)
    wait_for(lambda: lines[-1] in saved.read_text(encoding="ascii"), 15, "the saved configuration")
    revision = gateway.must("POST", PATH, ["192.0.2.77"])["revision"]
    gateway.stop()
    assert f'"revision":{revision},' in saved.read_text(encoding="ascii") and "192.0.2.77" in saved.read_text(encoding="ascii")
    for path in gateway.state.glob("gateway.db*"):
        path.unlink()
    gateway.start()
    assert len(entries(gateway)) == 5001


def test_where_the_time_goes(furnished):
    """Server-Timing of a change: each step, and not more than the whole; none where nothing was changed."""
    furnished.must("PUT", "address-sets/blocked", {"entries": ["10.0.0.0/8"]})
    answer = furnished.api("POST", PATH, ["192.0.2.1"])
    times = {part.split(";dur=")[0].strip(): float(part.split(";dur=")[1]) for part in answer.headers["Server-Timing"].split(",")}
    assert list(times) == ["store", "plan", "check", "load", "prepare", "route", "nft", "xdp", "relay", "commit", "audit", "total"]
    assert 0 < times["commit"] < times["total"] and sum(times.values()) - times["total"] <= times["total"]
    assert "Server-Timing" not in furnished.api("POST", PATH, ["192.0.2.1"]).headers
    assert "Server-Timing" not in furnished.api("POST", PATH + "?dry_run=true", ["192.0.2.2"]).headers


def test_refused(furnished):
    """A fault anywhere in the text: its line is told, nothing is changed."""
    furnished.must("PUT", "address-sets/blocked", {"entries": ["10.0.0.0/8"]})
    before = picture(furnished)
    raw = Raw(furnished, tcp=True)
    for body, line in ((b"192.0.2.1\nx\n", 2), (b"\n\n# c\n1.2.3\n", 4), (b"192.0.2.1/24\n", 1), (b"1.1.1.1\n" * 500 + b"\xff\n", 501)):
        for method in ("POST", "PUT", "DELETE"):
            document = expect_problem(raw.send(method, f"/api/v1/{PATH}", body, "text/plain"), 422)
            assert document["errors"][0]["detail"].startswith(f"line {line}: "), document
    expect_problem(raw.say(raw.head("DELETE", f"/api/v1/{PATH}", "Content-Length: 0")), 400)
    expect_problem(raw.say(raw.head("DELETE", f"/api/v1/{PATH}")), 400)
    expect_problem(raw.send("PUT", f"/api/v1/{PATH}", b"1.1.1.1", "text/html"), 415)
    expect_problem(raw.send("PUT", "/api/v1/address-sets/none/entries", b"1.1.1.1", "text/plain"), 404)
    assert picture(furnished) == before


def test_like_other_writes(furnished):
    """Rehearsal, If-Match, confirmation, history and rollback."""
    created = furnished.api("PUT", "address-sets/blocked", {"entries": ["192.0.2.0/24"]})
    first = created.headers["ETag"]
    revision = int(created.headers["Gateway-Revision"])
    rehearsed = furnished.must("POST", PATH + "?dry_run=true", b"192.0.3.1", headers=TEXT)
    assert rehearsed["diff"][0]["after"]["entries"] == ["192.0.3.1"]
    assert rehearsed["diff"][0]["before"]["entries"] == []
    assert entries(furnished) == ["192.0.2.0/24"]
    added = furnished.api("POST", PATH, b"192.0.3.1", {**TEXT, "If-Match": first})
    assert added.status == 200 and added.headers["ETag"] != first
    assert added.headers["ETag"] == furnished.api("GET", PATH).headers["ETag"]
    assert furnished.api("GET", PATH, headers={"If-None-Match": added.headers["ETag"]}).status == 304
    assert furnished.api("POST", PATH, b"192.0.3.2", {**TEXT, "If-Match": first}).status == 412
    waiting = furnished.api("DELETE", PATH + "?confirm_within=60", b"192.0.2.0/24", TEXT)
    assert waiting.headers["Gateway-Confirm-Deadline"] and waiting.json["pending"]["revision"] == waiting.json["revision"]
    assert furnished.api("POST", PATH, b"192.0.3.3", TEXT).status == 409
    furnished.must("POST", f"revisions/{revision}/rollback")
    assert entries(furnished) == ["192.0.2.0/24"]


def test_a_large_set(gateway):
    """A hundred thousand in, one more, all out again as they came; lists count them."""
    lines = canonical(ipaddress.ip_network((0x0b000000 + 2 * i, 32)) for i in range(100000))
    gateway.must("PUT", "address-sets/blocked", {})
    put = gateway.must("PUT", PATH, "\n".join(reversed(lines)).encode(), headers=TEXT)
    assert (put["entries"], put["added"]) == (100000, 100000)
    assert entries(gateway) == lines
    assert gateway.must("POST", PATH, b"10.0.0.1", headers=TEXT)["added"] == 1
    listed = gateway.must("GET", "address-sets")["items"][0]
    assert listed == {"name": "blocked", "comment": "", "entries_count": 100001}
    whole = gateway.api("GET", "address-sets/blocked")
    assert len(whole.json["entries"]) == 100001
    diff = gateway.must("GET", f"revisions/{put['revision']}/diff")
    assert len(json.dumps(diff)) < 1000
    gateway.must("DELETE", PATH, b"10.0.0.1", headers=TEXT)
    config = gateway.api("GET", "config").body
    gateway.stop()
    gateway.start()
    assert entries(gateway) == lines
    assert gateway.api("GET", "config").body == config
