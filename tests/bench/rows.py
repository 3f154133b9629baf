"""What is measured: one row for each kind of traffic. docs/bench.md says how to read them.

A measurement is a dict; `figure` is what the row is about, the rest goes into
the JSON file and into what the verdict looks at besides.
"""

import json
import subprocess
import time

from contenders import EVENTS_PORT, EVENTS_RATE, GWLOAD, HTTP_PORT, SINK_PORT, UDP_PORT, process_memory

REQUESTS = 32
IDLE = 8000
STREAMS = 2000
# Of a thousand answers so many may fail before a figure means nothing.
FAILED_MAX = 1
OURS_BULK_TO_FORWARDING = 0.95
OURS_BULK_TO_RIVAL = 1.1
COST_MAX = 0.5
MEMORY_MAX = 1 / 8
REST_SECONDS = 3
UDP_MIN = 2
DELAY_MAX = 0.5


class Failure(Exception):
    """A measurement that would not be a figure: connections failed, or something is missing. The message says what."""


class Verdict:
    """Whether a requirement is met; `text` says by what. ok is None if it cannot be said."""

    def __init__(self, ok, text):
        self.ok, self.text = ok, text

    def word(self):
        """For the table."""
        return {True: "PASS", False: "NOT REACHED", None: "-"}[self.ok]


class Row:
    """One row. f, h, g: plain forwarding, the rival (HAProxy, for UDP nginx), and one of ours."""

    kind, rival, unit, higher_is_better, fresh = "tcp", "haproxy", "1/s", True, False
    cost_unit = None

    def __init__(self, name, title):
        self.name, self.title = name, title

    def measure(self, contender, seconds):
        """One measurement."""
        raise NotImplementedError

    def cost(self, figure, base):
        """What the contender adds to plain forwarding, for one unit of work; None if the row does not know it."""
        return 1e6 / figure - 1e6 / base if self.cost_unit and figure and base else None

    def judge(self, ours, forwarding, rival):
        """The verdict on the medians of ours beside those of the others (dicts or None)."""
        raise NotImplementedError

    def judge_cost(self, ours, forwarding, rival, most):
        """For rows that bound the added cost by a share of the rival's."""
        if not forwarding or not rival:
            return Verdict(None, "needs forwarding and " + self.rival)
        g, h = self.cost(ours["figure"], forwarding["figure"]), self.cost(rival["figure"], forwarding["figure"])
        if h <= 0:
            return Verdict(g <= 0, f"{self.rival} costs nothing here ({h:.2f}), ours {g:.2f} {self.cost_unit}")
        return Verdict(g <= most * h, f"added cost {g:.2f} against {h:.2f} {self.cost_unit}: {g / h:.2f}, at most {most}")


def load(contender, kind, mode, port, *more, seconds=0):
    """The load generator's result."""
    out = contender.lab.client.run(GWLOAD, mode, contender.address(kind), port, *more, timeout=seconds + 60).stdout
    return json.loads(out)


class Bulk(Row):
    """Streams that send as fast as they can."""

    unit = "Gbit/s"

    def __init__(self, streams):
        super().__init__(f"bulk{streams}", f"bulk, {streams} stream{'s' * (streams > 1)}")
        self.streams = streams

    def measure(self, contender, seconds):
        result = load(contender, "tcp", "bulk", SINK_PORT, self.streams, seconds, seconds=seconds)
        return {"figure": result["gbit_per_second"]}

    def judge(self, ours, forwarding, rival):
        shares = [(ours["figure"] / other["figure"], least, name) for other, least, name in
                  ((forwarding, OURS_BULK_TO_FORWARDING, "forwarding"), (rival, OURS_BULK_TO_RIVAL, "haproxy")) if other]
        if not shares:
            return Verdict(None, "needs forwarding or haproxy")
        return Verdict(any(share >= least for share, least, _ in shares),
                       " or ".join(f"{share:.2f} of {name} (at least {least})" for share, least, name in shares))


class Requests(Row):
    """HTTP requests, on kept-alive connections or one on each."""

    cost_unit = "us/request"

    def __init__(self, name, title, mode, path, p99=False):
        super().__init__(name, title)
        self.mode, self.path, self.p99 = mode, path, p99

    def measure(self, contender, seconds):
        result = load(contender, "tcp", self.mode, HTTP_PORT, self.path, REQUESTS, seconds, 1, seconds=seconds)
        failed = sum(result[k] for k in ("refused", "reset", "broken", "timed_out"))
        if failed * 1000 > result["done"] * FAILED_MAX:
            raise Failure(f"{failed} failures beside {result['done']} answers: {result}")
        return {"figure": result["per_second"], "p50_us": result["p50_us"], "p99_us": result["p99_us"], "failed": failed}

    def judge(self, ours, forwarding, rival):
        verdict = self.judge_cost(ours, forwarding, rival, COST_MAX)
        if self.p99 and rival:
            verdict.text += f"; p99 {ours['p99_us']:.0f} us against {rival['p99_us']:.0f}"
            verdict.ok = verdict.ok and ours["p99_us"] <= rival["p99_us"]
        return verdict


class Idle(Row):
    """User-space memory for each of many connections that have spoken once and are silent."""

    unit, higher_is_better, fresh = "bytes/connection", False, True

    def __init__(self):
        super().__init__("idle", f"{IDLE} idle connections: user-space memory of all of its processes")

    def measure(self, contender, _seconds):
        contender.restart()
        if not contender.pids():
            return {"figure": 0}
        # The first connection makes what every later one shares.
        load(contender, "tcp", "count", HTTP_PORT, "/tiny", 4, 64, 1)
        before = weigh_at_rest(contender)
        holder = subprocess.Popen([str(c) for c in contender.lab.client.command(
            GWLOAD, "idle", contender.address("tcp"), HTTP_PORT, "/tiny", IDLE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if holder.stdout.readline().strip() != "ready":
                raise Failure(f"{IDLE} idle connections could not be opened")
            after = weigh_at_rest(contender)
            result = json.loads(holder.communicate("\n", timeout=60)[0])
        finally:
            holder.kill()
        if result["ended"]:
            raise Failure(f"{result['ended']} idle connections did not stay")
        grown = {role: [(a - b) / IDLE for a, b in zip(after[role], before[role])] for role in after}
        measured = {"figure": sum(pss for _, pss in grown.values()),
                    "private": sum(private for private, _ in grown.values())}
        return measured | {f"{role}_private": private for role, (private, _) in grown.items()}

    def judge(self, ours, forwarding, rival):
        if not rival:
            return Verdict(None, "needs haproxy")
        share = ours["figure"] / rival["figure"]
        return Verdict(share <= MEMORY_MAX, f"{share:.3f} of haproxy (at most {MEMORY_MAX})")


def weigh_at_rest(contender):
    """{role: (private, proportional)} of the contender's processes, when they have done what a change still leads to."""
    time.sleep(REST_SECONDS)
    return {role: [sum(column) for column in zip(*(process_memory(pid) for pid in group))]
            for role, group in contender.pids().items()}


class Udp(Row):
    """Round trips with a fixed number of packets in flight."""

    kind, rival, cost_unit = "udp", "nginx", "us/round trip"

    def __init__(self, size, flows):
        super().__init__(f"udp{size}-{flows}", f"UDP round trips, {size} bytes, {flows} flow{'s' * (flows > 1)}")
        self.size, self.flows = size, flows

    def measure(self, contender, seconds):
        result = load(contender, "udp", "udp", UDP_PORT, self.size, self.flows, seconds, seconds=seconds)
        if not result["done"]:
            raise Failure(f"nothing came back: {result}")
        return {"figure": result["per_second"], "p99_us": result["p99_us"], "lost": result["lost"]}

    def judge(self, ours, forwarding, rival):
        if not rival:
            return Verdict(None, "needs nginx")
        share = ours["figure"] / rival["figure"]
        bound = f"; forwarding itself is {forwarding['figure'] / rival['figure']:.2f} of nginx" if forwarding else ""
        return Verdict(share >= UDP_MIN, f"{share:.2f} of nginx (at least {UDP_MIN}){bound}")


class Events(Row):
    """How late server-sent events come on many long streams."""

    unit, higher_is_better, cost_unit = "us (p99)", False, "us"

    def __init__(self):
        super().__init__("events", f"{STREAMS} streams of {EVENTS_RATE} events/s: delay")

    def measure(self, contender, seconds):
        result = load(contender, "tcp", "events", EVENTS_PORT, STREAMS, seconds, seconds=seconds)
        if result["ended"] or result["missed"] or not result["done"]:
            raise Failure(f"events are missing: {result}")
        # On a machine that cannot keep up the server itself sends less often; the figures beside say so.
        return {"figure": result["p99_us"], "p50_us": result["p50_us"], "events_per_s": result["per_second"]}

    def cost(self, figure, base):
        return figure - base

    def judge(self, ours, forwarding, rival):
        return self.judge_cost(ours, forwarding, rival, DELAY_MAX)


ALL = [
    Bulk(1),
    Bulk(16),
    Requests("small", f"requests, {REQUESTS} kept-alive connections, small bodies", "http", "/tiny"),
    Requests("64k", f"requests, {REQUESTS} kept-alive connections, 64 kB bodies", "http", "/64k"),
    Requests("connections", "new connections, one request each", "conn", "/tiny", p99=True),
    Idle(),
    Udp(64, 1),
    Udp(64, 1000),
    Udp(1200, 1),
    Udp(1200, 1000),
    Events(),
]
