"""The configuration as one document, transactions, history, confirmation, audit, backup: with the real kernel."""

import contextlib
import json
import sqlite3
import time

from api.support import picture, table
from lab.process import wait_for

KIND = {"Content-Type": "application/json"}


def test_round_trip(furnished):
    """What was got is put back, byte for byte."""
    first = furnished.api("GET", "config")
    assert first.status == 200
    put = furnished.api("PUT", "config", first.body, KIND)
    assert put.status == 200, put.text
    assert furnished.api("GET", "config").body == first.body
    assert not put.json["changed"]


def test_replace_and_roll_back(furnished):
    """One document in place of everything, in the kernel at once; and the way back."""
    before = furnished.api("GET", "config").body
    revision = furnished.status()["revision"]
    answer = furnished.must("PUT", "config", {"listeners": [{"name": "only", "destinations": ["192.0.2.55"], "ports": ["1"]}]})
    assert answer["revision"] == revision + 1
    assert "192.0.2.55" in json.dumps(table(furnished))
    assert furnished.must("GET", "upstreams")["total"] == 0
    diff = furnished.must("GET", f"revisions/{revision}/diff")
    assert {"/listeners/only", "/upstreams/pool"} <= {step["path"] for step in diff["diff"]}
    back = furnished.must("POST", f"revisions/{revision}/rollback")
    assert back["revision"] == revision + 2
    assert furnished.api("GET", "config").body == before
    assert "192.0.2.55" not in json.dumps(table(furnished))


def test_the_beginning(furnished):
    """Revision 0, the empty configuration, can be shown, compared and gone back to; pruned away, it is no more."""
    full = furnished.api("GET", "config").body
    now = furnished.status()["revision"]
    first = furnished.must("GET", "revisions/0")
    assert (first["revision"], first["changes"]) == (0, [])
    assert {s["op"] for s in furnished.must("GET", "revisions/0/diff")["diff"]} == {"add"}
    assert {s["path"] for s in furnished.must("GET", f"revisions/{now}/diff?to=0")["diff"]} >= {"/listeners/web", "/upstreams/pool"}
    assert furnished.must("POST", "revisions/0/rollback?dry_run=true")["changed"]
    assert furnished.must("POST", "revisions/0/rollback")["revision"] == now + 1
    assert furnished.must("GET", "listeners")["total"] == furnished.must("GET", "upstreams")["total"] == 0
    furnished.must("POST", f"revisions/{now}/rollback")
    assert furnished.api("GET", "config").body == full
    furnished.must("PATCH", "settings", {"revisions_kept": 10})
    for number in range(12):
        furnished.must("PATCH", "listeners/web", {"comment": str(number)})
    for method, path in (("GET", "revisions/0"), ("GET", "revisions/0/diff"), ("POST", "revisions/0/rollback")):
        assert furnished.api(method, path).status == 404, path


def test_dry_run_changes_nothing(furnished):
    """Each kind of write, rehearsed: a diff and nft text, and everything as it was."""
    before = picture(furnished)
    writes = [
        ("PUT", "listeners/new", {"ports": ["9000"], "destinations": ["192.0.2.66"]}),
        ("PATCH", "listeners/web", {"ports": ["8001"]}),
        ("DELETE", "listeners/dns", None),
        ("PUT", "config", {}),
        ("POST", "transactions", [{"method": "DELETE", "path": "listeners/web"}]),
        ("POST", "revisions/1/rollback", None),
        ("PUT", "upstreams/pool/targets/10.71.2.4:8080", {"weight": 9}),
    ]
    for method, path, body in writes:
        answer = furnished.api(method, path + "?dry_run=true", body)
        assert answer.status == 200, (path, answer.text)
        assert answer.json["dry_run"] and answer.json["diff"], path
    assert "192.0.2.66" in furnished.api("PUT", "listeners/new?dry_run=true", writes[0][2]).json["nft"]
    assert picture(furnished) == before


def test_transaction_is_all_or_nothing(furnished):
    """The last of many is refused: none is done; put right, all are."""
    before = picture(furnished)
    items = [{"method": "POST", "path": "listeners", "body": {"name": f"t-{i}", "ports": [str(2000 + i)]}} for i in range(20)]
    bad = items + [{"method": "PUT", "path": "listeners/last", "body": {"upstream": "nowhere", "ports": ["5000"]}}]
    answer = furnished.api("POST", "transactions", bad)
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"].startswith("/20/body")
    assert picture(furnished) == before
    done = furnished.must("POST", "transactions", items)
    assert [result["status"] for result in done["results"]] == [201] * 20
    assert furnished.must("GET", "listeners?name=t-*")["total"] == 20


def test_confirm(furnished):
    """A change that nobody confirms is taken back; one that is confirmed stays; one waits at a time."""
    before = furnished.api("GET", "config").body
    answer = furnished.api("PUT", "listeners/new?confirm_within=5", {"ports": ["9000"]})
    assert answer.status == 201
    assert answer.headers["Gateway-Confirm-Deadline"]
    revision = int(answer.headers["Gateway-Revision"])
    assert furnished.must("GET", "revisions?limit=1")["pending"]["revision"] == revision
    assert furnished.api("PUT", "listeners/other", {"ports": ["9001"]}).status == 409
    wait_for(lambda: furnished.api("GET", "listeners/new").status == 404, 10, "the change to be taken back")
    assert furnished.api("GET", "config").body == before
    answer = furnished.api("PUT", "listeners/new?confirm_within=5", {"ports": ["9000"]})
    revision = int(answer.headers["Gateway-Revision"])
    assert furnished.api("POST", f"revisions/{revision + 1}/confirm").status == 404
    assert furnished.must("POST", f"revisions/{revision}/confirm")["pending"] is None
    time.sleep(6)
    assert furnished.api("GET", "listeners/new").status == 200


def test_audit(furnished):
    """Accepted and refused writes, with who and what; never a body."""
    furnished.api("PUT", "listeners/audited", {"ports": ["9000"], "comment": "not to be told"})
    furnished.api("PUT", "listeners/audited", {"ports": ["x"], "comment": "not to be told"})
    newest = furnished.must("GET", "audit?limit=2")["items"]
    assert [(entry["method"], entry["path"], entry["status"]) for entry in newest] == [
        ("PUT", "/api/v1/listeners/audited", 422), ("PUT", "/api/v1/listeners/audited", 201)]
    assert newest[0]["detail"].startswith("The content is not valid: /ports/0: ") and newest[1]["detail"] == ""
    assert newest[1]["actor"] == "uid 0" and newest[1]["revision"]
    assert newest[0]["detail"].startswith("The content is not valid: /ports/0: ") and newest[1]["detail"] == ""
    assert "not to be told" not in json.dumps(newest)


def test_the_audit_log_is_only_appended_to(furnished):
    """Nobody changes or deletes an entry over the API; what is left out in the end are the oldest, beyond the limit."""
    furnished.api("DELETE", "listeners/dns")
    first = furnished.must("GET", "audit?limit=1")["items"][0]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("audit", f"audit/{first['id']}"):
            assert furnished.api(method, path, {} if method != "DELETE" else None).status in (404, 405), (method, path)
    assert first in furnished.must("GET", "audit?limit=50")["items"]
    with contextlib.closing(sqlite3.connect(furnished.state / "gateway.db", timeout=10)) as opened, opened:
        opened.execute("INSERT INTO audit (id, at, actor, method, path, status, revision, detail) "
                       "SELECT id + 100000 - 1, at, actor, method, path, status, revision, detail FROM audit WHERE id = ?",
                       (first["id"],))
    furnished.must("PATCH", "listeners/web", {"comment": "the entry's number is now by the limit above the first one's"})
    entries = furnished.must("GET", "audit?limit=1000")["items"]
    assert min(entry["id"] for entry in entries) == first["id"] + 1
    assert entries[0]["path"].endswith("listeners/web") and entries[0]["id"] == first["id"] + 100000


def test_backup(furnished, tmp_path):
    """A database that opens and holds what there is; nothing is left behind."""
    answer = furnished.api("GET", "backup")
    assert answer.headers["Content-Type"] == "application/vnd.sqlite3"
    copy = tmp_path / "gateway.db"
    copy.write_bytes(answer.body)
    with contextlib.closing(sqlite3.connect(copy)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {name for name, in opened.execute("SELECT name FROM listener")} == {"web", "dns"}
    assert not [path for path in (*furnished.state.iterdir(), *furnished.runtime.iterdir()) if "backup" in path.name]


def test_targets(furnished):
    """A target by its own address."""
    path = "upstreams/pool/targets/10.71.2.4:8080"
    assert furnished.must("GET", path)["port"] == 8080
    revision = furnished.status()["revision"]
    assert furnished.must("PATCH", path, {"admin_state": "drain"})["admin_state"] == "drain"
    assert furnished.status()["revision"] == revision
    assert furnished.api("PUT", "upstreams/pool/targets/[fd71:2::9]:0", {}).status == 201
    assert furnished.must("GET", "upstreams/pool/targets")["total"] == 3
    assert furnished.api("DELETE", path).status == 204
    assert [item["address"] for item in furnished.must("GET", "upstreams/pool")["targets"]] == ["10.71.2.3", "fd71:2::9"]
