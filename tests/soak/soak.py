"""./dev soak: mixed traffic for a long time, every byte of it checked, and what the gateway weighs before and after.

Clients and server are processes in the lab's hosts (clients.py). This program
starts them, changes the configuration now and then, may kill the relay or the
daemon, and adds up at the end. The exit code is 0 if nothing at all went wrong.
"""

import argparse
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.netns import run
from lab.process import descriptors, wait_for
from lab.servers import Nginx, wait_listening
from soak.judge import Kills, judge
from soak.stream import STUCK_S

CHECKED, POOLED, HTTP, UDP = 9000, 9001, 8000, 5003
SETTLE_S = 2 * STUCK_S + 60  # a connection may get stuck in sending, and then in receiving
CHANGE_EVERY_S = 2
SHORT_EVERY_S = 5
SHORT_TOTAL = 1500
KILLED_LIFE_S = (1.0, 5.0)
# All hosts of the lab share the machine's queues of packets, and TCP does not send a reset a second time: one that is
# dropped there leaves a peer waiting, with or without a gateway. So the queues are made long, and drops are told.
BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")
BACKLOG_PACKETS = 100000
# The age from which on a flow outlives its relay, and how much longer that may take as the clients see it: until the relay
# has accepted the connection and made its own, a tick of its timers (64 ms), and what more processes than processors take.
KEEP_H = ROOT / "gatewayd/relay/keep.h"
MOMENT_S = int(re.search(r"^#define KEEP_AFTER_MS (\d+)$", KEEP_H.read_text(), re.M)[1]) / 1000
SLACK_S = 1.0
# Role -> threads.
ROLES = {"plain": 8, "slow": 4, "reset": 3, "idle": 1, "udp": 2}
KILLED_THREADS = 4


def say(text):
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


class Soak:
    """The lab, the gateway, the load, and what is counted beside the outcomes."""

    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.lab = Lab()
        self.nginx = Nginx(self.lab, self.lab.server, ports=(HTTP,), logging=False)
        self.lab.server.run("sysctl", "-qw", "net.ipv4.tcp_max_syn_backlog=8192")
        self.gateway = Gateway(self.lab, build=options.build, mover=options.mover, bpf=True)
        self.gwload = ROOT / "build" / options.build / "tests/gwload"
        self.counts = Counter()
        self.faults, self.kills = [], []
        self.clients, self.killed, self.short = {}, None, None
        self.outcomes = {"client": self.lab.directory / "client.jsonl", "server": self.lab.directory / "server.jsonl"}
        for path in self.outcomes.values():
            path.touch()
        self.due = {}
        self.backlog = BACKLOG.read_text()
        BACKLOG.write_text(f"{BACKLOG_PACKETS}\n")
        self.dropped = packets_dropped()

    # ---- what runs ----

    def configure(self):
        """The listeners that the traffic goes through: to its own destination, and to an upstream of both families."""
        self.gateway.upstream("pool", [(self.lab.server.v4, CHECKED), (self.lab.server.v6, CHECKED)])
        self.gateway.listener("checked", ports=[str(CHECKED), str(HTTP)])
        self.gateway.listener("pooled", ports=[str(POOLED)], upstream="pool")
        self.gateway.listener("datagrams", protocol="udp", ports=[str(UDP)])

    def start_clients(self):
        """The server of checked connections and the client processes."""
        self.start(self.lab.server, "soak-server", "server", self.outcomes["server"], CHECKED)
        wait_listening(self.lab.server, CHECKED)
        self.lab.start(self.lab.server, "udp-echo", self.gwload, "udp-echo", UDP)
        for role, threads in ROLES.items():
            self.clients[role] = self.start_role(role, threads, f"{self.options.seed} {role}")
        self.start_killed()

    def start(self, host, name, *arguments):
        """One of the programs of clients.py."""
        return self.lab.start(host, name, sys.executable, "-m", "soak.clients", *arguments)

    def start_role(self, role, threads, seed):
        """A client process."""
        ports = (UDP,) if role == "udp" else (CHECKED, POOLED)
        targets = [f"{address}/{port}" for address in (self.lab.server.v4, self.lab.server.v6) for port in ports]
        return self.start(self.lab.client, f"soak-{role}", role, self.outcomes["client"], seed, threads, *targets)

    def start_killed(self):
        """The process that will not end in order."""
        self.counts["clients_killed"] += self.killed is not None
        self.killed = self.start_role("killed", KILLED_THREADS, f"{self.options.seed} killed {self.counts['clients_killed']}")

    def every(self, name, seconds, now):
        """Whether something is due again."""
        if now < self.due.get(name, now):
            return False
        self.due[name] = now + (seconds() if callable(seconds) else seconds)
        return True

    def step(self, now):
        """Whatever is due."""
        options = self.options
        if self.every("change", CHANGE_EVERY_S, now):
            self.change()
        if self.every("short", SHORT_EVERY_S, now) and not (self.short and self.short.running()):
            self.run_short()
        if self.every("killed", lambda: self.random.uniform(*KILLED_LIFE_S), now) and self.killed.running():
            self.killed.kill()
            self.lab.processes.remove(self.killed)
            self.start_killed()
        if options.kill_relay and self.every("relay", options.kill_relay, now) and now > self.started + options.kill_relay:
            self.kill_relay()
        if options.kill_daemon and self.every("daemon", options.kill_daemon, now) and now > self.started + options.kill_daemon:
            self.kill_daemon()
        for role, process in self.clients.items():
            if not process.running():
                raise SystemExit(f"soak: the client process {role} ended:\n{process.output()[-3000:]}")

    def run_short(self):
        """Collects the last batch of short connections and starts another, over the other family."""
        self.collect_short()
        address = (self.lab.server.v4, self.lab.server.v6)[self.counts["short_batches"] % 2]
        self.counts["short_batches"] += 1
        name = f"short-{self.counts['short_batches']}"
        self.short = self.lab.start(self.lab.client, name, self.gwload, "count", address, HTTP, "/small", 8, SHORT_TOTAL, 1)

    def collect_short(self):
        """Adds up what gwload said."""
        if not self.short:
            return
        if not ended(self.short, SETTLE_S):
            self.short.kill()
        self.lab.processes.remove(self.short)
        try:
            result = json.loads(self.short.output())
        except ValueError:
            self.faults.append({"what": "short connections: no result", "output": self.short.output()[-500:],
                                "at_s": self.elapsed()})
            self.short = None
            return
        self.counts["short_connections"] += result["done"]
        young = self.kills and result["lost_oldest_ms"] / 1000 <= MOMENT_S + SLACK_S
        for kind in ("refused", "reset", "broken", "timed_out"):
            self.counts[f"short_{kind}"] += result[kind]
            if result[kind] and not (kind == "reset" and young):
                self.faults.append({"what": f"short connections {kind}", "count": result[kind], "at_s": self.elapsed(),
                                    "oldest_ms": result["lost_oldest_ms"]})
        self.short = None

    def elapsed(self):
        """Seconds since the start."""
        return round(time.monotonic() - self.started, 1)

    # ---- what is done to the gateway ----

    def change(self):
        """One write over the API; none may fail, and the bad one must be refused."""
        name = f"other-{self.random.randrange(20)}"
        port = str(self.random.randrange(20000, 60000))
        method, path, body, expected = self.random.choice([
            ("PUT", f"listeners/{name}", {"name": name, "ports": [port], "action": "reject"}, (200, 201)),
            ("PUT", f"listeners/{name}", {"name": name, "ports": [port], "destinations": ["198.51.100.0/24"]}, (200, 201)),
            ("DELETE", f"listeners/{name}", None, (204, 404)),
            ("PATCH", "listeners/checked", {"idle_timeout_s": self.random.randrange(600, 3600)}, (200,)),
            ("PATCH", "listeners/pooled", {"comment": f"soak {port}"}, (200,)),
            ("PUT", "listeners/bad", {"name": "bad", "ports": ["99999"]}, (422,)),
        ])
        answer = self.gateway.api(method, path, body)
        self.counts["api_writes"] += 1
        # Two that clash by chance are refused, as they should be.
        if answer.status not in (*expected, 409):
            self.faults.append({"what": f"{method} {path}", "status": answer.status, "answer": answer.text[:500],
                                "at_s": self.elapsed()})

    def kill_relay(self):
        """kill -9 of the relay, and a wait for the next."""
        pid = self.gateway.relay_pid()
        self.kills.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        self.gateway.wait_relay(pid, 30)
        self.counts["relay_kills"] += 1

    def kill_daemon(self):
        """kill -9 of the daemon, and another one."""
        self.gateway.kill()
        self.lab.processes.remove(self.gateway.process)
        self.gateway.start()
        self.counts["daemon_kills"] += 1

    # ---- what is weighed ----

    def weigh(self):
        """Memory and descriptors of both processes."""
        status = self.gateway.status()
        return {name: {"pid": pid, "descriptors": descriptors(pid), **memory(pid)} for name, pid in
                (("relay", status["relay"]["pid"]), ("daemon", self.gateway.process.pid))}

    def settle(self):
        """Ends the load in order; afterwards the gateway must hold no flow."""
        for process in self.clients.values():
            process.signal(signal.SIGTERM)
        self.killed.kill()
        self.collect_short()
        for role, process in self.clients.items():
            if not ended(process, SETTLE_S) or process.popen.returncode:
                process.kill()
                self.faults.append({"what": f"client process {role}", "output": process.output()[-2000:]})
        try:
            wait_for(lambda: self.gateway.status()["relay"]["flows"] == 0, SETTLE_S, "the end of all flows", interval=0.5)
        except Exception as error:
            self.faults.append({"what": str(error), "flows": self.gateway.status()["relay"]["flows"]})

    def run(self):
        """The whole of it; returns the result."""
        self.configure()
        before = self.weigh()
        self.start_clients()
        self.started = time.monotonic()
        end, said = self.started + self.options.minutes * 60, 0
        while time.monotonic() < end:
            self.step(time.monotonic())
            if self.elapsed() - said >= 60:
                said = self.elapsed()
                flows = self.gateway.status()["relay"]["flows"]
                say(f"soak: {said:.0f} s, {flows} flows, {self.counts['short_connections']} short connections, "
                    f"{len(self.faults)} faults")
            time.sleep(0.2)
        during = self.weigh()
        self.settle()
        return self.result(before, during)

    def result(self, before, during):
        """What is printed."""
        status = self.gateway.status()
        clients, servers = (read_lines(path) for path in self.outcomes.values())
        kills = Kills(self.kills, MOMENT_S, SLACK_S, ROLES["udp"])
        kinds, mismatches, samples = judge(clients, servers, kills)
        commit = run("git", "-c", "safe.directory=*", "-C", ROOT, "describe", "--always", "--dirty", check=False).stdout.strip()
        # The kernel takes memory back and the allocator keeps some: what counts is whether flows leave something behind.
        return {"seconds": self.elapsed(), "sockmap": self.gateway.sockmap(), "kernel": platform.release(), "processors": os.cpu_count(), "commit": commit,
                "build": self.options.build, "mover": self.options.mover or "auto", "seed": self.options.seed,
                "command": "./dev soak " + " ".join(sys.argv[1:]),
                "connections": kinds, "counts": dict(self.counts), "mismatches": mismatches, "samples": samples, "kept": status["relay"]["kept"],
                "broken_by_kills": kills.summary(),
                "faults": len(self.faults), "fault_samples": self.faults[:20],
                "packets_dropped": packets_dropped() - self.dropped, "restarts": status["relay"]["restarts"], "counters": status["relay"]["counters"],
                "at_start": before, "under_load": during, "at_end": self.weigh()}

    def close(self):
        """Ends everything; a sanitizer's report is an exception."""
        BACKLOG.write_text(self.backlog)
        Path(self.options.json).with_suffix(".log").write_bytes(self.gateway.log.read_bytes())
        try:
            self.gateway.close()
        finally:
            self.lab.close()


def packets_dropped():
    """Packets that this machine has dropped because a processor's queue was full."""
    return sum(int(line.split()[1], 16) for line in Path("/proc/net/softnet_stat").read_text().splitlines())


def ended(process, seconds):
    """Waits for a program of ours; whether it ended."""
    try:
        process.popen.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def memory(pid):
    """Private and proportional memory of a process in KiB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kib = line.split(":")
        sizes[name] = int(kib.split()[0])
    return {"private_kib": sizes["Private_Clean"] + sizes["Private_Dirty"], "pss_kib": sizes["Pss"]}


def read_lines(path):
    """The outcomes of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, help="how long (default 20)")
    parser.add_argument("--mover", help="how the relay moves bytes (default: its own choice)")
    parser.add_argument("--build", default="release", choices=["release", "dev"], help="dev has the sanitizers (default release)")
    parser.add_argument("--kill-relay", type=float, default=0, metavar="S", help="kill -9 of the relay each S seconds")
    parser.add_argument("--kill-daemon", type=float, default=0, metavar="S", help="kill -9 of the daemon each S seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default 1)")
    parser.add_argument("--json", default="soak-result.json", help="where the result goes (default soak-result.json)")
    return parser.parse_args()


def main():
    """Runs, prints, writes; the exit code says whether anything went wrong."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything is ended
    soak = Soak(options)
    try:
        result = soak.run()
    finally:
        soak.close()
    text = json.dumps(result, indent=2)
    Path(options.json).write_text(text + "\n")
    print(text)
    wrong = sum(result["mismatches"].values()) + result["faults"]
    print(f"soak: {wrong} mismatches and faults in {sum(result['connections'].values())} checked connections and "
          f"{result['counts'].get('short_connections', 0)} short ones; written: {options.json}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
