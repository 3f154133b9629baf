"""Limits of key flow: each direction of a relayed flow is held to its rate, whatever moves its bytes and whoever dies."""

import contextlib
import socket
import threading
import time

import pytest

from lab import servers
from lab.process import wait_for
from net.test_sockmap import ask, echo

pytestmark = pytest.mark.shared_gateway

PORT = 7450
ADDRESSES = ["10.71.2.2", "fd71:2::2"]
MOVERS = ["copy", "splice", "sockmap"]
RATE = 500_000
# A socket's first segments are not held back, and those that were under way when its rate was changed.
AT_ONCE = 40_000


class Meter(threading.Thread):
    """Sends without a pause, and counts what comes, at one end of a connection."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection, self.received, self.since = connection, 0, time.monotonic()
        connection.setblocking(True)
        self.sender = threading.Thread(target=self.send, daemon=True)
        self.sender.start()
        self.start()

    def send(self):
        """Until the connection ends."""
        with contextlib.suppress(OSError):
            while True:
                self.connection.sendall(bytes(65536))

    def run(self):
        """Until the connection ends."""
        with contextlib.suppress(OSError):
            while data := self.connection.recv(1 << 20):
                self.received += len(data)

    def begin(self):
        """Counts from here; gives the function that tells bytes and seconds since."""
        bytes_then, then = self.received, time.monotonic()
        return lambda: (self.received - bytes_then, time.monotonic() - then)

    def end(self):
        """Ends the connection; the threads end with it."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.sender.join(5)
        self.join(5)
        self.connection.close()


class Flow:
    """A flow with both ends in our hand and as much to send as goes, either way."""

    def __init__(self, lab, address, port=PORT):
        accepted = []
        done = threading.Event()

        def handle(connection, _address):
            accepted.append(Meter(connection))
            done.set()
            accepted[0].join()

        self.peer = servers.Peer(lab.server, address, port, handle)
        self.client = Meter(lab.client.connect(address, port, timeout=10))
        assert done.wait(10)
        self.server = accepted[0]
        self.ends = (self.client, self.server)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self.ends:
            end.end()
        self.peer.close()


def limit(gateway, name="each", **fields):
    """Makes a limit of key flow."""
    gateway.must("PUT", f"rate-limits/{name}", {"name": name, "key": "flow", "metric": "bytes", "action": "shape",
                                                "rate": RATE, **fields})


def seen(gateway, name="each"):
    """What the limit has counted."""
    return gateway.must("GET", f"stats/rate-limits/{name}")


def listen(gateway, limits=("each",), **fields):
    """The listener of the flows."""
    gateway.listener("l", ports=[str(PORT)], rate_limits=list(limits), **fields)


def check(measures, rate):
    """Never more than the rate; not much less, though the machine may be busy with others. Time only makes it less."""
    for bytes_moved, seconds in (measure() for measure in measures):
        assert bytes_moved <= rate * seconds * 1.05 + AT_ONCE, (bytes_moved / seconds, rate)
        assert bytes_moved >= rate * seconds * 0.7, (bytes_moved / seconds, rate)


def shaping(gateway):
    """What the rows of all flows say."""
    return [flow["shaping"] for flow in gateway.must("GET", "flows")["items"]]


def wait_rates(ends, what):
    """Until each end receives far more than a limit would let it."""
    def enough():
        measures = [end.begin() for end in ends]
        time.sleep(0.1)
        return all(moved > 6 * RATE * seconds for moved, seconds in (measure() for measure in measures))
    wait_for(enough, 20, what)


@pytest.mark.parametrize("mover", MOVERS)
def test_each_mover(lab, make_gateway, mover):
    """Both directions of flows of both families have the rate each, and the flow, the limit and the metrics say so."""
    gateway = make_gateway(mover=mover, bpf=True)
    limit(gateway)
    listen(gateway)
    before = seen(gateway)
    with contextlib.ExitStack() as stack:
        ends = [end for address in ADDRESSES for end in stack.enter_context(Flow(lab, address)).ends]
        time.sleep(2)
        for end in ends:
            check([lambda end=end: (end.received, time.monotonic() - end.since)], RATE)
        for flow in gateway.must("GET", "flows")["items"]:
            assert flow["shaping"] == {"rate_limit": "each", "bytes_per_second": RATE, "mode": "enforce",
                                       "at_rate": True}
            assert flow["to_client"]["mover"] == flow["to_target"]["mover"] == mover
        found = seen(gateway)
        assert (found["placement"], found["flows_active"]) == ("relay", 2) and "sockets" in found["reason"]
        assert found["flows"] - before["flows"] == found["flows_at_rate"] - before["flows_at_rate"] == 2
        assert 'gateway_limit_flows_active{rate_limit="each"} 2\n' in gateway.api("GET", "/metrics").text
    wait_for(lambda: seen(gateway)["flows_active"] == 0, 10, "the flows' end")


def held(ends, rate):
    """Whether all ends receive at the rate, after what was under way."""
    time.sleep(0.3)
    measures = [end.begin() for end in ends]
    time.sleep(1)
    check(measures, rate)


def test_changes_reach_established_flows(lab, make_gateway):
    """Another rate, mode, and the listener's beginning and ceasing to name the limit count at once, for what is open."""
    gateway = make_gateway(bpf=True)
    limit(gateway, mode="shadow")
    listen(gateway)
    before = seen(gateway)
    with Flow(lab, ADDRESSES[0]) as v4, Flow(lab, ADDRESSES[1]) as v6:
        ends = v4.ends + v6.ends
        wait_for(lambda: seen(gateway)["flows_at_rate"] == before["flows_at_rate"] + 2, 10, "the excess counted")
        wait_rates(ends, "a rate that is only watched")
        assert {row["mode"] for row in shaping(gateway)} == {"shadow"}
        for rate in (RATE, 2 * RATE):
            limit(gateway, rate=rate)
            wait_for(lambda rate=rate: {row["bytes_per_second"] for row in shaping(gateway)} == {rate}, 10, "a rate")
            held(ends, rate)
        assert seen(gateway)["flows"] == before["flows"] + 4  # the second rate has counted them anew
        listen(gateway, limits=[])
        wait_for(lambda: shaping(gateway) == [None] * 2, 10, "no rate")
        wait_rates(ends, "flows without a limit")
        assert seen(gateway)["flows_active"] == 0 and seen(gateway)["placement"] == "none"
        listen(gateway)
        wait_for(lambda: None not in shaping(gateway), 10, "a rate again")
        held(ends, 2 * RATE)


@pytest.mark.parametrize("mover", MOVERS)
def test_relay_is_killed(lab, make_gateway, mover):
    """The rate is the sockets' own: it holds while nobody is there and with the next relay, which can take it away."""
    gateway = make_gateway(mover=mover, bpf=True)
    limit(gateway)
    listen(gateway)
    before = seen(gateway)
    with Flow(lab, ADDRESSES[0]) as flow:
        wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 1, 10, "the flow kept")
        measures = [end.begin() for end in flow.ends]
        pid = gateway.relay_pid()
        gateway.kill_relay()
        gateway.wait_relay(pid)
        wait_for(lambda: len(shaping(gateway)) == 1 and shaping(gateway)[0], 10, "the flow taken over")
        time.sleep(1)
        for bytes_moved, seconds in (measure() for measure in measures):
            assert bytes_moved <= RATE * seconds * 1.05 + AT_ONCE
        moved = [end.received for end in flow.ends]
        wait_for(lambda: all(end.received > was for end, was in zip(flow.ends, moved)), 10, "bytes that go on")
        assert seen(gateway)["flows"] == before["flows"] + 1 and seen(gateway)["flows_active"] == 1
        pid = gateway.relay_pid()
        gateway.kill_relay()
        listen(gateway, limits=[])
        gateway.wait_relay(pid)
        wait_rates(flow.ends, "a flow without a limit")


def test_the_stitch(lab, make_gateway):
    """A flow of which the kernel has made one connection is out of reach of a limit that comes then; one that has only
    been offered to it is withdrawn, and held, also through pauses in which it would have been taken."""
    gateway = make_gateway(bpf=True)
    listen(gateway, limits=[])
    if gateway.status()["relay"]["movers"]["shortcut"]["state"] != "on":
        pytest.skip("no flows are stitched here")

    def row(connection):
        """Of the flow of this client."""
        return next(flow for flow in gateway.must("GET", "flows")["items"]
                    if flow["client"]["port"] == connection.getsockname()[1])

    def is_stitched(connection):
        ask(connection, b"1")
        return row(connection)["to_client"]["mover"] == "kernel"

    with servers.Peer(lab.server, ADDRESSES[0], PORT, echo), \
            lab.client.connect(ADDRESSES[0], PORT, timeout=10) as asked, \
            lab.client.connect(ADDRESSES[0], PORT, timeout=10) as offered:
        wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 2, 10, "the flows kept")
        wait_for(lambda: is_stitched(asked), 20, "the stitch", interval=0.05)
        time.sleep(0.3)  # the other one is offered to the kernel
        limit(gateway)
        listen(gateway)
        wait_for(lambda: row(offered)["shaping"], 10, "the other one held")
        for _ in range(10):
            ask(offered, b"1")
        # What the kernel carries is counted when the relay looks.
        wait_for(lambda: row(offered)["to_client"]["bytes"] == 10, 10, "its bytes counted")
        assert row(offered)["to_client"]["mover"] != "kernel" and row(asked)["to_client"]["mover"] == "kernel"
        assert row(asked)["shaping"] is None and seen(gateway)["flows_active"] == 1
        since = time.monotonic()
        ask(offered, bytes(RATE // 2))
        assert time.monotonic() - since > 0.4
        ask(asked, b"1")


REFUSED = [
    ({"action": "drop"}, "/action"), ({"action": "ban"}, "/action"), ({"metric": "packets"}, "/metric"),
    ({"rate": 9999}, "/rate"), ({"rate": 599_999, "per": "minute"}, "/rate"), ({"burst": 1}, "/burst"),
    ({"escalate": {"after": 1}}, "/escalate/after"), ({"key": "source"}, "/action"), ({"key": "listener"}, "/action"),
]


def test_what_makes_no_sense_is_refused(make_gateway):
    """Each with its reason, at the limit or at the listener, whichever comes last."""
    gateway = make_gateway()
    fields = {"key": "flow", "metric": "bytes", "action": "shape", "rate": RATE}
    for more, pointer in REFUSED:
        answer = gateway.api("PUT", "rate-limits/each", {"name": "each", **fields, **more})
        assert answer.status == 422, more
        assert pointer in [fault["pointer"] for fault in answer.json["errors"]], more
    limit(gateway)
    limit(gateway, "other")
    for bad, word in (({"protocol": "udp"}, "TCP"), ({"action": "drop"}, "TCP"), ({"action": "bypass"}, "TCP"),
                      ({"protocol": "udp", "enabled": False}, "TCP"), ({"rate_limits": ["each", "other"]}, "one rate")):
        body = {"name": "bad", "ports": ["9"], "rate_limits": ["each"], **bad}
        answer = gateway.api("PUT", "listeners/bad", body)
        assert answer.status == 422, bad
        assert answer.json["errors"][0]["pointer"] == "/rate_limits"
        assert word in answer.json["errors"][0]["detail"]
    gateway.must("PUT", "rate-limits/each", {"name": "each", "rate": 5})
    gateway.listener("udp", protocol="udp", ports=["9"], rate_limits=["each"])
    answer = gateway.api("PUT", "rate-limits/each", {"name": "each", **fields})
    assert answer.status == 422 and '"udp"' in answer.json["errors"][0]["detail"]


def test_explain_and_other_limits(lab, make_gateway):
    """Told beside what is judged by nft, which goes on to do so; the nft text knows nothing of it."""
    gateway = make_gateway()
    limit(gateway)
    gateway.must("PUT", "rate-limits/few", {"name": "few", "rate": 1, "per": "minute", "burst": 1, "action": "reject"})
    listen(gateway, limits=["each", "few"])
    told = gateway.must("POST", "explain", {"protocol": "tcp", "source": lab.client.v4, "source_port": 5000,
                                            "destination": ADDRESSES[0], "destination_port": PORT, "interface": "in0"})
    stages = {stage["stage"]: stage for stage in told["stages"]}
    assert [item["name"] for item in stages["limits"]["limits"]] == ["few"]
    assert (stages["shaping"]["rate_limit"], stages["shaping"]["bytes_per_second"]) == ("each", RATE)
    assert ".each" not in lab.gateway.run("nft", "list", "table", "inet", "gatewayd").stdout
    with Flow(lab, ADDRESSES[0]):
        with lab.client.socket(timeout=5) as refused, pytest.raises(ConnectionRefusedError):
            refused.connect((ADDRESSES[0], PORT))
        assert shaping(gateway)[0]["rate_limit"] == "each"
