"""A copy of the database taken while the gateway works, and a second life from it."""

import contextlib
import shutil
import sqlite3
import subprocess
import threading

from api.support import database, furnish_fully, table


def rows(path):
    """The copy as SQL text, like support.database for the live one."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
        return [line for line in opened.iterdump()
                if not line.startswith(('INSERT INTO "audit"', 'INSERT INTO "sqlite_sequence" VALUES(\'audit\''))]


def backup(gateway, path):
    """GET /backup into a file."""
    answer = gateway.api("GET", "backup")
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/vnd.sqlite3"
    path.write_bytes(answer.body)
    path.chmod(0o600)


def test_equals_the_live_data(gateway, tmp_path):
    """Every table, row by row; the sqlite3 command reads it as well."""
    furnish_fully(gateway)
    backup(gateway, tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db") == database(gateway)
    done = subprocess.run(["sqlite3", tmp_path / "copy.db", "PRAGMA integrity_check; SELECT name FROM listener;"],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "ok\nall\n"


def test_under_writes(gateway, tmp_path):
    """A copy taken between writes holds a whole configuration of one revision: pairs of rows that one transaction
    makes are both in it or neither."""
    failures, ended = [], threading.Event()

    def write():
        number = 0
        while not ended.is_set():
            number += 1
            done = gateway.api("POST", "transactions", [
                {"method": "PUT", "path": f"address-sets/{side}", "body": {"comment": str(number)}} for side in ("left", "right")])
            if done.status != 200:
                failures.append(done)
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        comments = set()
        for i in range(15):
            backup(gateway, tmp_path / f"{i}.db")
            with contextlib.closing(sqlite3.connect(tmp_path / f"{i}.db")) as opened:
                assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                left_and_right = [comment for comment, in opened.execute("SELECT comment FROM address_set")]
                assert len(left_and_right) in (0, 2) and len(set(left_and_right)) <= 1
                comments |= set(left_and_right)
    finally:
        ended.set()
        writer.join()
    assert not failures
    assert len(comments) > 1, "nothing was written meanwhile"


def test_restore(gateway, make_gateway, tmp_path):
    """The copy in the state of another daemon: the same configuration, kernel state, history and tokens."""
    furnish_fully(gateway)
    gateway.listener("web", destinations=["192.0.2.44"], ports=["8000"])
    config, history = gateway.api("GET", "config").body, gateway.must("GET", "revisions")["items"]
    tokens, kernel = gateway.must("GET", "tokens"), table(gateway)
    backup(gateway, tmp_path / "copy.db")
    gateway.must("PUT", "config", {})
    assert "192.0.2.44" not in str(table(gateway))
    gateway.stop()
    gateway.run_once("--cleanup")
    second = make_gateway(start=False)
    shutil.copy(tmp_path / "copy.db", second.state / "gateway.db")
    check = second.run_once("--check")
    assert check.returncode == 0, check.stderr
    second.start()
    assert second.api("GET", "config").body == config
    assert second.must("GET", "revisions")["items"] == history
    assert second.must("GET", "tokens") == tokens
    assert comparable(table(second)) == comparable(kernel)
    revision = second.must("PUT", "config", {})["revision"]
    assert revision == history[0]["revision"] + 1
    second.must("POST", f"revisions/{history[0]['revision']}/rollback")
    assert second.api("GET", "config").body == config


def comparable(value):
    """An nft document without what counts objects up and without the port that each daemon's relay takes anew."""
    if isinstance(value, dict):
        if "tproxy" in value:
            return "to the relay"
        return {key: comparable(item) for key, item in value.items() if key != "handle"}
    return [comparable(item) for item in value] if isinstance(value, list) else value
