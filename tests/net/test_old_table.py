"""A table that an older version left in the kernel: the daemon that finds it makes its own of it in one transaction."""

from pathlib import Path

from lab import kernel, servers
from net.control import expect_kernel_as_desired, redirect, target_of

OLD = Path(__file__).parents[1] / "golden/skeleton3.nft"


def test_the_table_of_skeleton_3(lab, nginx, gateway):
    """Verdict maps where there are sets now: replaced whole, no packet past us meanwhile, established flows go on."""
    redirect(gateway)
    gateway.listener("echo", ports=["7000"])

    def echo(connection, _address):
        while data := connection.recv(65536):
            connection.sendall(data)

    with servers.Peer(lab.server, "10.71.2.2", 7000, echo):
        held = lab.client.connect("10.71.2.2", 7000, timeout=5)
        held.sendall(b"before")
        assert held.recv(100) == b"before"
        gateway.stop()
        lab.gateway.nft(OLD.read_text(encoding="utf-8"))
        assert "vmap @tcp4_d24_s0_exact" in lab.gateway.run("nft", "list", "chain", "inet", "gatewayd", "tcp4").stdout
        old = kernel.table_handle(lab.gateway)
        gateway.start()
        assert kernel.table_handle(lab.gateway) != old
        held.sendall(b"after")
        assert held.recv(100) == b"after"
        held.close()
    assert target_of(lab) == "10.71.2.3"
    expect_kernel_as_desired(lab, gateway)
    assert not [o for o in kernel.nft_json(lab.gateway, "table", "inet", "gatewayd") if "map" in o]
