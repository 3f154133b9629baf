"""A small integrity run, for a machine as slow as an emulated one: each mover that the gateway offers, both families.

Runs in ./dev check-61; sizes are small, what is asserted is the same as in tests/net.
"""

import functools
import json
import random
import re
import socket
import struct
import subprocess
from collections import namedtuple

import pytest

from lab import servers, traffic
from lab.gateway import ROOT
from lab.netns import run
from lab.process import SLOWNESS, in_threads, wait_for

PORT = 9000
UDP_PORT = 5003
LARGE = 4_000_000
SHORT = 80
AT_ONCE = 8
ADDRESSES = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
BINARIES = ROOT / "build" / "release" / "bin"
Job = namedtuple("Job", "seed up down order")


@functools.cache
def offered_movers():
    """The movers that the program's help names, auto among them."""
    try:
        text = run(BINARIES / "gatewayd", "--help").stdout
    except (OSError, subprocess.SubprocessError):
        return ["auto"]
    line = re.search(r"--mover MODE[^:]*: ([a-z, ]+)", text).group(1)
    return [word for word in re.findall(r"[a-z]+", line) if word not in ("or", "default")]


@pytest.fixture(scope="module")
def results(lab):
    """The checked-traffic server's results, by seed."""
    process, path = servers.traffic_server(lab, lab.server, PORT)

    def read():
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {line["seed"]: line for line in lines}

    yield read
    process.stop()


@pytest.fixture(params=offered_movers())
def relayed(request, make_gateway):
    """A gateway with this mover that relays the ports of these tests."""
    gateway = make_gateway(mover=request.param, bpf=True)
    state, why = gateway.sockmap()
    if request.param == "sockmap" and state != "on":
        pytest.skip(f"sockmap {state}: {why}")
    gateway.listener("checked", ports=[str(PORT), "7100", "8000"])
    gateway.asked_mover = request.param
    return gateway


def moved_by(gateway):
    """{mover: bytes} of the relay's counters."""
    counters = gateway.status()["relay"]["counters"]
    return {name.removeprefix("bytes_"): value for name, value in counters.items()
            if name.startswith("bytes_") and not name.startswith("bytes_to_")}


def exchange(lab, family, jobs):
    """Runs checked connections, AT_ONCE at a time; returns the outcomes that were not good."""
    bad = []

    def work(mine):
        for job in mine:
            outcome = traffic.client(lab.client.connect(ADDRESSES[family], PORT, timeout=30 * SLOWNESS), *job)
            if not outcome["ok"]:
                bad.append((job, outcome))

    in_threads([functools.partial(work, jobs[n::AT_ONCE]) for n in range(AT_ONCE)])
    return bad


def check_both_sides(lab, results, family, jobs):
    """Every client and the server have what the other sent."""
    assert exchange(lab, family, jobs) == []
    seeds = {job.seed for job in jobs}
    wait_for(lambda: seeds <= set(results()), 20, "the server's results")
    assert [line for seed, line in results().items() if seed in seeds and not line["ok"]] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_large_transfers(lab, relayed, results, figure, family):
    """Some megabytes both ways at once, in each order of half-closes, and the mover that was asked for moved them."""
    jobs = [Job(f"large {relayed.asked_mover} {family} {order}", LARGE, LARGE, order) for order in ("client", "server", "both")]
    check_both_sides(lab, results, family, jobs)
    # The last bytes are counted a moment after they have been sent.
    wait_for(lambda: sum(moved_by(relayed).values()) >= 2 * LARGE * len(jobs), 5, "the count of all bytes")
    moved = moved_by(relayed)
    figure("moved", moved)
    if relayed.asked_mover == "copy":
        assert moved["copied"] == sum(moved.values())
    elif relayed.asked_mover != "auto":
        assert moved["copied"] < sum(moved.values()) / 2, "this mover hardly moved anything"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_short_connections(lab, relayed, results, family):
    """Random sizes, nothing and one byte among them, in all orders of half-close."""
    source = random.Random(f"{relayed.asked_mover} {family}")
    jobs = [Job(f"short {relayed.asked_mover} {family} {n}", source.choice([0, 1, source.randrange(100_001)]),
                source.choice([0, 1, source.randrange(100_001)]), source.choice(["client", "server", "both"]))
            for n in range(SHORT)]
    check_both_sides(lab, results, family, jobs)


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_the_server_sees_the_client(lab, nginx, relayed, family):
    """Address and all: the gateway cannot be noticed."""
    address = ADDRESSES[family]
    url = f"http://{address}:8000/whoami" if family == "v4" else f"http://[{address}]:8000/whoami"
    before = relayed.status()["relay"]["counters"]["flows_opened"]
    text = lab.client.run("curl", "-sS", "-m", 10 * SLOWNESS, url).stdout
    assert "sees " + (lab.client.v4 if family == "v4" else lab.client.v6) in text
    assert relayed.status()["relay"]["counters"]["flows_opened"] == before + 1


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_reset_is_a_reset(lab, relayed, family):
    """The client's RST reaches the server as one, never as an end of stream."""
    events = []

    def serve(connection, _address):
        connection.settimeout(10 * SLOWNESS)
        events.append(connection.recv(10))
        try:
            events.append(connection.recv(10))
        except ConnectionResetError:
            events.append("reset")

    with servers.Peer(lab.server, ADDRESSES[family], 7100, serve):
        with lab.client.connect(ADDRESSES[family], 7100, timeout=5 * SLOWNESS) as connection:
            connection.sendall(b"x")
            wait_for(lambda: events, 10, "the byte")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: len(events) == 2, 10, "the end")
    assert events == [b"x", "reset"]


@pytest.fixture(scope="module")
def echo(lab, gwload):
    """A UDP server that sends back what comes, and answers "who" with whom it sees."""
    process = lab.start(lab.server, "udp-echo", gwload, "udp-echo", UDP_PORT)
    yield process
    process.stop()


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_udp_both_ways(lab, make_gateway, echo, family):
    """Packets of all sizes, fragmented ones among them, come back as they were sent; the server sees the client."""
    gateway = make_gateway()
    gateway.listener("udp", protocol="udp", ports=[str(UDP_PORT)])
    source = random.Random(family)
    address = (ADDRESSES[family], UDP_PORT)
    with lab.client.socket(socket.AF_INET if family == "v4" else socket.AF_INET6, socket.SOCK_DGRAM, 1 * SLOWNESS) as talker:
        talker.connect(address)
        talker.send(b"who")
        host, port = talker.recv(200).decode().split()
        assert (host, int(port)) == talker.getsockname()[:2]
        for size in [1, 2, 1400, 1472, 8000, *(source.randrange(4, 1400) for _ in range(30))]:
            data = source.randbytes(size)
            talker.send(data)
            assert talker.recv(10000) == data
    counters = gateway.status()["relay"]["counters"]
    assert sum(value for name, value in counters.items() if "udp" in name) > 0, counters


def test_a_killed_relay_is_replaced(lab, nginx, relayed):
    """Rights, system call filter and descriptors of a second relay are as good as those of the first."""
    pid = relayed.kill_relay()
    relayed.wait_relay(pid, 20)
    assert "sees" in lab.client.run("curl", "-sS", "-m", 10 * SLOWNESS, f"http://{ADDRESSES['v4']}:8000/whoami").stdout


def test_another_hand_is_put_right(lab, relayed):
    """The kernel's change messages are understood: our table comes back after a flush of everything."""
    lab.gateway.run("nft", "flush", "ruleset")
    wait_for(lambda: "gatewayd" in lab.gateway.run("nft", "list", "tables").stdout, 15, "our table")
    wait_for(lambda: relayed.api("GET", "/readyz").status == 200, 15, "readiness")
