"""The bench and the soak themselves: they run from end to end, and what they count as wrong is wrong.

Short runs that say nothing about figures; without them, a change of the API or of a load would be noticed only by
whoever measures next.
"""

import json
import os
import subprocess
import sys

import pytest

from lab.gateway import ROOT
from soak.judge import MISMATCHES, Kills, judge

sys.path.insert(0, str(ROOT / "tests/bench"))

from rows import ALL, Verdict  # noqa: E402 pylint: disable=wrong-import-position

BY_NAME = {row.name: row for row in ALL}
ROWS = ["bulk1", "small", "64k", "connections", "udp64-1", "events"]


def run_program(*command):
    """One of the programs, as ./dev runs it; needs the release build."""
    if not (ROOT / "build/release/bin/gatewayd").exists():
        pytest.skip("no release build here")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=env, check=False)


@pytest.mark.timeout(240)
def test_the_bench_runs(tmp_path):
    """Each kind of load once through forwarding and gatewayd; every figure is one, and gatewayd is judged or says why not."""
    out = tmp_path / "result.json"
    done = run_program(ROOT / "tests/bench/bench.py", "--rounds", 1, "--seconds", 0.3, "--rows", *ROWS, "--contenders",
                       "forwarding", "gatewayd", "--json", out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert {row["name"] for row in rows} == set(ROWS)
    for row in rows:
        for name in ("forwarding", "gatewayd"):
            if name in row["not_supported"]:
                assert row["name"].startswith("udp") and "UDP" in row["not_supported"][name]
            else:
                assert row["contenders"][name]["median"]["figure"] > 0, row
    assert "bulk1" in done.stdout and "requirements reached" in done.stdout


@pytest.mark.timeout(400)
def test_the_soak_runs(tmp_path):
    """A few seconds of it, without a fault and with connections of every kind."""
    out = tmp_path / "result.json"
    done = run_program("-m", "soak.soak", "--minutes", 0.15, "--json", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    result = json.loads(out.read_text())
    assert {"plain", "slow", "reset", "cut", "killed", "echo", "udp"} == set(result["connections"])
    assert set(result["mismatches"]) == set(MISMATCHES)
    assert result["counts"]["short_connections"] > 0 and result["counts"]["api_writes"] > 0


def outcome(kind="plain", end="eof", received=10, expected=10, **more):
    """What one side says."""
    return {"seed": "s", "kind": kind, "end": end, "received": received, "expected": expected, "corrupt": False,
            "send_error": None, "slow": "", **more}


@pytest.mark.parametrize("client, server, expected", [
    (outcome(), outcome(), {}),
    (outcome(), None, {"missing": 1}),
    (outcome(received=9), outcome(), {"broken": 1}),
    (outcome(), outcome(end="ConnectionResetError"), {"broken": 1}),
    (outcome(send_error="broken pipe"), outcome(), {"broken": 1}),
    (outcome(corrupt=True), outcome(), {"corrupt": 1}),
    (outcome("killed"), outcome("killed", received=3), {}),
    (outcome("killed"), outcome("killed", received=3, corrupt=True), {"corrupt": 1}),
    (outcome("killed"), outcome("killed", end="stuck"), {"stuck": 1}),
    (outcome("reset"), outcome("reset", end="ConnectionResetError", received=3), {}),
    (outcome("reset"), outcome("reset", received=3), {"false_end": 1}),
    (outcome("reset"), outcome("reset", received=3, send_error="reset by peer"), {}),
    (outcome("cut", received=3), outcome("cut", received=3), {"false_end": 1}),
    (outcome("cut", end="ConnectionResetError", received=3), outcome("cut", received=3), {}),
    (outcome(end="connect: refused"), None, {"refused": 1}),
    (outcome("udp", received=9), None, {"lost": 1}),
    (outcome("udp", corrupt=True), None, {"corrupt": 1}),
    (outcome("udp"), None, {}),
    (outcome("echo", end="lost: eof"), None, {"broken": 1}),
    (outcome(end="first line: reset"), outcome("?", end="TimeoutError"), {"broken": 1, "stuck": 1}),
])
def test_what_the_soak_calls_wrong(client, server, expected):
    """Each mismatch, and what only looks like one."""
    found = judge([client], [server] if server else [], Kills([], 0.25, 0, 0))[1]
    assert {name: count for name, count in found.items() if count} == expected


@pytest.mark.parametrize("opened, broke, expected", [
    (9.9, 10.1, {}), (9.6, 10.1, {}), (9.4, 10.1, {"broken": 1}),  # young, within the slack, old
    (9.9, 9.95, {"broken": 1}), (10.1, 10.2, {"broken": 1}),  # it broke before the kill, it began after it
])
def test_what_a_kill_excuses(opened, broke, expected):
    """A connection that was broken by the death of the relay, and was too young to outlive it."""
    kills = Kills([10], 0.25, 0.25, 0)
    client = outcome(end="ConnectionResetError", received=3, began_s=opened, opened_s=opened, broke_s=broke)
    found = judge([client], [outcome()], kills)[1]
    assert {name: count for name, count in found.items() if count} == expected


def figure(value, **more):
    """A median."""
    return {"figure": value, **more}


@pytest.mark.parametrize("row, ours, forwarding, rival, ok", [
    ("bulk1", 9.6, 10, 5, True), ("bulk1", 9, 10, 9, False), ("bulk1", 6, 10, 5, True), ("bulk1", 6, 10, None, False),
    ("small", 8000, 10000, 6600, True), ("small", 8000, 10000, 7000, False), ("small", 8000, None, 7000, None),
    ("idle", 100, 0, 800, True), ("idle", 101, 0, 800, False), ("idle", 101, 0, None, None),
    ("udp64-1", 20, 30, 10, True), ("udp64-1", 19, 30, 10, False),
    ("events", 150, 100, 200, True), ("events", 151, 100, 200, False), ("events", 99, 100, 90, True),
    ("events", 101, 100, 90, False),
])
def test_what_the_bench_calls_reached(row, ours, forwarding, rival, ok):
    """The requirements, at their limits."""
    verdict = BY_NAME[row].judge(*(figure(v) if v is not None else None for v in (ours, forwarding, rival)))
    assert isinstance(verdict, Verdict) and verdict.ok is ok, verdict.text


def test_new_connections_are_judged_by_their_latency_too():
    """A good rate with a bad 99th percentile does not do."""
    row, forwarding, rival = BY_NAME["connections"], figure(10000, p99_us=1), figure(5000, p99_us=100)
    assert row.judge(figure(9000, p99_us=100), forwarding, rival).ok is True
    assert row.judge(figure(9000, p99_us=101), forwarding, rival).ok is False
