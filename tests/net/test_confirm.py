"""Commit-confirm for real: a change nobody keeps is taken back in store, kernel and traffic, whatever happened to the
daemon meanwhile."""

import time

import pytest

from lab import kernel
from lab.gateway import end_process
from lab.process import wait_for
from net.control import Events, database, expect_kernel_as_desired, expect_sound, redirect, target_of

pytestmark = pytest.mark.shared_gateway


@pytest.fixture
def changed(lab, nginx, gateway):
    """change(seconds): listener web leads to another server, unless that is confirmed in time."""
    base = redirect(gateway)
    before = kernel.our_table(lab.gateway)
    assert target_of(lab) == "10.71.2.3"

    def change(seconds):
        body = {"name": "web", "ports": ["8000", "8001"], "upstream": "second"}
        answer = gateway.api("PUT", f"listeners/web?confirm_within={seconds}", body)
        assert answer.status == 200, answer
        assert answer.headers["Gateway-Confirm-Deadline"]
        assert int(answer.headers["Gateway-Revision"]) == base + 1
        assert target_of(lab) == "10.71.2.4", "the change is in force meanwhile"
        assert target_of(lab, port=8001) == "10.71.2.4"
        assert kernel.our_table(lab.gateway) != before
        return base

    change.before = before
    return change


def expect_reverted(lab, gateway, base, before, seconds, actor="commit-confirm"):
    """Back in every plane: history, configuration, kernel, traffic."""
    wait_for(lambda: gateway.status()["revision"] == base + 2, seconds, "the way back", interval=0.05)
    status = gateway.status()
    assert status["pending"] is None
    assert gateway.must("GET", "listeners/web")["upstream"] == "first"
    assert gateway.must("GET", "listeners/web")["ports"] == ["8000"]
    assert before is None or kernel.our_table(lab.gateway) == before
    expect_kernel_as_desired(lab, gateway)
    assert target_of(lab) == "10.71.2.3"
    assert target_of(lab, port=8001) == "10.71.2.2", "the second port is not caught any more"
    newest = gateway.must("GET", f"revisions/{base + 2}")
    assert newest["actor"] == actor
    assert gateway.must("GET", f"revisions/{base}/diff?to={base + 2}")["diff"] == []
    expect_sound(gateway)


def test_by_the_timer(lab, gateway, changed):
    """Nobody confirms; status and events count down, and tell when it is over."""
    with Events(gateway) as events:
        base = changed(5)
        pending = gateway.status()["pending"]
        assert pending["revision"] == base + 1 and pending["base"] == base
        assert 0 < pending["seconds_left"] <= 5
        assert gateway.must("GET", "revisions")["pending"] == pending
        events.wait("pending", lambda d: d["revision"] == base + 1 and d["seconds_left"] >= 0)
        wait_for(lambda: gateway.status()["pending"]["seconds_left"] < pending["seconds_left"], 5, "the countdown")
        expect_reverted(lab, gateway, base, changed.before, 8)
        over = events.wait("pending", lambda d: d["revision"] == 0)
        assert (over["outcome"], over["settled"]) == ("reverted", base + 1)
        told = [data for kind, data in events.seen if kind == "pending" and data["revision"] == base + 1]
        assert [data["seconds_left"] for data in told][-4:] == [4, 3, 2, 1], told
        assert all(data["base"] == base and data["deadline"] == pending["deadline"] for data in told)
        events.wait("revision", lambda d: d["revision"] == base + 2 and d["actor"] == "commit-confirm")


def test_confirmed_in_time(lab, gateway, changed):
    """Confirmed, it stays: beyond the deadline, and over a restart."""
    base = changed(5)
    assert gateway.api("POST", f"revisions/{base}/confirm").status == 404, "another revision"
    answer = gateway.api("POST", f"revisions/{base + 1}/confirm")
    assert answer.status == 200 and answer.json["pending"] is None, answer
    assert gateway.api("POST", f"revisions/{base + 1}/confirm").status == 404, "a second time"
    time.sleep(6)
    assert gateway.status()["revision"] == base + 1
    assert target_of(lab) == "10.71.2.4"
    gateway.kill()
    gateway.start()
    assert gateway.status()["revision"] == base + 1
    assert gateway.status()["pending"] is None
    assert target_of(lab) == "10.71.2.4"


def test_kill_before_the_deadline(lab, gateway, changed):
    """kill -9, a start before the deadline: still pending, then taken back."""
    base = changed(8)
    gateway.kill()
    assert target_of(lab) == "10.71.2.4", "without a daemon everything stays"
    gateway.start()
    pending = gateway.status()["pending"]
    assert pending["revision"] == base + 1 and pending["seconds_left"] <= 8
    assert gateway.api("PUT", "upstreams/third", {"name": "third", "targets": []}).status == 409
    expect_reverted(lab, gateway, base, changed.before, 12)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_start_after_the_deadline(lab, gateway, changed, end):
    """The deadline passes while no daemon runs: the start takes it back."""
    base = changed(3600)
    getattr(gateway, end)()
    with database(gateway, write=True) as opened:
        (mark,) = opened.execute("SELECT value FROM meta WHERE key = 'pending'").fetchone()
        revision, back, _deadline = mark.split()
        assert (int(revision), int(back)) == (base + 1, base)
        opened.execute("UPDATE meta SET value = ? WHERE key = 'pending'", (f"{revision} {back} {int(time.time()) - 5}",))
    gateway.start()
    expect_reverted(lab, gateway, base, changed.before, 5)


def test_reboot_after_the_deadline(lab, gateway, changed):
    """The same when nothing of ours is in the kernel any more, and the clock alone did it."""
    base, relay = changed(5), gateway.relay_pid()
    gateway.kill()
    gateway.run_once("--cleanup")
    end_process(relay)
    time.sleep(5.5)
    gateway.start()
    expect_reverted(lab, gateway, base, None, 5)  # not the table of before: the relay has another port now


def test_killed_while_taking_back(lab, gateway, changed):
    """kill -9 at the very deadline, a few times: in the end it is taken back once, and the kernel agrees."""
    base = changed(5)
    deadline = time.time() + gateway.status()["pending"]["seconds_left"]
    for _ in range(6):
        time.sleep(max(0.0, deadline - time.time() - 0.2))
        gateway.kill()
        gateway.start()
        deadline = time.time() + 0.3
    expect_reverted(lab, gateway, base, changed.before, 8)


def test_one_at_a_time(lab, gateway, changed):
    """While a change waits every other write is 409, with the revision named; reads and rehearsals are not."""
    base = changed(60)
    writes = [
        ("PUT", "listeners/other", {"name": "other", "ports": ["9"]}),
        ("PUT", "listeners/web?confirm_within=60", {"name": "web", "ports": ["8000"]}),
        ("PATCH", "listeners/web", {"ports": ["9"]}),
        ("DELETE", "listeners/web", None),
        ("PUT", "config", gateway.must("GET", "config") | {"listeners": []}),
        ("POST", "transactions", [{"method": "DELETE", "path": "/listeners/web"}]),
    ]
    before = kernel.our_table(lab.gateway)
    for method, path, body in writes:
        answer = gateway.api(method, path, body)
        assert answer.status == 409, (method, path, answer)
        assert str(base + 1) in answer.text, answer
    assert kernel.our_table(lab.gateway) == before
    assert gateway.status()["revision"] == base + 1
    assert gateway.api("PUT", "listeners/other?dry_run=true", writes[0][2]).status == 200
    answer = gateway.api("POST", f"revisions/{base}/rollback")
    assert answer.status == 200, answer
    expect_reverted(lab, gateway, base, changed.before, 2, "uid 0")
    assert gateway.api("PUT", "listeners/other", writes[0][2]).status == 201, "writes are free again"


@pytest.mark.parametrize("seconds", ["0", "4", "-1", "x", "86401", "99999999999", ""])
def test_bad_times(gateway, seconds):
    """What is no time in the range is refused before anything is done."""
    revision = gateway.status()["revision"]
    answer = gateway.api("PUT", f"listeners/l?confirm_within={seconds}", {"name": "l", "ports": ["9"]})
    assert answer.status == 400, answer
    assert gateway.status()["revision"] == revision


def test_transactions_and_documents_wait_too(lab, gateway, changed):
    """PUT /config and a transaction with a deadline are taken back whole."""
    document = gateway.must("GET", "config")
    base = gateway.status()["revision"]
    wanted = document | {"listeners": [{"name": f"l{n}", "ports": [str(9000 + n)]} for n in range(50)]}
    assert gateway.api("PUT", "config?confirm_within=5", wanted).status == 200
    assert len(gateway.must("GET", "listeners?limit=1000")["items"]) == 50
    expect_reverted(lab, gateway, base, changed.before, 8)
    steps = [{"method": "DELETE", "path": "/listeners/web"},
             {"method": "PUT", "path": "/upstreams/third", "body": {"name": "third", "targets": []}}]
    base = gateway.status()["revision"]
    answer = gateway.api("POST", "transactions?confirm_within=5", steps)
    assert answer.status == 200, answer
    assert target_of(lab) == "10.71.2.2"
    expect_reverted(lab, gateway, base, changed.before, 8)
    assert gateway.api("GET", "upstreams/third").status == 404
