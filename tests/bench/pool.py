"""Rows about a pool of three servers, of which one is ten times as slow: beside HAProxy, which does the same.

Both are told the same: least connections, a TCP check every 200 ms with as much time for it, two in a row decide, no
retries. Each contender of kind "pool" has, on POOL_PORT, `drain(name, on)`.
"""

import time
from collections import Counter

from contenders import POOL_PORT
from knocks import PATIENCE, Crowd
from rows import REQUESTS, Failure, Row, Verdict, load

STAYING = 48
RATE_MIN = 0.95
FAILOVER_OVER = 250
DRAIN_OVER = 20
# Nobody hears of the server, and it hears of nobody.
SILENCE = """
table inet bench_silence {{
    chain in {{ type filter hook input priority 0; policy accept; {family} daddr {address} tcp dport {port} drop; }}
}}
"""


class Pool(Row):
    """What the rows have in common."""

    kind = "pool"

    def crowd(self, contender):
        """Clients of the pool."""
        return Crowd(contender.lab.client, contender.address("pool"), POOL_PORT)

    def judge(self, ours, forwarding, rival):
        if not rival:
            return Verdict(None, "needs haproxy")
        return self.beside(ours, rival)

    def beside(self, ours, rival):
        """The verdict beside the rival."""
        raise NotImplementedError


class LeastConn(Pool):
    """Connections that are spread by how many each server has, not by turns."""

    def __init__(self):
        super().__init__("least_conn", f"new connections, {REQUESTS} at a time, least_conn over servers of 20, 20 and 200 ms")

    def measure(self, contender, seconds):
        result = load(contender, "pool", "conn", POOL_PORT, "/", REQUESTS, seconds, 1, seconds=seconds)
        failed = sum(result[k] for k in ("refused", "reset", "broken", "timed_out"))
        if failed:
            raise Failure(f"{failed} failures beside {result['done']} answers: {result}")
        return {"figure": result["per_second"], "p50_us": result["p50_us"], "p99_us": result["p99_us"]}

    def beside(self, ours, rival):
        share = ours["figure"] / rival["figure"]
        return Verdict(share >= RATE_MIN, f"{share:.2f} of haproxy (at least {RATE_MIN})")


class Failover(Pool):
    """How long clients are still sent to a server that has fallen silent."""

    unit, higher_is_better = "ms", False

    def __init__(self):
        super().__init__("failover", "from a server's falling silent to the beginning of the last connection that it costs")

    def measure(self, contender, seconds):
        name, address = next(iter(contender.pool.items()))
        server, crowd = contender.lab.server, self.crowd(contender)
        text = SILENCE.format(family="ip6" if ":" in address else "ip", address=address, port=POOL_PORT)
        try:
            began, _ = crowd.run(max(3.0, seconds), deed=lambda: server.nft(text))
            crowd.settle()
        finally:
            crowd.close()
            server.nft("add table inet bench_silence; delete table inet bench_silence")
            back(self.crowd(contender), name)
        lost = [call for call in crowd.calls if not call.who]
        early = [call for call in lost if call.started < began - PATIENCE]
        if early or not lost:
            raise Failure(f"{len(early)} of {len(crowd.calls)} connections failed before the server did, {len(lost)} in all")
        return {"figure": 1000 * (max(call.started for call in lost) - began), "lost": len(lost),
                "knocks": len(crowd.calls)}

    def beside(self, ours, rival):
        over = ours["figure"] - rival["figure"]
        return Verdict(over <= FAILOVER_OVER, f"{over:+.0f} ms beside haproxy (at most {FAILOVER_OVER} more, a check's time)")


class Drain(Pool):
    """How soon a drained server gets nobody any more, while those who are there stay."""

    unit, higher_is_better = "ms", False

    def __init__(self):
        super().__init__("drain", f"from the order to drain to the last new connection there; {STAYING} streams stay")

    def measure(self, contender, seconds):
        name, crowd = next(iter(contender.pool)), self.crowd(contender)
        try:
            for _ in range(STAYING):
                crowd.call(stays=True)
            began, done = crowd.run(max(1.5, seconds), deed=lambda: contender.drain(name, True))
            crowd.settle()
        finally:
            crowd.close()
            contender.drain(name, False)
            back(self.crowd(contender), name)
        staying = [call for call in crowd.calls if call.stays]
        bad = [call for call in crowd.calls if (call.broken if call.stays else not call.who)]
        if bad:
            raise Failure(f"{len(bad)} connections of {len(crowd.calls)} were broken, {sum(c.stays for c in bad)} that stay")
        late = [call.started for call in crowd.calls if call.who == name and call.started > began]
        there = Counter(call.who for call in staying)
        if not there[name]:
            raise Failure(f"no stream was at the server that was drained: {dict(there)}")
        return {"figure": 1000 * (max(late, default=began) - began), "order_ms": 1000 * (done - began),
                "streams_there": there[name]}

    def beside(self, ours, rival):
        over = ours["figure"] - rival["figure"]
        return Verdict(over <= DRAIN_OVER, f"{over:+.1f} ms beside haproxy (at most {DRAIN_OVER} more)")


def back(crowd, name, seconds=15):
    """Waits until a server is given clients again."""
    deadline = time.monotonic() + seconds
    try:
        while not any(call.who == name for call in crowd.calls):
            if time.monotonic() > deadline:
                raise Failure(f"server {name} did not come back in {seconds} s")
            crowd.run(0.2)
    finally:
        crowd.close()


ROWS = [LeastConn(), Failover(), Drain()]
