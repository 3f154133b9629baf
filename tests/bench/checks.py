"""What health checks cost the relay, by kind of check.

A virtual cable hands a packet to its other end in the context of whoever sends
it: what the targets' kernel does with a check is on the bill of the relay,
which it is on no real network. So each kind is measured twice, as it is, and
with the targets' packets handed to another processor.
"""

import os
import time
from pathlib import Path

from lab import Gateway, Lab
from lab.servers import Nginx

TARGETS = 2000
PORT = 8000
SETTLE_S = 4
# One upstream has at most some hundred targets in life.
EACH = 200
SIDE = "up0"  # the server's end of the cable
HTTP = {"type": "http", "http_path": "/tiny"}


def upstreams(health):
    """So many targets, all of them one server."""
    addresses = [f"10.72.{n // 250}.{n % 250 + 1}" for n in range(TARGETS)]
    return [{"name": f"u{n}", "targets": [{"address": a, "port": PORT} for a in addresses[n:n + EACH]],
             "health": {"interval_ms": 1000, "timeout_ms": 900, **health}} for n in range(0, TARGETS, EACH)]


def threads(pid):
    """Ids of a process's threads."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def busy_s(pid):
    """Processor time of a process so far."""
    return sum(int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0]) for tid in threads(pid)) / 1e9


def set_apart(lab, pid):
    """The relay on the first processor, what comes to the server on the second."""
    lab.server.run("sh", "-c", f"for f in /sys/class/net/{SIDE}/queues/rx-*/rps_cpus; do echo 2 >$f; done")
    for tid in threads(pid):
        os.sched_setaffinity(tid, {0})


def share(gateway, seconds):
    """{processor, checks_per_s, failures}: of one processor, the relay's part."""
    pid = gateway.relay_pid()
    before, started, busy = gateway.status()["relay"]["health"], time.monotonic(), busy_s(pid)
    time.sleep(seconds)
    took, after = time.monotonic() - started, gateway.status()["relay"]["health"]
    return {"processor": (busy_s(pid) - busy) / took, "checks_per_s": (after["checks"] - before["checks"]) / took,
            "failures": after["failures"] - before["failures"]}


def measure(rounds, seconds):
    """{kind: {as_it_is, targets_elsewhere}}, each the median of some rounds with all that was measured."""
    found = {}
    with Lab() as lab:
        Nginx(lab, lab.server, ports=(PORT,), logging=False)
        lab.server.run("ip", "route", "add", "local", "10.72.0.0/16", "dev", "lo")
        lab.gateway.run("ip", "route", "add", "10.72.0.0/16", "via", lab.server.v4)
        for kind, health in (("tcp", {"type": "tcp"}), ("http", HTTP)):
            for place in ("as_it_is", "targets_elsewhere"):
                with Gateway(lab, build="release") as gateway:
                    gateway.must("PUT", "config", {**gateway.must("GET", "config"), "upstreams": upstreams(health)})
                    if place == "targets_elsewhere":
                        set_apart(lab, gateway.relay_pid())
                    time.sleep(SETTLE_S)
                    all_of_it = sorted((share(gateway, seconds) for _ in range(rounds)), key=lambda one: one["processor"])
                found.setdefault(kind, {})[place] = {**all_of_it[len(all_of_it) // 2], "all": all_of_it}
            lab.server.run("sh", "-c", f"for f in /sys/class/net/{SIDE}/queues/rx-*/rps_cpus; do echo 0 >$f; done")
    return found
