"""Rate limits and bans with real traffic: each metric, key and action, both families, and what outlives what."""

import errno
import itertools
import socket
import time

import pytest

from lab import datagrams, servers
from lab.gateway import Gateway
from lab.process import wait_for

PORT = 7300
_ports = itertools.count(8310)
ADDRESSES = ["10.71.2.2", "fd71:2::2"]
CLIENTS = {"10.71.2.2": ("10.71.1.2", "10.71.5.2"), "fd71:2::2": ("fd71:1::2", "fd71:5::2")}


def echo(connection, _address):
    """Answers what it gets until the end."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


@pytest.fixture(scope="module")
def shared(lab):
    """One gateway for all tests of this file."""
    with Gateway(lab) as made:
        yield made


@pytest.fixture
def gateway(shared):
    """The gateway, without configuration and bans: limits that nobody names have no state either."""
    shared.must("PUT", "config", {})
    for ban in shared.must("GET", "bans")["items"]:
        assert shared.api("DELETE", f"bans?address={ban['address']}").status in (204, 404)  # it may have ended
    yield shared


@pytest.fixture(params=ADDRESSES)
def address(request, lab):
    """An address of a server with TCP echo, UDP echo and a counter."""
    with servers.Peer(lab.server, request.param, PORT, echo):
        yield request.param


def limit(gateway, name="l", **fields):
    """Makes a rate limit."""
    gateway.must("PUT", f"rate-limits/{name}", {"name": name, **fields})


def listen(gateway, name="web", limits=("l",), port=PORT, **fields):
    """A listener with rate limits."""
    gateway.listener(name, ports=[str(port)], rate_limits=list(limits), **fields)


def knock(host, address, port=PORT, wait=0.15):
    """Tries one connection; "open", "refused" or "silent"."""
    with host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=wait) as made:
        try:
            made.connect((address, port))
            return "open"
        except (TimeoutError, BlockingIOError):
            return "silent"
        except OSError as error:
            assert error.errno in (errno.ECONNREFUSED, errno.ECONNRESET), error
            return "refused"


def listing(lab):
    """Our table as nft shows it."""
    return lab.gateway.run("nft", "list", "table", "inet", "gatewayd").stdout


def seen(gateway, name="l"):
    """What a limit has counted."""
    return gateway.must("GET", f"stats/rate-limits/{name}")


def echoes(host, address, data=b"x" * 100, port=PORT):
    """Whether another client is served as if there were no limit."""
    with host.connect(address, port, timeout=5) as made:
        made.sendall(data)
        return made.recv(len(data), socket.MSG_WAITALL) == data


@pytest.mark.parametrize("action, word", [("drop", "silent"), ("reject", "refused")])
def test_new_connections(lab, gateway, address, action, word):
    """A source may make its burst and not more; another source is not concerned."""
    limit(gateway, rate=1, per="minute", burst=3, action=action)
    listen(gateway)
    assert [knock(lab.client, address) for _ in range(5)] == ["open"] * 3 + [word] * 2
    assert echoes(lab.client2, address)
    found = seen(gateway)
    assert found["placement"] == "nft" and found["reason"]
    assert found["passed"] == 4 and found["over"] >= 2 and found["full"] == 0
    assert found["listeners"] == [{"listener": "web", "passed": 4, "over": found["over"]}]
    kind = "ipv6" if ":" in address else "ipv4"
    assert found["sources"][kind] == 2


def test_key_prefix_and_listener(lab, gateway, address):
    """Sources of one prefix share; with key listener all share, each listener for itself."""
    limit(gateway, key="source_prefix", prefix_v4=13, prefix_v6=16, rate=1, per="minute", burst=2)
    limit(gateway, "whole", key="listener", rate=1, per="minute", burst=2)
    limit(gateway, "near", key="source_prefix", rate=1, per="minute", burst=1)
    listen(gateway, limits=["near"])  # /24 and /64: these two have a share each
    assert [knock(lab.client, address), knock(lab.client2, address), knock(lab.client, address), knock(lab.client2, address)] == [
        "open", "open", "silent", "silent"]
    listen(gateway)
    assert [knock(lab.client, address), knock(lab.client2, address), knock(lab.client, address)] == [
        "open", "open", "silent"]
    listen(gateway, limits=["whole"])
    assert [knock(lab.client, address), knock(lab.client2, address), knock(lab.client2, address)] == [
        "open", "open", "silent"]
    with servers.Peer(lab.server, address, PORT + 1, echo):
        listen(gateway, "other", ["whole"], PORT + 1)
        assert knock(lab.client, address, PORT + 1) == "open"


def test_concurrent(lab, gateway, address):
    """So many at once; one that ends makes room."""
    limit(gateway, metric="concurrent_connections", rate=2, action="reject")
    listen(gateway)
    first, second = (lab.client.connect(address, PORT, timeout=5) for _ in range(2))
    with first, second:
        assert knock(lab.client, address) == "refused"
        assert echoes(lab.client2, address)
        first.sendall(b"1")
        assert first.recv(1) == b"1"
        first.close()
        wait_for(lambda: knock(lab.client, address) == "open", 10, "room for another connection", interval=0.1)


@pytest.mark.parametrize("fields", [{"metric": "bytes", "rate": 40000}, {"metric": "packets", "rate": 30}])
def test_established(lab, gateway, address, fields):
    """Packets and bytes of connections that the relay has accepted count too; another client's are not held."""
    limit(gateway, **fields)
    listen(gateway)
    with lab.client.connect(address, PORT, timeout=5) as made:
        made.setblocking(False)
        sent = 0
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                sent += made.send(b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert echoes(lab.client2, address, b"y" * 10000)
    found = seen(gateway)
    assert found["over"] > 0
    if fields["metric"] == "bytes":
        assert found["passed_bytes"] < 40000 * 60, found


@pytest.mark.parametrize("metric", ["new_connections", "packets", "concurrent_connections"])
def test_udp(lab, gateway, address, metric):
    """Datagrams: a flow is a connection; its later datagrams count for packets only."""
    fields = {"rate": 2} if metric == "concurrent_connections" else {"rate": 1, "per": "minute", "burst": 2}
    limit(gateway, metric=metric, action="drop" if metric == "packets" else "reject", **fields)
    port = next(_ports)
    listen(gateway, port=port, protocol="udp")
    with datagrams.DatagramPeer(lab.server, address, port):
        made = [datagrams.client(lab.client, address, port, timeout=0.3) for _ in range(3)]
        try:
            assert [datagrams.ask(one, b"1") for one in made[:2]] == [b"1"] * 2
            with pytest.raises(TimeoutError if metric == "packets" else ConnectionRefusedError):
                datagrams.ask(made[2], b"1")
            if metric == "packets":
                with pytest.raises(TimeoutError):
                    datagrams.ask(made[0], b"2")
            else:
                assert [datagrams.ask(made[0], b"2") for _ in range(5)] == [b"2"] * 5
        finally:
            for one in made:
                one.close()


def test_shadow(lab, gateway, address):
    """Counted, and let through."""
    limit(gateway, rate=1, per="minute", burst=2, action="ban", mode="shadow")
    listen(gateway)
    assert [knock(lab.client, address) for _ in range(5)] == ["open"] * 5
    found = seen(gateway)
    assert (found["mode"], found["passed"], found["over"], found["banned"]) == ("shadow", 2, 3, 0)
    assert gateway.must("GET", "bans")["total"] == 0


@pytest.mark.parametrize("fields", [{"metric": "packets", "rate": 1, "per": "minute", "burst": 2},
                                    {"metric": "bytes", "rate": 1000}, {"metric": "concurrent_connections", "rate": 1}])
def test_shadow_of_each_metric(lab, gateway, address, fields):
    """The same of packets, bytes and connections at once."""
    limit(gateway, mode="shadow", action="ban", **fields)
    listen(gateway)
    with lab.client.connect(address, PORT, timeout=5) as one, lab.client.connect(address, PORT, timeout=5) as other:
        for made in (one, other):
            for _ in range(3):
                made.sendall(b"x" * 3000)
                assert made.recv(3000, socket.MSG_WAITALL) == b"x" * 3000
    found = seen(gateway)
    assert found["over"] > 0 and found["banned"] == 0 and gateway.must("GET", "bans")["total"] == 0


def test_changes_and_state(lab, gateway):
    """A changed rate counts at once; state outlives an apply about something else, the daemon, and drift."""
    address = ADDRESSES[0]
    limit(gateway, rate=1, per="minute", burst=2)
    listen(gateway)
    with servers.Peer(lab.server, address, PORT, echo):
        assert [knock(lab.client, address) for _ in range(3)] == ["open", "open", "silent"]
        gateway.listener("unrelated", ports=["9"])
        assert knock(lab.client, address) == "silent"
        limit(gateway, "other", rate=5)
        listen(gateway, "third", ["other", "l"], 7399)
        assert knock(lab.client, address) == "silent"
        gateway.kill()
        assert knock(lab.client, address) == "silent"
        gateway.start()
        assert knock(lab.client, address) == "silent"
        healed = gateway.status()["drift"]["healed"]
        chain = next(line.split()[1] for line in listing(lab).splitlines() if line.strip().startswith("chain listener."))
        lab.gateway.nft(f"flush chain inet gatewayd {chain}\n")
        wait_for(lambda: gateway.status()["drift"]["healed"] > healed, 10, "the chain restored")
        assert knock(lab.client, address) == "silent"
        assert seen(gateway)["listeners"][-1]["passed"] == 2
        limit(gateway, rate=1, per="minute", burst=4)
        assert [knock(lab.client, address) for _ in range(5)] == ["open"] * 4 + ["silent"]
        gateway.delete("listeners", "web")
        gateway.delete("listeners", "third")
        assert "listener." not in listing(lab) and "limit.l" not in listing(lab)
        assert seen(gateway)["placement"] == "none"


def test_full_set(lab, gateway):
    """Sources beyond those a limit can tell apart share one budget: a full set is no way around it."""
    address = ADDRESSES[0]
    limit(gateway, rate=1, per="minute", burst=2)
    listen(gateway)
    name = next(line.split()[1] for line in listing(lab).splitlines() if "set limit.l." in line and ".4" in line)
    many = ",\n".join(f"10.{200 + i // 65536}.{i // 256 % 256}.{i % 256}" for i in range(65536))
    lab.gateway.nft(f"add element inet gatewayd {name} {{ {many} }}\n")
    with servers.Peer(lab.server, address, PORT, echo):
        found = [knock(host, address) for host in (lab.client, lab.client2, lab.client, lab.client2)]
    assert found == ["open", "open", "silent", "silent"]
    counted = seen(gateway)
    assert counted["full"] >= 4 and counted["sources"]["ipv4"] == 65536
    assert "limit_nearly_full" in [warning["code"] for warning in gateway.status()["warnings"]]


def test_ban_by_limit(lab, gateway, address):
    """Over a limit once, then shut out, also with what was open; the list says by which limit; it ends by itself."""
    client, _other = CLIENTS[address]
    limit(gateway, rate=1, per="minute", burst=2, action="ban", ban_s=4)
    listen(gateway)
    with lab.client.connect(address, PORT, timeout=5) as kept:
        kept.sendall(b"1")
        assert kept.recv(1) == b"1"
        assert [knock(lab.client, address) for _ in range(2)] == ["open", "silent"]
        kept.sendall(b"2")
        kept.settimeout(0.3)
        with pytest.raises(TimeoutError):
            kept.recv(1)
        ban = wait_for(lambda: gateway.must("GET", "bans")["items"], 10, "the ban in the list")[0]
        assert (ban["address"], ban["rate_limit"], ban["actor"]) == (client, "l", "rate limit")
        assert echoes(lab.client2, address)
        wait_for(lambda: gateway.must("GET", "bans")["total"] == 0, 15, "the end of the ban")
        kept.settimeout(10)
        assert kept.recv(1) == b"2", "the ban ended, the connection went on"


def test_ban_by_hand(lab, gateway, address):
    """By hand, address or prefix; outlives apply, daemon, a lost table and a reboot's empty kernel; lifted at once."""
    client, _other = CLIENTS[address]
    prefix, path = ("fd71:1::/64", "fd71:1::/64") if ":" in address else ("10.71.1.0/25", "10.71.1.0/25")
    listen(gateway, limits=[])
    answer = gateway.api("POST", "bans", {"address": prefix, "ban_s": 600, "reason": "noise"})
    assert answer.status == 201 and answer.headers["Location"] == f"/api/v1/bans/{path}"
    assert gateway.must("GET", f"bans/{path}")["reason"] == "noise"
    assert knock(lab.client, address) == "silent"
    assert echoes(lab.client2, address)
    gateway.listener("unrelated", ports=["9"])
    gateway.kill()
    gateway.start()
    assert knock(lab.client, address) == "silent"
    healed = gateway.status()["drift"]["healed"]
    lab.gateway.nft("delete table inet gatewayd\n")
    wait_for(lambda: gateway.status()["drift"]["healed"] > healed, 10, "the table restored")
    assert knock(lab.client, address) == "silent"
    gateway.stop()
    lab.gateway.nft("delete table inet gatewayd\n")
    gateway.start()
    assert knock(lab.client, address) == "silent"
    assert gateway.status()["bans"] == 1
    assert "gateway_bans 1" in gateway.api("GET", "/metrics").text
    gateway.must("DELETE", f"bans/{path}")
    assert knock(lab.client, address) == "open"
    gateway.must("POST", "bans", {"address": client, "ban_s": 1})
    assert knock(lab.client, address) == "silent"
    wait_for(lambda: knock(lab.client, address) == "open", 10, "the end of the ban")
    assert gateway.api("DELETE", f"bans?address={prefix}").status == 404


def test_exempt(lab, gateway):
    """What is never banned: not by hand, not by a limit (but limited all the same), not as part of a prefix."""
    address = ADDRESSES[0]
    client, other = CLIENTS[address]
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "entries": [client]})
    gateway.must("PATCH", "settings", {"ban_exempt": "friends"})
    limit(gateway, rate=1, per="minute", burst=2, action="ban", ban_s=600)
    listen(gateway)
    assert gateway.api("POST", "bans", {"address": client}).status == 409
    with servers.Peer(lab.server, address, PORT, echo):
        assert [knock(lab.client, address) for _ in range(3)] == ["open", "open", "silent"]
        limit(gateway, rate=100, action="ban", ban_s=600)
        assert knock(lab.client, address) == "open"
        gateway.must("POST", "bans", {"address": "10.71.0.0/16"})
        assert knock(lab.client, address) == "open"
        assert knock(lab.client2, address) == "silent"
        gateway.must("PUT", "address-sets/friends", {"name": "friends", "entries": [client, "10.71.0.0/16"]})
        wait_for(lambda: gateway.must("GET", "bans")["total"] == 0, 10, "the ban of what became exempt is lifted")
        assert knock(lab.client2, address) == "open"
    assert gateway.api("DELETE", "address-sets/friends").status == 409
