"""Every byte arrives, in order, once, and the ends of stream where they belong."""

import json
import random
import threading

import pytest

from lab import servers, traffic
from lab.process import in_threads, wait_for

PORT = 9000
BULK = 200_000_000
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
def test_200_megabytes_each_way(lab, make_gateway, results, figure, mover, family, order):
    """Both directions at once over one connection; one side half-closes first, the other goes on sending."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    seed = f"bulk {mover} {family} {order}"
    connection = lab.client.connect(ADDRESSES[family], PORT, timeout=60)
    outcome = traffic.client(connection, seed, BULK, BULK, order)
    assert outcome["ok"], outcome
    check_server(results, [seed])
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the flow's end")
    by, counters = moved(gateway), gateway.status()["relay"]["counters"]
    figure("MB", ", ".join(f"{name} {amount / 1e6:.0f}" for name, amount in by.items()))
    assert sum(by.values()) == counters["bytes_to_target"] + counters["bytes_to_client"] >= 2 * BULK
    if mover == "splice":
        assert by["splice"] > BULK, "splice mode hardly spliced"
    else:
        assert by[mover] == sum(by.values())


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_2000_short_connections(lab, make_gateway, results, mover, family):
    """Random sizes from nothing to 200 kB each way, 64 at a time, in all orders of half-close."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    source = random.Random(f"{mover} {family}")
    jobs = [(f"short {mover} {family} {n}", source.choice([0, 1, source.randrange(200_001)]),
             source.choice([0, 1, source.randrange(200_001)]), source.choice(["client", "server", "both"]))
            for n in range(2000)]
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
