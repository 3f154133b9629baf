"""Connections that have no socket on the gateway, as many as can be had: nothing lies where nobody looks at it."""

import pytest

from net.control import release_or_default
from net.test_stitch import FAMILIES, SERVER
from net.test_straight import nothing_left, straight


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
