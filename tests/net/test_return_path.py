"""Answers of targets that go another way than back through the gateway: seen, told with the command that mends it, mended
by it; and what looks alike and is none of it."""

import contextlib
import errno

import pytest

from lab import Gateway
from lab.process import Timeout, wait_for
from net.test_doctor import check_of, red

PORT = 8100
DEAD = 8101    # where the server answers nobody
DETAIL = "answers to clients come back from {} of the {} targets that clients were seen of"


@pytest.fixture(scope="module")
def gateway(lab):
    """IPv4 by an upstream, IPv6 to the packet's own destination, and a target that is dead."""
    with Gateway(lab) as made:
        made.upstream("pool", [(lab.server.v4, PORT)])
        made.upstream("dead", [(lab.server.v4, DEAD)], max_retries=0)
        made.listener("web", ports=[str(PORT)], destinations=["10.71.2.0/24"], upstream="pool", connect_timeout_ms=4000)
        made.listener("own", ports=[str(PORT)], destinations=["fd71:2::/64"], connect_timeout_ms=4000)
        made.listener("deaf", ports=[str(DEAD)], destinations=["10.71.2.0/24"], upstream="dead", connect_timeout_ms=4000)
        yield made


@pytest.fixture(scope="module")
def servers(lab):
    """Where the server listens, by family; it accepts only what a test takes."""
    with contextlib.ExitStack() as stack:
        yield {4: stack.enter_context(lab.server.listen(lab.server.v4, PORT)), 6: stack.enter_context(lab.server.listen(lab.server.v6, PORT))}


def talk(lab, servers, family):
    """One connection of the client, that the server sees come from it."""
    server = lab.server.v4 if family == 4 else lab.server.v6
    with contextlib.closing(lab.client.connect(server, PORT)) as connection:
        taken, peer = servers[family].accept()
        with taken:
            assert peer[0] == (lab.client.v4 if family == 4 else lab.client.v6)
            connection.sendall(b"x")
            assert taken.recv(1) == b"x"


def begin(lab, address, port):
    """A connect of the client that nobody waits for."""
    made = lab.client.socket(10 if ":" in address else 2)
    made.setblocking(False)
    assert made.connect_ex((address, port)) == errno.EINPROGRESS
    return made


def detail(gateway):
    """What the check says."""
    return check_of(gateway, "return_path")["detail"]


def until(gateway, condition):
    """Waits until the check is as the condition on its text says. Each look costs the daemon some milliseconds."""
    last = []
    try:
        wait_for(lambda: condition(last.append(detail(gateway)) or last[-1]), 25, "the check", interval=0.2)
    except Timeout as error:
        raise AssertionError(f"it says: {last[-1:]}") from error


def waiting_at(servers):
    """How many connections wait to be accepted; they are taken."""
    n = 0
    for one in servers.values():
        one.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one.accept()[0].close()
                n += 1
        one.settimeout(10)
    return n


def test_broken_and_mended(lab, gateway, servers):
    """Both families: nothing is said of what nobody uses; traffic proves the way; a route that leads elsewhere makes exactly
    this check red; its own command mends it."""
    assert red(gateway) == set() and "no client was seen" in detail(gateway)
    talking = [lab.client.connect(server, PORT) for server in (lab.server.v4, lab.server.v6)]
    until(gateway, lambda text: text == DETAIL.format(2, 2))
    for one, family in zip(talking, (4, 6)):
        servers[family].accept()[0].close()
        one.close()

    lab.server.run("ip", "route", "add", "blackhole", f"{lab.client.v4}/32")
    lab.server.run("ip", "-6", "route", "add", "blackhole", f"{lab.client.v6}/128")
    try:
        waiting = [begin(lab, server, PORT) for server in (lab.server.v4, lab.server.v6)]
        until(gateway, lambda text: "2 of 2 targets" in text)
        assert red(gateway) == {"return_path"}
        assert [warning["code"] for warning in gateway.status()["warnings"]] == ["return_path"]
        for one in waiting:
            one.close()
        wait_for(lambda: not gateway.must("GET", "flows")["items"], 10, "the end of what could not connect")
        waiting_at(servers)
        metrics = gateway.api("GET", "/metrics").text
        assert "\ngateway_return_paths 2\n" in metrics and "\ngateway_return_paths_broken 2\n" in metrics
        for left in (1, 0):
            place, command = check_of(gateway, "return_path")["fix"].split("; or")[0].removeprefix("on ").split(": ", 1)
            assert place in (lab.server.v4, lab.server.v6)
            lab.server.run(*command.split())
            assert gateway.must("POST", "doctor/probe") == {"targets": 2}
            until(gateway, lambda text, left=left: "1 of 2 targets" in text if left else text == DETAIL.format(2, 2))
        # Probes are not accepted, unless the relay was so late that the kernel has answered for it.
        assert waiting_at(servers) <= 1
    finally:
        lab.server.run("ip", "route", "del", f"{lab.client.v4}/32", check=False)
        lab.server.run("ip", "-6", "route", "del", f"{lab.client.v6}/128", check=False)
    for family in (4, 6):
        talk(lab, servers, family)
    assert red(gateway) == set()


def test_not_to_be_mixed_up(lab, gateway, servers):
    """A target that answers nobody is no fault of the way back; and nothing is red of a listener that says gateway."""
    with contextlib.closing(lab.client.connect(lab.server.v4, PORT)), contextlib.closing(servers[4].accept()[0]):
        until(gateway, lambda text: "come back" in text)
    lab.server.nft(f"add table ip deaf\nadd chain ip deaf in {{ type filter hook input priority 0; }}\n"
                   f"add rule ip deaf in tcp dport {DEAD} drop\n")
    lab.server.run("ip", "route", "add", "blackhole", f"{lab.client.v4}/32")
    try:
        with begin(lab, lab.server.v4, DEAD), begin(lab, lab.server.v4, PORT):
            until(gateway, lambda text: "do not come back here" in text and "1 of " in text and "listener web" in text)
        assert red(gateway) == {"return_path"}
        gateway.must("PATCH", "listeners/web", {"source_address": "gateway"})
        assert red(gateway) == set()
        until(gateway, lambda text: "unknown of 1: no probe (TCP) is answered" in text)
        with contextlib.closing(lab.client.connect(lab.server.v4, PORT)), contextlib.closing(servers[4].accept()[0]):
            pass
    finally:
        lab.server.nft("delete table ip deaf")
        lab.server.run("ip", "route", "del", f"{lab.client.v4}/32")
