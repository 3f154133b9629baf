"""Connections that are never silent become the kernel's all the same, each of them."""

import subprocess

import pytest

from lab.process import wait_for

from net.control import release_or_default
from net.test_stitch import FAMILIES, SERVER

CONNECTIONS = 200


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_many_busy_ones(lab, nginx, make_gateway, gwload, family):
    """Requests one after the other on each: what is under way when a flow goes into the sockmap does not count as its
    numbers' difference for ever, for with that it would not be taken over, or at a wrong moment."""
    gateway = make_gateway(bpf=True, build=release_or_default())
    gateway.listener("web", ports=["8000"])
    for what in ("sockmap", "shortcut"):
        wait_for(lambda what=what: gateway.status()["relay"]["movers"][what]["state"] == "on", 5, what)
    load = subprocess.Popen(lab.client.command(gwload, "http", SERVER[family], "8000", "/small", str(CONNECTIONS), "6", "1"),
                            stdout=subprocess.PIPE, text=True)
    try:
        def movers():
            return [flow["to_target"]["mover"] for flow in gateway.must("GET", "/flows?limit=1000")["items"]]

        wait_for(lambda: movers() == ["kernel"] * CONNECTIONS, 5, "all of them with the kernel")
        out, _ = load.communicate(timeout=60)
        assert '"refused": 0, "reset": 0, "broken": 0, "timed_out": 0' in out, out
    finally:
        load.kill()
        load.wait()
