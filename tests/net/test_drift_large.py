"""Drift of a table of many elements: looked at in a child process, while the daemon goes on answering and changing."""

import os
import time
from pathlib import Path

import pytest

from lab import kernel
from lab.process import wait_for
from net.control import expect_kernel_as_desired, redirect, target_of

ENTRIES = 12000
SET = "tcp4_d32_s0_exact_drop"


@pytest.fixture
def large(gateway):
    """A gateway whose table is above APPLY_LARGE."""
    redirect(gateway)
    gateway.must("PUT", "address-sets/big", {"entries": []})
    text = "".join(f"10.200.{n >> 8}.{n & 255}\n" for n in range(ENTRIES)).encode()
    assert gateway.api("PUT", "address-sets/big/entries", text, {"Content-Type": "text/plain"}).status == 200
    gateway.must("PUT", "listeners/big", {"destinations": ["@big"], "ports": ["443"], "action": "drop"})
    return gateway


def children(pid):
    """Processes of the daemon's own program under it: not the relay and the like."""
    program, found = os.readlink(f"/proc/{pid}/exe"), []
    for path in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if os.readlink(f"/proc/{path}/exe") == program:
                found.append(int(path))
        except OSError:
            pass
    return found


def elements(lab):
    """How many lie in the big set."""
    return len(next(o["set"] for o in kernel.nft_json(lab.gateway, "table", "inet", "gatewayd")
                    if o.get("set", {}).get("name") == SET)["elem"])


@pytest.mark.parametrize("damage", [
    f"delete element inet gatewayd {SET} {{ 10.200.0.1 . 443, 10.200.20.20 . 443 }}",
    f"add element inet gatewayd {SET} {{ 10.201.0.1 . 443 }}",
    f"flush set inet gatewayd {SET}",
    "flush chain inet gatewayd prerouting",
    "delete table inet gatewayd",
], ids=["less", "more", "flush", "chain", "table"])
def test_a_large_table_is_healed(lab, nginx, large, damage):
    """Whatever was done to it; nothing of the child is left."""
    lab.gateway.nft(damage + "\n")
    wait_for(lambda: large.status()["drift"]["healed"] >= 1, 30, "the healing")
    assert elements(lab) == ENTRIES
    assert large.status()["drift"]["last"]["process"] == "nft"
    assert target_of(lab) == "10.71.2.3"
    expect_kernel_as_desired(lab, large)
    assert not children(large.process.pid)


@pytest.mark.parametrize("another", [True, False], ids=["another change", "no other change"])
def test_answers_and_writes_while_a_child_looks(lab, nginx, large, another):
    """The child is stopped in its look: the API answers, a write is made, and what the child finds afterwards is not
    taken for drift; a change of others during the look is found by the next."""
    lab.gateway.nft("add set inet gatewayd theirs { type ipv4_addr; }\n")
    child = wait_for(lambda: children(large.process.pid), 10, "the child", interval=0.001)[0]
    os.kill(child, 19)
    try:
        for number in range(5):
            assert large.api("GET", "/healthz").status == 200
            large.must("PUT", f"listeners/more{number}", {"ports": [str(9000 + number)], "upstream": "second"})
        if another:
            lab.gateway.nft("add set inet gatewayd theirs2 { type ipv4_addr; }\n")
        time.sleep(0.3)
        assert large.status()["drift"]["healed"] == 0
    finally:
        os.kill(child, 18)
    wait_for(lambda: not {"theirs", "theirs2"} & {o.get("set", {}).get("name")
                                                  for o in kernel.nft_json(lab.gateway, "table", "inet", "gatewayd")},
             30, "the healing")
    wait_for(lambda: not children(large.process.pid), 30, "the end of the child")
    expect_kernel_as_desired(lab, large)
    assert large.api("GET", "/readyz").status == 200


def test_a_child_that_is_killed_is_no_drift_unseen(lab, nginx, large):
    """A look without an answer is made again."""
    lab.gateway.nft("add set inet gatewayd theirs { type ipv4_addr; }\n")
    child = wait_for(lambda: children(large.process.pid), 10, "the child", interval=0.001)[0]
    os.kill(child, 9)
    wait_for(lambda: large.status()["drift"]["healed"] >= 1, 30, "the healing")
    expect_kernel_as_desired(lab, large)
