"""Connections without a socket on the gateway where nobody has asked for that: where they come often."""

import threading
import time

import pytest

from lab import servers
from lab.process import wait_for

from net.test_sockmap import ask, echo
from net.test_stitch import FAMILIES, SERVER
from net.test_straight import WITHOUT, has_sockets, movers, nothing_left, row_of

pytestmark = pytest.mark.shared_gateway

PORT = 7950


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system."""
    return make_gateway(bpf=True)


def hurry(lab, family, number):
    """So many connections, as fast as they can be had."""
    def some():
        for _ in range(number // 4):
            with lab.client.connect(SERVER[family], PORT) as connection:
                ask(connection, b"x")

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("family", FAMILIES)
def test_often(lab, gateway, family):
    """With `mover: auto` connections have sockets while they come seldom, and none when they come often; then again."""
    gateway.listener("k", ports=[str(PORT)])
    wait_for(lambda: gateway.status()["relay"]["movers"]["shortcut"]["state"] == "on", 5, "the program")
    with servers.Peer(lab.server, SERVER[family], PORT, echo):
        with lab.client.connect(SERVER[family], PORT) as first:
            ask(first, b"by sockets")
            assert has_sockets(lab, first) >= 2
            assert gateway.counters()["straight_flows"] == 0
            for _ in range(20):
                hurry(lab, family, 1000)
                if gateway.counters()["straight_flows"]:
                    break
            # A thread that has not chosen the port itself follows with its next connection by a socket.
            for _ in range(20):
                connection = lab.client.connect(SERVER[family], PORT)
                ask(connection, b"without")
                if movers(gateway, connection) == ("kernel", "kernel"):
                    break
                connection.close()
            with connection:
                assert row_of(gateway, connection)["to_target"]["reason"] == "often"
                ask(first, b"still there")

                def by_sockets():
                    time.sleep(1)
                    with lab.client.connect(SERVER[family], PORT) as made:
                        ask(made, b"?")
                        return has_sockets(lab, made) >= 2

                wait_for(by_sockets, 30, "quiet to be noticed")
                ask(connection, b"it stays as it is")
                assert movers(gateway, connection) == ("kernel", "kernel")
    nothing_left(gateway)
    assert gateway.counters()["flows_reset"] == 0


@pytest.mark.parametrize("what", ["a rate limit", "routes", "source_address", "mover"])
def test_often_is_not_enough(lab, gateway, what):
    """However often they come: what needs sockets has them."""
    gateway.must("PUT", "/rate-limits/many", {"key": "source", "metric": "packets", "rate": 1_000_000})
    gateway.upstream("pool", [(SERVER["v4"], PORT)])
    gateway.listener("k", ports=[str(PORT)], **({"mover": "copy"} if what == "mover" else WITHOUT[what]))
    with servers.Peer(lab.server, SERVER["v4"], PORT, echo):
        hurry(lab, "v4", 4000)
    assert gateway.counters()["straight_flows"] == 0
