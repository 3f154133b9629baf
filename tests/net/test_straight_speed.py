"""Connections that have no socket on the gateway, as many as can be had: nothing lies where nobody looks at it."""

import subprocess

import pytest

from net.control import release_or_default
from net.test_stitch import FAMILIES, SERVER
from net.test_straight import nothing_left, straight

# More than one thread can have, fewer than two.
MANY = 6000


def asked_again(lab):
    """SYNs that the client has had to send again."""
    names, values = [line.split() for line in lab.client.run("cat", "/proc/net/netstat").stdout.splitlines()[:2]]
    return int(dict(zip(names, values))["TCPSynRetrans"])


@pytest.mark.parametrize("family", FAMILIES)
def test_full_speed(lab, nginx, make_gateway, gwload, family):
    """No SYN lies in a ring that nobody is woken for, and each connection is counted."""
    gateway = make_gateway(bpf=True, build=release_or_default())
    straight(gateway, ports=(8000,))
    before = asked_again(lab)
    out = lab.client.run(gwload, "count", SERVER[family], 8000, "/small", 32, 20_000, 1, timeout=200).stdout
    assert '"done": 20000, "refused": 0, "reset": 0, "broken": 0, "timed_out": 0' in out, out
    assert asked_again(lab) == before
    nothing_left(gateway)
    found = gateway.counters()
    assert found["flows_closed"] + found["flows_reset"] == found["straight_flows"] == 20_000


@pytest.mark.parametrize("family", FAMILIES)
def test_one_processor(lab, nginx, make_gateway, gwload, family):
    """All packets come to one processor: when its thread has many flows, others have the next ones."""
    gateway = make_gateway(bpf=True)
    straight(gateway, ports=(8000,))
    holder = subprocess.Popen(lab.client.command("taskset", "-c", "0", gwload, "idle", SERVER[family], "8000", "/small", str(MANY)),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "ready"
        found = gateway.counters()
        # Some have sockets: very many began at once.
        assert found["flows_opened"] == MANY and found["straight_flows"] > MANY / 2 and found["refused_table_full"] == 0
    finally:
        holder.communicate()
    nothing_left(gateway)
