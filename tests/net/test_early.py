"""--early: until the gateway serves, nothing passes that a listener catches; listeners that say `direct` let it pass."""

import pytest

from lab.process import wait_for

CLOSED, DIRECT = 7801, 7802
SEEN = """table inet seen {{
	counter closed {{ }}
	chain in {{
		type filter hook prerouting priority -300
		iif up0 meta l4proto {{ tcp, udp }} th dport {closed} counter name closed
	}}
}}"""
ADDRESSES = ("10.71.2.2", "fd71:2::2")


def packets_seen(lab):
    """How many packets for the closed port have come as far as the server's machine."""
    return int(lab.server.run("nft", "list", "counter", "inet", "seen", "closed").stdout.split("packets ")[1].split()[0])


def connects(lab, address, port):
    """Whether a connection is made."""
    try:
        lab.client.connect(address, port, timeout=1.5).close()
        return True
    except OSError:
        return False


@pytest.fixture
def booted(lab, make_gateway):
    """A gateway that has had a configuration and has gone, as after a reboot: nothing is in the kernel; and servers."""
    gateway = make_gateway()
    for name, port, way in (("closed", CLOSED, "drop"), ("open", DIRECT, "direct")):
        for protocol in ("tcp", "udp"):
            gateway.listener(f"{name}-{protocol}", protocol=protocol, destinations=["10.71.2.0/24", "fd71:2::/64"],
                             ports=[str(port)], on_worker_down=way)
    gateway.stop()
    assert gateway.run_once("--cleanup").returncode == 0
    assert "gatewayd" not in lab.gateway.run("nft", "list", "tables").stdout
    lab.server.nft(SEEN.format(closed=CLOSED))
    listening = [lab.server.listen(address, port) for address in ADDRESSES for port in (CLOSED, DIRECT)]
    yield gateway
    for made in listening:
        made.close()
    lab.server.nft("delete table inet seen")


def send_datagrams(lab):
    """One datagram for the closed port over each family."""
    for address in ADDRESSES:
        with lab.client.socket(2 if "." in address else 10, 2) as made:
            made.sendto(b"hello", (address, CLOSED))


def test_nothing_passes_before_it_serves(lab, booted):
    """From --early on to the daemon's start no packet of a closed listener reaches the server; then they are relayed."""
    assert connects(lab, ADDRESSES[0], CLOSED), "without any rules the packets are forwarded: the test can see them"
    before = wait_for(lambda: packets_seen(lab), 5, "packets at the server")
    done = booted.run_once("--early")
    assert done.returncode == 0 and "are in place" in done.stderr, done.stderr
    send_datagrams(lab)
    assert not any(connects(lab, address, CLOSED) for address in ADDRESSES)
    assert all(connects(lab, address, DIRECT) for address in ADDRESSES)
    assert packets_seen(lab) == before
    booted.start()
    assert all(connects(lab, address, port) for address in ADDRESSES for port in (CLOSED, DIRECT))
    assert packets_seen(lab) > before


def test_it_leaves_a_gateway_alone(lab, booted):
    """Where a daemon runs, or has left its rules, nothing is touched."""
    booted.start()
    rules = lab.gateway.run("nft", "-s", "-t", "list", "table", "inet", "gatewayd").stdout
    assert "runs, process" in booted.run_once("--early").stderr
    booted.stop()
    assert "already" in booted.run_once("--early").stderr
    assert lab.gateway.run("nft", "-s", "-t", "list", "table", "inet", "gatewayd").stdout == rules


def test_no_configuration_and_a_damaged_one(lab, booted):
    """Nothing to close is no fault; a damaged file is one, is told, and changes nothing."""
    path = booted.state / "gateway.lastgood"
    path.write_text("{")
    done = booted.run_once("--early")
    assert done.returncode != 0 and "damaged" in done.stderr
    path.unlink()
    assert booted.run_once("--early").returncode == 0
    assert "gatewayd" not in lab.gateway.run("nft", "list", "tables").stdout
