"""Listeners that name interfaces which are not there yet, go away, come back and change their names."""

import threading

import pytest

from lab import kernel, servers
from lab.netns import run
from lab.process import wait_for
from net.control import expect_kernel_as_desired


@pytest.fixture
def cable(lab):
    """plug(name) makes a cable between gateway and a host of its own, network 10.71.9.0/24 and fd71:9::/64; the host."""
    host = lab._host("late")
    made = []

    def plug(name):
        run("ip", "link", "add", "up0", "netns", host.name, "type", "veth", "peer", "name", name, "netns",
            lab.gateway.name)
        for place, device, last in ((lab.gateway, name, 1), (host, "up0", 2)):
            place.run("ip", "addr", "add", f"10.71.9.{last}/24", "dev", device)
            place.run("ip", "addr", "add", f"fd71:9::{last}/64", "dev", device, "nodad")
            place.run("ip", "link", "set", device, "up")
        host.run("ip", "route", "add", "default", "via", "10.71.9.1")
        host.run("ip", "-6", "route", "add", "default", "via", "fd71:9::1")
        made.append(name)

    plug.host = host
    yield plug
    host.delete()
    lab.hosts.remove(host)


def seen_from(host, address="10.71.2.2", port=8000):
    """Which server answers a host."""
    with host.connect(address, port, timeout=5) as connection:
        connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        return connection.recv(4096).decode().split("\r\n\r\n")[1].split(f":{port} ")[0]


def on_interface(gateway, *names):
    """Listener web: only from these interfaces, to another server than the one asked for."""
    gateway.upstream("v4", [("10.71.2.3", 0)])
    gateway.upstream("v6", [("fd71:2::3", 0)])
    gateway.listener("web", ports=["8000"], interfaces=list(names), destinations=["10.71.2.0/24"], upstream="v4")
    gateway.listener("web6", ports=["8000"], interfaces=list(names), destinations=["fd71:2::/64"], upstream="v6")


def test_it_comes_later(lab, nginx, gateway, cable):
    """The listener is taken, waits, and works with the first packet after the interface has come."""
    on_interface(gateway, "late0")
    assert seen_from(lab.client) == "10.71.2.2", "other interfaces are not meant"
    cable("late0")
    assert seen_from(cable.host) == "10.71.2.3"
    assert seen_from(cable.host, "fd71:2::2") == "fd71:2::3"
    assert seen_from(lab.client) == "10.71.2.2"
    expect_kernel_as_desired(lab, gateway)


def test_the_status_says_what_is_missing(lab, nginx, gateway, cable):
    """`waiting for interface` in the status while it is not there, and not any more when it is."""
    on_interface(gateway, "late0")

    def told():
        text = gateway.api("GET", "status").text + gateway.api("GET", "listeners/web").text
        return "late0" in text.replace('"interfaces":["late0"]', "") or "waiting for interface" in text

    wait_for(told, 2, "a word about late0")
    cable("late0")
    wait_for(lambda: "waiting for interface" not in gateway.api("GET", "status").text, 2, "the end of the wait")


def test_it_goes_and_comes_back(lab, nginx, gateway, cable):
    """Deleted under traffic, made again: works again, ten times over, and the daemon stays ready."""
    on_interface(gateway, "late0")
    for _ in range(10):
        cable("late0")
        assert seen_from(cable.host) == "10.71.2.3"
        held = cable.host.connect("10.71.2.2", 8000)
        held.sendall(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"10.71.2.3" in held.recv(1000)
        lab.gateway.run("ip", "link", "del", "late0")
        held.close()
        assert gateway.api("GET", "/readyz").status == 200
    cable("late0")
    assert seen_from(cable.host) == "10.71.2.3"
    assert gateway.status()["drift"]["last"] is None
    expect_kernel_as_desired(lab, gateway)


def test_it_is_renamed(lab, nginx, gateway, cable):
    """The listener follows the name, not the wire: before and after a rename, both ways, with the link up or down."""
    on_interface(gateway, "wan0")
    cable("late0")
    for old, new, expected in (("late0", "wan0", "10.71.2.3"), ("wan0", "late0", "10.71.2.2"), ("late0", "wan0", "10.71.2.3")):
        assert seen_from(cable.host) != expected
        lab.gateway.run("ip", "link", "set", old, "down")
        lab.gateway.run("ip", "link", "set", old, "name", new)
        lab.gateway.run("ip", "link", "set", new, "up")
        wait_for(lambda: lab.gateway.run("ip", "-br", "link", "show", new).stdout.split()[1] == "UP", 5, "the link")
        lab.gateway.run("ip", "addr", "replace", "fd71:9::1/64", "dev", new, "nodad")
        assert seen_from(cable.host) == expected, f"after {old} became {new}"
    assert gateway.api("GET", "/readyz").status == 200
    expect_kernel_as_desired(lab, gateway)


def test_two_swap_their_names(lab, nginx, gateway, cable):
    """in1 and late0 exchange names: the listener is with whoever is called late0."""
    on_interface(gateway, "late0")
    cable("late0")
    assert seen_from(cable.host) == "10.71.2.3" and seen_from(lab.client2) == "10.71.2.2"

    def swap():
        for old, new in (("late0", "tmp0"), ("in1", "late0"), ("tmp0", "in1")):
            lab.gateway.run("ip", "link", "set", old, "down")
            lab.gateway.run("ip", "link", "set", old, "name", new)
            lab.gateway.run("ip", "link", "set", new, "up")
        lab.gateway.run("ip", "addr", "replace", "fd71:5::1/64", "dev", "late0", "nodad", check=False)

    try:
        swap()
        assert seen_from(cable.host) == "10.71.2.2" and seen_from(lab.client2) == "10.71.2.3"
    finally:
        for old, new in (("late0", "tmp0"), ("in1", "late0"), ("tmp0", "in1")):
            lab.gateway.run("ip", "link", "set", old, "down", check=False)
            lab.gateway.run("ip", "link", "set", old, "name", new, check=False)
            lab.gateway.run("ip", "link", "set", new, "up", check=False)
        lab.gateway.run("ip", "addr", "replace", "fd71:5::1/64", "dev", "in1", "nodad", check=False)


def test_a_write_while_interfaces_flap(lab, nginx, gateway, cable):
    """Interfaces come and go during a hundred writes that name them: each is taken, and all hold in the end."""
    stop = threading.Event()

    def flap():
        while not stop.is_set():
            lab.gateway.run("ip", "link", "add", "flap0", "type", "dummy", check=False)
            lab.gateway.run("ip", "link", "set", "flap0", "up", check=False)
            lab.gateway.run("ip", "link", "del", "flap0", check=False)

    thread = threading.Thread(target=flap, daemon=True)
    thread.start()
    try:
        for number in range(100):
            name = f"l{number % 10}"
            gateway.listener(name, ports=[str(9000 + number)], interfaces=["flap0", f"eth{number}"])
    finally:
        stop.set()
        thread.join()
    assert len([e for e in kernel.our_elements(lab.gateway) if '"eth' in e or '"flap0' in e]) == 40
    assert gateway.api("GET", "/readyz").status == 200
    expect_kernel_as_desired(lab, gateway)


@pytest.mark.parametrize("elsewhere, own", [("10.71.2.5", "10.71.77.1"), ("fd71:2::5", "fd71:77::1")], ids=["v4", "v6"])
def test_the_gateway_gets_another_address(lab, nginx, gateway, elsewhere, own):
    """An address that becomes the gateway's own is not intercepted by a listener for any destination any more."""
    gateway.listener("any", ports=["7444"])
    device = ("dev", "lo") if ":" not in own else ("dev", "lo", "nodad")

    def intercepted():
        item = gateway.must("GET", "stats/listeners")["items"][0]
        return item["flows_opened"] + item["refused"]

    with servers.Peer(lab.server, elsewhere, 7444, lambda c, _a: c.sendall(b"server")):
        with lab.client.connect(elsewhere, 7444) as connection:
            assert connection.recv(10) == b"server"
        lab.gateway.run("ip", "addr", "add", own, *device)
        before = intercepted()
        try:
            with servers.Peer(lab.gateway, own, 7444, lambda c, _a: c.sendall(b"own")):
                with lab.client.connect(own, 7444) as connection:
                    assert connection.recv(10) == b"own"
        finally:
            lab.gateway.run("ip", "addr", "del", own, *device[:2], check=False)
        assert before == 1 and intercepted() == before
