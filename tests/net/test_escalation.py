"""Escalation: who goes on hitting a limit is shut out at the prefilter too, for a time, in words, and not who is exempt."""

import pytest

from lab import servers
from lab.process import wait_for
from net.test_limits import ADDRESSES, CLIENTS, PORT, echo, echoes, knock, limit, listen, seen
from net.test_prefilter import GATEWAY, Drops, counts, pings, prefilter


@pytest.fixture
def gateway(make_gateway):
    """A gateway whose programs can be pinned."""
    return make_gateway(bpf=True)


@pytest.fixture(params=ADDRESSES)
def address(request, lab):
    """An address of a server with an echo."""
    with servers.Peer(lab.server, request.param, PORT, echo):
        yield request.param


def bans(gateway):
    """The list."""
    return gateway.must("GET", "bans")["items"]


def hammer(lab, gateway, address, escalate, n=8, **fields):
    """A client that goes on when it is over its limit of one connection."""
    limit(gateway, rate=1, per="minute", burst=1, escalate=escalate, **fields)
    listen(gateway)
    return [knock(lab.client, address, wait=0.1) for _ in range(n)]


@pytest.mark.parametrize("address, action", [(ADDRESSES[0], "drop"), (ADDRESSES[1], "drop"), (ADDRESSES[1], "ban")],
                         indirect=["address"])
def test_it_moves_up_and_comes_down(lab, gateway, address, action):
    """Over the limit: dropped by nft; going on: by the prefilter, listed with who, why and until when; it ends by itself."""
    family = 6 if ":" in address else 4
    client, _other = CLIENTS[address]
    prefilter(gateway)
    fields = {"action": "ban", "ban_s": 6} if action == "ban" else {}
    assert "open" in hammer(lab, gateway, address, {"after": 3, "ban_s": 6}, **fields)
    ban = wait_for(lambda: bans(gateway), 10, "the ban in the list")[0]
    assert (ban["address"], ban["rate_limit"], ban["placement"]) == (client, "l", "xdp")
    assert ban["interfaces"] == ["in0"] and ban["expires_at"]
    assert ban["reason"] == ('over the limit "l"' if action == "ban" else 'more than 3 packets a minute over the limit "l"')
    with Drops(gateway) as drops:
        assert pings(lab.client, GATEWAY[family], 2) == 0
    assert drops.by_reason["banned"] >= 2
    assert seen(gateway)["escalated"] == seen(gateway)["banned"] == 1
    assert echoes(lab.client2, address)
    wait_for(lambda: not bans(gateway), 15, "the end of the ban")
    assert pings(lab.client, GATEWAY[family], 2) == 2


def test_shadow_counts_only(lab, gateway):
    """Shadow: what would have moved somebody up is counted, and nobody is touched."""
    prefilter(gateway)
    with servers.Peer(lab.server, ADDRESSES[0], PORT, echo):
        assert hammer(lab, gateway, ADDRESSES[0], {"after": 3}, mode="shadow") == ["open"] * 8
    assert seen(gateway)["escalated"] == 4 and bans(gateway) == []


def test_exempt(lab, gateway):
    """Who is exempt stays limited and is never shut out; a prefix with somebody exempt in it is left to nft."""
    client, other = CLIENTS[ADDRESSES[0]]
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "entries": [client]})
    gateway.must("PATCH", "settings", {"ban_exempt": "friends"})
    prefilter(gateway)
    assert hammer(lab, gateway, ADDRESSES[0], {"after": 3})[-1] == "silent"
    gateway.must("POST", "bans", {"address": "10.71.1.0/24", "placement": "xdp"})
    assert gateway.must("GET", "bans/10.71.1.0/24")["interfaces"] == []
    assert pings(lab.client, GATEWAY[4], 2) == 2
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "entries": [other]})
    wait_for(lambda: pings(lab.client, GATEWAY[4], 1) == 0, 10, "the ban at the prefilter")
    gateway.must("DELETE", "bans/10.71.1.0/24")
    assert pings(lab.client, GATEWAY[4], 2) == 2


def test_it_outlives_the_daemon_and_the_prefilter(lab, gateway):
    """kill -9: shut out all the time; learned of a source that moved up meanwhile; put into a prefilter that comes later."""
    client, _other = CLIENTS[ADDRESSES[0]]
    limit(gateway, rate=1, per="minute", burst=1, escalate={"after": 3, "ban_s": 600})
    listen(gateway)
    prefilter(gateway)
    gateway.kill()
    for _ in range(8):
        knock(lab.client, ADDRESSES[0], wait=0.1)
    gateway.start()
    wait_for(lambda: [ban["interfaces"] for ban in bans(gateway)] == [["in0"]], 10, "the ban at the prefilter")
    gateway.kill()
    assert pings(lab.client, GATEWAY[4], 1) == 0
    gateway.start()
    assert pings(lab.client, GATEWAY[4], 1) == 0 and [ban["address"] for ban in bans(gateway)] == [client]
    gateway.must("DELETE", "prefilters/in0")
    assert pings(lab.client, GATEWAY[4], 1) == 1
    prefilter(gateway)
    wait_for(lambda: pings(lab.client, GATEWAY[4], 1) == 0, 10, "the ban at the new prefilter")
    assert counts(gateway)["banned"] > 0
    gateway.must("DELETE", f"bans/{client}")
    assert pings(lab.client, GATEWAY[4], 1) == 1


def test_placement_is_checked(gateway):
    """Bad input."""
    for wrong in ("relay", 7, None):
        answer = gateway.api("POST", "bans", {"address": "192.0.2.1", "placement": wrong})
        assert answer.status == 422 and answer.json["errors"][0]["pointer"] == "/placement", answer
    assert bans(gateway) == []
