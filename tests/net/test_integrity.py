"""Every byte arrives, in order, once, and the ends of stream where they belong."""

import hashlib
import json
import random
import socket
import struct
import threading
import time

import pytest

from lab import servers, traffic
from lab.process import amount, in_threads, wait_for

pytestmark = pytest.mark.shared_gateway

PORT = 9000
BULK = amount(60_000_000, 200_000_000)
ADDRESSES = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
MOVERS = ["copy", "splice", "sockmap"]


@pytest.fixture(scope="module")
def results(lab):
    """The checked-traffic server's results, by seed."""
    process, path = servers.traffic_server(lab, lab.server, PORT)

    def read():
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {line["seed"]: line for line in lines}

    yield read
    process.stop()


def check_server(results, seeds):
    """The server must have seen what the clients sent."""
    wait_for(lambda: set(seeds) <= set(results()), 20, "the server's results")
    bad = [line for seed, line in results().items() if seed in seeds and not line["ok"]]
    assert not bad, bad[:3]


def moved(gateway):
    """Bytes moved so far, by mover."""
    counters = gateway.status()["relay"]["counters"]
    by = {"copy": "copied", "splice": "spliced", "sockmap": "sockmap"}
    return {mover: counters[f"bytes_{word}"] for mover, word in by.items()}


@pytest.mark.parametrize("order", ["client", "server"])
@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_bulk_each_way(lab, make_gateway, results, figure, mover, family, order):
    """Both directions at once over one connection, 200 MB each in a long run; one side half-closes first, the other goes
    on sending."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    before = moved(gateway)
    seed = f"bulk {mover} {family} {order} {time.monotonic_ns()}"  # a second try must not find the first one's result
    connection = lab.client.connect(ADDRESSES[family], PORT, timeout=60)
    outcome = traffic.client(connection, seed, BULK, BULK, order)
    assert outcome["ok"], outcome
    check_server(results, [seed])
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the flow's end")
    by, counters = {name: total - before[name] for name, total in moved(gateway).items()}, gateway.counters()
    figure("MB", ", ".join(f"{name} {amount / 1e6:.0f}" for name, amount in by.items()))
    assert sum(by.values()) == counters["bytes_to_target"] + counters["bytes_to_client"] >= 2 * BULK
    if mover == "splice":
        assert by["splice"] > BULK, "splice mode hardly spliced"
    else:
        assert by[mover] == sum(by.values())


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_short_connections(lab, make_gateway, results, mover, family):
    """2,000 in a long run, of random sizes from nothing to 200 kB each way, 64 at a time, in all orders of half-close."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    source = random.Random(f"{mover} {family}")
    jobs = [(f"short {mover} {family} {n}", source.choice([0, 1, source.randrange(200_001)]),
             source.choice([0, 1, source.randrange(200_001)]), source.choice(["client", "server", "both"]))
            for n in range(amount(500, 2000))]
    bad = run_jobs(lab.client, ADDRESSES[family], jobs, 64)
    assert not bad, bad[:3]
    check_server(results, [job[0] for job in jobs])


def run_jobs(host, address, jobs, concurrency):
    """Runs checked connections, so many at a time; returns the outcomes that were not good."""
    queue, lock, bad = iter(jobs), threading.Lock(), []

    def work():
        while True:
            with lock:
                job = next(queue, None)
            if job is None:
                return
            try:
                outcome = traffic.client(host.connect(address, PORT, timeout=60), *job)
            except OSError as error:
                outcome = {"ok": False, "error": str(error)}
            if not outcome["ok"]:
                bad.append((job, outcome))

    in_threads([work] * concurrency)
    return bad


@pytest.mark.parametrize("mover", MOVERS)
def test_one_byte_and_nothing(lab, make_gateway, results, mover):
    """The smallest transfers: nothing at all, one byte up, one byte down."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    jobs = [(f"tiny {mover} {up} {down} {order}", up, down, order) for up in (0, 1) for down in (0, 1)
            for order in ("client", "server", "both")]
    assert run_jobs(lab.client, ADDRESSES["v4"], jobs, 4) == []
    check_server(results, [job[0] for job in jobs])


@pytest.mark.parametrize("mover", MOVERS)
def test_end_of_stream_without_data(lab, make_gateway, mover):
    """A half-close passes at once, not only together with data."""
    gateway = make_gateway(mover=mover)
    gateway.listener("any", ports=["7100"])
    events = []

    def serve(connection, _address):
        events.append(connection.recv(10))
        connection.sendall(b"after your end")
        connection.close()

    with servers.Peer(lab.server, "10.71.2.2", 7100, serve):
        with lab.client.connect("10.71.2.2", 7100, timeout=5) as connection:
            connection.shutdown(1)
            assert connection.recv(100) == b"after your end"
            assert connection.recv(100) == b""
    assert events == [b""]


# Around segments, pages, the relay's buffer and pipe, the sockmap's limit and what sockets hold by default.
EDGES = [1448, 4096, 16384, 65536, 87380, 131072, 524288, 1048576]


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_sizes_around_every_limit(lab, make_gateway, results, mover, family):
    """One byte less, the size itself, one byte more; up, down and both; in each order of half-closes."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    jobs = []
    for size in (edge + more for edge in EDGES for more in (-1, 0, 1)):
        for up, down in ((size, 0), (0, size), (size, size)):
            order = ("client", "server", "both")[len(jobs) % 3]
            jobs.append((f"edge {mover} {family} {up} {down}", up, down, order))
    assert run_jobs(lab.client, ADDRESSES[family], jobs, 8) == []
    check_server(results, [job[0] for job in jobs])


@pytest.mark.parametrize("mover", MOVERS)
def test_one_byte_writes(lab, make_gateway, mover):
    """Thousands of packets of one byte, each way at once."""
    gateway = make_gateway(mover=mover)
    gateway.listener("echo", ports=["7110"])
    data = bytes(random.Random(mover).randrange(256) for _ in range(5000))

    def serve(connection, _address):
        connection.setsockopt(6, 1, 1)
        while piece := connection.recv(65536):
            for at in range(len(piece)):
                connection.send(piece[at:at + 1])
        connection.close()

    with servers.Peer(lab.server, "10.71.2.2", 7110, serve):
        with lab.client.connect("10.71.2.2", 7110, timeout=30) as connection:
            connection.setsockopt(6, 1, 1)

            def send():
                for at in range(len(data)):
                    connection.send(data[at:at + 1])
                connection.shutdown(1)

            sender = threading.Thread(target=send)
            sender.start()
            received = b""
            while piece := connection.recv(65536):
                received += piece
            sender.join()
    assert received == data


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mover,family", [("copy", "v4"), ("splice", "v6"), ("sockmap", "v4"), ("sockmap", "v6")])
def test_both_readers_pause(lab, make_gateway, mover, family):
    """Both sides write as fast as they can and read nothing for seconds, ten in a long run; then all of it arrives."""
    gateway = make_gateway(mover=mover)
    gateway.listener("slow", ports=["7120"])
    size, outcome = 12_000_000, {}

    def side(connection, name, send_seed, receive_seed):
        def send():
            for piece in traffic.chunks(send_seed, size):
                connection.sendall(piece)
            connection.shutdown(1)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(amount(3, 10))
        total = hashlib.sha256()
        while piece := connection.recv(262144):
            total.update(piece)
        sender.join()
        outcome[name] = total.hexdigest() == traffic.digest(receive_seed, size)

    with servers.Peer(lab.server, ADDRESSES[family], 7120, lambda c, a: side(c, "server", "down", "up")):
        with lab.client.connect(ADDRESSES[family], 7120, timeout=60) as connection:
            side(connection, "client", "up", "down")
        wait_for(lambda: len(outcome) == 2, 30, "the server's end")
    assert outcome == {"client": True, "server": True}


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_resets_among_others(lab, make_gateway, results, mover, family):
    """500 connections at once, of which every third is reset by the client in the middle: the others are whole."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    source = random.Random(f"resets {mover} {family}")
    jobs = [(f"amid {mover} {family} {n}", source.randrange(100_001), source.randrange(100_001),
             source.choice(["client", "server", "both"])) for n in range(330)]
    broken = iter([source.randrange(1, 60_000) for _ in range(170)])
    lock = threading.Lock()

    def break_one():
        with lock:
            amount = next(broken, None)
        if amount is None:
            return False
        connection = lab.client.connect(ADDRESSES[family], PORT, timeout=60)
        head = {"seed": f"broken {amount} {mover} {family}", "up": 200_000, "down": 200_000, "order": "both"}
        connection.sendall(json.dumps(head).encode() + b"\n" + b"x" * amount)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return True

    def breaker():
        while break_one():
            pass

    breakers = [threading.Thread(target=breaker) for _ in range(20)]
    for thread in breakers:
        thread.start()
    bad = run_jobs(lab.client, ADDRESSES[family], jobs, 100)
    for thread in breakers:
        thread.join()
    assert not bad, bad[:3]
    check_server(results, [job[0] for job in jobs])
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 20, "the end of all flows")
