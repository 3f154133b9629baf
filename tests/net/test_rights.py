"""What the daemon may do once it has started, as the kernel tells it."""

import os
from pathlib import Path

from lab.process import wait_for
from net.control import redirect, target_of

# Numbers of linux/capability.h.
KEPT = {"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12,
        "CAP_NET_RAW": 13, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
MASK = sum(1 << number for number in KEPT.values())
RELAY_MASK = 1 << KEPT["CAP_NET_RAW"] | 1 << KEPT["CAP_NET_BIND_SERVICE"]


def status_of(pid, task=None):
    """The fields of /proc/PID/status that are about rights."""
    path = Path(f"/proc/{pid}/task/{task}/status" if task else f"/proc/{pid}/status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in path.read_text().splitlines())}


def test_the_daemon_keeps_what_it_needs(lab, gateway):
    """Of root's rights only the named ones are left, in every thread and in the bounding set; the status says so."""
    pid = gateway.process.pid
    for task in (p.name for p in Path(f"/proc/{pid}/task").iterdir()):
        rights = status_of(pid, task)
        for field in ("CapPrm", "CapEff", "CapBnd"):
            assert int(rights[field], 16) & ~MASK == 0, (field, rights[field])
        assert int(rights["CapInh"], 16) == int(rights["CapAmb"], 16) == 0
        assert rights["NoNewPrivs"] == "1"
    assert int(status_of(pid)["CapEff"], 16) == MASK & int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    told = gateway.status()["rights"]
    effective = int(status_of(pid)["CapEff"], 16)
    assert set(told["capabilities"]) == {name for name, number in KEPT.items() if effective >> number & 1}
    assert told["others"] == 0


def test_what_it_needs_is_enough(lab, nginx, gateway):
    """Everything that needs a right after the start: a relay killed and started under its own user, a rule and a table
    healed, a hung relay ended, a write."""
    redirect(gateway)
    for signal in ("KILL", "STOP"):
        relay = gateway.status()["relay"]["pid"]
        lab.gateway.run("kill", f"-{signal}", relay)
        if signal == "STOP":
            gateway.api("PATCH", "listeners/web", {"comment": "the hung one is killed for it"}, timeout=30)
        wait_for(lambda before=relay: gateway.status()["relay"]["pid"] not in (before, None)
                 and gateway.api("GET", "/readyz").status == 200, 20, "another relay")
        rights = status_of(gateway.status()["relay"]["pid"])
        assert int(rights["CapEff"], 16) & ~RELAY_MASK == 0 and int(rights["CapBnd"], 16) & ~RELAY_MASK == 0
        assert rights["Uid"].split()[0] != "0"
        assert target_of(lab) == "10.71.2.3"
    lab.gateway.run("nft", "flush", "ruleset")
    lab.gateway.run("ip", "rule", "del", "pref", 101)
    wait_for(lambda: gateway.status()["drift"]["healed"] >= 1 and gateway.api("GET", "/readyz").status == 200, 5, "the healing")
    gateway.must("PATCH", "listeners/web", {"upstream": "second"})
    assert target_of(lab) == "10.71.2.4"
    assert gateway.api("GET", "backup").status == 200


def test_a_restart_takes_everything_over(lab, nginx, gateway):
    """The next daemon finds relay, sockets and files of the one that had given up its rights."""
    redirect(gateway)
    gateway.stop()
    gateway.start()
    assert target_of(lab) == "10.71.2.3"
    gateway.must("PATCH", "listeners/web", {"upstream": "second"})
    assert target_of(lab) == "10.71.2.4"


def test_one_connection_to_the_database(gateway):
    """One handle writes and checkpoints, also while clients read and copies are made; the relay has none."""
    for _ in range(3):
        assert gateway.api("GET", "backup").status == 200
        gateway.must("PATCH", "settings", {"revisions_kept": 500})
        gateway.must("PATCH", "settings", {"revisions_kept": 501})

    def files(pid):
        return [os.readlink(p) for p in Path(f"/proc/{pid}/fd").iterdir() if p.is_symlink()]

    for name in ("gateway.db", "gateway.db-wal"):
        assert files(gateway.process.pid).count(str(gateway.state / name)) == 1, name
    assert not [f for f in files(gateway.status()["relay"]["pid"]) if "gateway.db" in f]
