"""Established connections outlive the relay, the daemon, and the upgrade of both."""

import json
import os
import select
import signal
import socket
import threading
import time

import pytest

from lab import servers, traffic
from lab.process import alive, in_threads, wait_for

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
PORT = 9600
KEEP_AFTER = 0.25
MOVERS = ["copy", "splice"]


@pytest.fixture(scope="module")
def results(lab):
    """The checked-traffic server's results, by seed."""
    process, path = servers.traffic_server(lab, lab.server, PORT)

    def read():
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {line["seed"]: line for line in lines}

    yield read
    process.stop()


def kept(gateway):
    """What the status says of kept flows."""
    return gateway.status()["relay"]["kept"]


def wait_kept(gateway, number):
    """Waits until so many flows are held for the next relay."""
    wait_for(lambda: kept(gateway)["flows"] == number, 10, f"{number} kept flows")


def replace_relay(gateway):
    """kill -9 of the relay, and the next one that is ready."""
    return gateway.wait_relay(gateway.kill_relay(), 20)


def pairs(lab, gateway, number, port=7960, family="v4"):
    """So many established flows, as (client's socket, server's socket), all of them kept."""
    accepted = {}

    def serve(connection, _address):
        connection.settimeout(10)
        accepted[connection.recv(4)] = connection

    peer = servers.Peer(lab.server, SERVER[family], port, serve)
    clients = {b"%04d" % n: lab.client.connect(SERVER[family], port) for n in range(number)}
    for name, client in clients.items():
        client.sendall(name)
    wait_for(lambda: len(accepted) == number, 10, "the server's connections")
    found = [(client, accepted[name]) for name, client in clients.items()]
    wait_kept(gateway, number)
    return peer, found


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_idle_flow_goes_on(lab, make_gateway, mover, family):
    """A flow in which nothing moves outlives the relay; then bytes pass both ways, and both ends of stream."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    peer, [(client, server)] = pairs(lab, gateway, 1, family=family)
    with peer, client, server:
        for number in range(3):
            replace_relay(gateway)
            client.sendall(b"up %d" % number)
            assert server.recv(100) == b"up %d" % number
            server.sendall(b"down %d" % number)
            assert client.recv(100) == b"down %d" % number
        assert kept(gateway)["adopted"] == 3
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        server.sendall(b"last words")
        server.close()
        assert client.recv(100) == b"last words"
        assert client.recv(100) == b""
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0 and kept(gateway)["flows"] == 0, 5, "no flows")
    assert kept(gateway)["lost"] == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", ["client", "server", "both"])
@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_bulk_through_kills(lab, make_gateway, results, figure, mover, family, order):
    """Transfers at full speed both ways, the relay killed again and again: every byte arrives, once, in order."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    seeds = [f"kills {mover} {family} {order} {n}" for n in range(4)]
    stop = threading.Event()
    kills = [0]

    def kill():
        while not stop.wait(0.4):
            replace_relay(gateway)
            kills[0] += 1

    killer = threading.Thread(target=kill)
    outcomes = []

    def transfer(seed):
        connection = lab.client.connect(SERVER[family], PORT, timeout=60)
        time.sleep(KEEP_AFTER + 0.2)
        outcomes.append(traffic.client(connection, seed, 150_000_000, 150_000_000, order))

    connections = [lab.client.connect(SERVER[family], PORT, timeout=60) for _ in seeds]
    wait_kept(gateway, len(seeds))
    killer.start()
    outcomes = in_threads([lambda c=c, s=s: traffic.client(c, s, 150_000_000, 150_000_000, order)
                           for c, s in zip(connections, seeds)])
    stop.set()
    killer.join()
    figure("kills", kills[0])
    assert [o for o in outcomes if not o["ok"]] == []
    wait_for(lambda: set(seeds) <= set(results()), 20, "the server's results")
    assert all(results()[seed]["ok"] for seed in seeds)
    assert kills[0] >= 2
    assert kept(gateway)["lost"] == 0


def talk(client, server, word):
    """Bytes pass both ways."""
    client.sendall(word)
    assert server.recv(100) == word
    server.sendall(word[::-1])
    assert client.recv(100) == word[::-1]


@pytest.mark.parametrize("mover", MOVERS)
def test_restart_hands_all_flows_over(lab, make_gateway, mover):
    """POST /relay/restart and SIGHUP: every flow goes on, also the youngest; nothing is lost."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 20)
    with peer:
        for number, how in enumerate(("api", "signal", "api")):
            old = gateway.relay_pid()
            young, young_server = [], []
            names = [b"%04d" % (1000 + n) for n in range(20)]
            if how == "api":
                answer = gateway.api("POST", "relay/restart")
                assert (answer.status, answer.json) == (202, {"state": "handing_over"})
            else:
                os.kill(gateway.process.pid, signal.SIGHUP)
            gateway.wait_relay(old)
            for client, server in found:
                talk(client, server, b"after %d" % number)
        relay = gateway.status()["relay"]
        assert (relay["handovers"], relay["restarts"], relay["kept"]["lost"]) == (3, 0, 0)
        assert relay["kept"]["adopted"] == 60
    for client, server in found:
        client.close()
        assert server.recv(10) == b""
        server.close()
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0 and kept(gateway)["flows"] == 0, 5, "no flows")


def test_daemon_dies_flows_stay_safe(lab, make_gateway):
    """kill -9 of the daemon, then of the relay under the next daemon: flows that the first daemon held are held anew."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 30)
    with peer:
        for number in range(3):
            gateway.kill()
            for client, server in found:
                talk(client, server, b"alone %d" % number)
            gateway.start()
            wait_kept(gateway, 30)
            assert gateway.status()["relay"]["flows"] == 30
            replace_relay(gateway)
            for client, server in found:
                talk(client, server, b"after %d" % number)
        assert kept(gateway)["lost"] == 0


def test_upgrade_of_both(lab, make_gateway):
    """Another relay program lies there when the daemon starts: it takes the flows over from the old one."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 30)
    with peer:
        old = gateway.relay_pid()
        gateway.stop()
        copy = gateway.directory / "next"
        copy.write_bytes(gateway.relay.read_bytes())
        copy.chmod(0o755)
        os.rename(copy, gateway.relay)
        gateway.start()
        new = gateway.wait_relay(old)
        assert new != old and not alive(old)
        for client, server in found:
            talk(client, server, b"upgraded")
        assert kept(gateway)["lost"] == 0
        gateway.kill()
        gateway.start()
        assert gateway.relay_pid() == new, "the same program stays"


def test_a_broken_program_replaces_nothing(lab, make_gateway):
    """An upgrade to a program that cannot be started leaves the relay that runs."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 3)
    with peer:
        old = gateway.relay_pid()
        broken = gateway.directory / "broken"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        os.rename(gateway.relay, gateway.directory / "whole")
        os.rename(broken, gateway.relay)
        assert gateway.api("POST", "relay/restart").status == 503
        gateway.stop()
        gateway.start()
        assert gateway.relay_pid() == old
        for client, server in found:
            talk(client, server, b"still there")
        gateway.mend_relay()
