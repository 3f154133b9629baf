"""The same limit in each place: so many a second, within 5 % over seconds, and who keeps to his share does not notice.

`xdp`: packets of a source at the prefilter, by its own rate and by a listener's limit; `nft`: packets, bytes and new
connections of a source, all at once; `relay`: bytes of a flow. Both families at once. A greedy client sends three times what it may, another one nine tenths of it.
"""

import contextlib
import socket
import threading
import time

import pytest

from lab import servers
from lab.datagrams import DatagramPeer
from lab.process import amount
from net.test_prefilter import prefilter
from net.test_shape import Flow

pytestmark = pytest.mark.shared_gateway

SECONDS = amount(4, 10)
TOLERANCE = 0.05
WHILES = 4
GREEDY, POLITE = 3, 0.9
ADDRESSES = ["10.71.2.2", "fd71:2::2"]
PORT, BYTES_PORT, CONNECTIONS_PORT, FLOWS_PORT = range(7960, 7964)
PACKETS_RATE, CONNECTIONS_RATE, FLOW_RATE = 600, 100, 1_000_000
PACKET = 1000  # bytes with its headers
INTERFACES = ["in0", "in1"]


class Sink(DatagramPeer):
    """A UDP server that counts what arrives, by client."""

    def __init__(self, host, address, port):
        self.counts = {}
        super().__init__(host, address, port, self._count)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE

    def _count(self, _data, address):
        self.counts[address[0]] = self.counts.get(address[0], 0) + 1


class Client(threading.Thread):
    """Does something so many times a second until it is ended; `done` is how often it was let do it, `tried` how often it
    has tried."""

    def __init__(self, rate):
        super().__init__(daemon=True)
        self.rate, self.tried, self.done, self.ending = rate, 0, 0, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.join(10)
        self.close()

    def run(self):
        """What could not be done in time is not made up for at once: a second's worth at most."""
        began, number = time.monotonic(), 0
        while not self.ending.wait(0.003):
            due = int((time.monotonic() - began) * self.rate)
            for _ in range(min(due - number, int(self.rate))):
                self.once()
                self.tried += 1
            number = due


class Datagrams(Client):
    """Sends to a sink, in packets of one size."""

    def __init__(self, host, sink, address, port, rate):  # pylint: disable=too-many-arguments,too-many-positional-arguments
        super().__init__(rate)
        v6 = ":" in address
        self.data, self.sink, self.name_seen = b"x" * (PACKET - (48 if v6 else 28)), sink, host.v6 if v6 else host.v4
        self.socket = host.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port))

    def once(self):
        """A datagram."""
        with contextlib.suppress(OSError):
            self.socket.send(self.data)

    def look(self):
        """(when, tried, let through)"""
        return time.monotonic(), self.tried, self.sink.counts.get(self.name_seen, 0)

    def close(self):
        """Its socket."""
        self.socket.close()


class Connections(Client):
    """Makes connections; over the limit they are refused."""

    def __init__(self, host, address, port, rate):
        super().__init__(rate)
        self.host, self.end = host, (address, port)

    def once(self):
        """A connection."""
        with contextlib.suppress(ConnectionRefusedError):
            self.host.connect(*self.end, timeout=5).close()
            self.done += 1

    def look(self):
        """(when, tried, let through)"""
        return time.monotonic(), self.tried, self.done

    def close(self):
        """Nothing is left."""


def look_at_rates(pairs, rate):
    """What is wrong with the rates of a while; empty: nothing."""
    before, wrong = [client.look() for pair in pairs for client in pair], []
    time.sleep(SECONDS)
    after = [client.look() for pair in pairs for client in pair]
    for number, (then, now) in enumerate(zip(before, after)):
        seconds, tried, passed = (b - a for a, b in zip(then, now))
        greedy = number % 2 == 0
        if tried <= (1.5 if greedy else 0.8) * rate * seconds:
            wrong.append((number, "it has not tried enough", tried / seconds))
        elif abs(passed / seconds / rate - 1) > TOLERANCE if greedy else passed < (1 - TOLERANCE) * tried:
            wrong.append((number, passed / seconds, tried / seconds, rate))
    return wrong


def expect_rates(pairs, rate):
    """Watches greedy and polite clients for a while: those have their rate, these all that they want. On a busy machine it
    is counted late what has come: another while may tell more."""
    time.sleep(1.5)  # what may come at once has come
    wrong = [look_at_rates(pairs, rate)]
    while wrong[-1] and len(wrong) < WHILES:
        wrong.append(look_at_rates(pairs, rate))
    assert wrong[-1] == [], wrong


def expect_datagrams(lab, port, rate):
    """A greedy and a polite client of each family."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for address in ADDRESSES:
            sink = stack.enter_context(Sink(lab.server, address, port))
            pairs.append([stack.enter_context(Datagrams(host, sink, address, port, rate * share))
                          for host, share in ((lab.client, GREEDY), (lab.client2, POLITE))])
        expect_rates(pairs, rate)


def expect_connections(lab, port, rate):
    """The same with connections."""
    with contextlib.ExitStack() as stack:
        for address in ADDRESSES:
            stack.enter_context(servers.Peer(lab.server, address, port, lambda connection, _address: connection.close()))
        expect_rates([[stack.enter_context(Connections(host, address, port, rate * share))
                       for host, share in ((lab.client, GREEDY), (lab.client2, POLITE))] for address in ADDRESSES], rate)


def limit(gateway, name, rate, **fields):
    """A limit, and a listener that names it."""
    gateway.must("PUT", f"rate-limits/{name}", {"name": name, "rate": rate, **fields})


def test_xdp(lab, make_gateway):
    """At the prefilters of both clients, before the stack."""
    gateway = make_gateway(bpf=True)
    gateway.listener("packets", protocol="udp", ports=[str(PORT)])
    for interface in INTERFACES:
        prefilter(gateway, interface, source_pps={"rate": PACKETS_RATE})
    expect_datagrams(lab, PORT, PACKETS_RATE)


def of_listener(gateway, **fields):
    """A limit of packets of each source, and a listener of datagrams that names it."""
    limit(gateway, "packets", PACKETS_RATE, metric="packets", **fields)
    gateway.listener("packets", protocol="udp", ports=[str(PORT)], rate_limits=["packets"])


def seen(gateway, name="packets"):
    """What is told of a limit."""
    return gateway.must("GET", f"stats/rate-limits/{name}")


def limited(gateway):
    """Packets that prefilters have dropped for a listener's limit."""
    return sum(row["reasons"]["limited"]["packets"] for row in gateway.must("GET", "stats")["prefilters"])


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_xdp_of_a_listener(lab, make_gateway, mode):
    """The limit of a listener, at the prefilters of both clients: what is over does not come to nft."""
    gateway = make_gateway(bpf=True)
    of_listener(gateway)
    for interface in INTERFACES:
        assert prefilter(gateway, interface, mode=mode)["mode"] == mode
    found = seen(gateway)
    assert (found["placement"], found["interfaces"]) == ("xdp", INTERFACES), found
    expect_datagrams(lab, PORT, PACKETS_RATE)
    over, dropped = seen(gateway)["over"], limited(gateway)
    assert dropped > PACKETS_RATE * SECONDS and dropped >= 0.98 * over, (dropped, over)


def test_nft(lab, make_gateway):
    """Before the relay hears of it: packets, bytes and connections."""
    gateway = make_gateway(bpf=True)
    limit(gateway, "packets", PACKETS_RATE, metric="packets")
    limit(gateway, "bytes", PACKETS_RATE * PACKET, metric="bytes")
    limit(gateway, "connections", CONNECTIONS_RATE, metric="new_connections", action="reject")
    for name, port, protocol in (("packets", PORT, "udp"), ("bytes", BYTES_PORT, "udp"), ("connections", CONNECTIONS_PORT, "tcp")):
        gateway.listener(name, protocol=protocol, ports=[str(port)], rate_limits=[name])
    failed = []

    def run(expect, *args):
        try:
            expect(lab, *args)
        except Exception as error:  # pylint: disable=broad-exception-caught
            failed.append((expect.__name__, args, error))

    threads = [threading.Thread(target=run, args=args) for args in (
        (expect_datagrams, PORT, PACKETS_RATE), (expect_datagrams, BYTES_PORT, PACKETS_RATE),
        (expect_connections, CONNECTIONS_PORT, CONNECTIONS_RATE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {item["placement"] for item in gateway.must("GET", "stats/rate-limits")["items"]} == {"nft"}


def test_relay(lab, make_gateway):
    """Each direction of a flow has its rate, and that of another flow beside it, too."""
    gateway = make_gateway(bpf=True)
    limit(gateway, "flows", FLOW_RATE, key="flow", metric="bytes", action="shape")
    ports = FLOWS_PORT, FLOWS_PORT + 1
    gateway.listener("flows", ports=[str(port) for port in ports], rate_limits=["flows"])
    with contextlib.ExitStack() as stack:
        ends = [end for address in ADDRESSES for port in ports for end in stack.enter_context(Flow(lab, address, port)).ends]
        time.sleep(1.5)
        measures = [end.begin() for end in ends]
        time.sleep(SECONDS)
        for moved, seconds in (measure() for measure in measures):
            assert abs(moved / seconds / FLOW_RATE - 1) <= TOLERANCE, (moved / seconds, FLOW_RATE)
    assert gateway.must("GET", "stats/rate-limits/flows")["placement"] == "relay"
