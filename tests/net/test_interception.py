"""The second interception engine: a program at the ingress of interfaces hands packets to the relay's sockets."""

import itertools
import os
import socket
import struct
import threading

import pytest

from lab import servers
from lab.datagrams import DatagramPeer, ask, client
from lab.process import wait_for
from lab.segments import SYN, Wire

from net.control import taken_table

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
OWN = {"v4": "10.71.1.1", "v6": "fd71:1::1"}
NET = {"v4": "10.71.2.0/24", "v6": "fd71:2::/64"}
FAMILIES = ["v4", "v6"]
PORT = 7600
SOURCES = itertools.count(10000)
HAS_IT = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 6)

pytestmark = pytest.mark.shared_gateway
needs_it = pytest.mark.skipif(not HAS_IT, reason="sockets that share a port can be handed over from Linux 6.6 on")


def engine(gateway):
    """What the status says of the engines."""
    return gateway.status()["interception"]


def packets(gateway):
    """What the program has counted."""
    return engine(gateway)["packets"]


def rise(gateway, before):
    """What it has counted since then, without what did not change."""
    now = packets(gateway)
    return {name: now[name] - before[name] for name in now if now[name] != before[name]}


def hello(connection, _address):
    """A server that says who it thinks it talks to."""
    connection.sendall(f"{connection.getsockname()[1]} sees {connection.getpeername()[0]}".encode())
    connection.close()


def answer(lab, address, port, seconds=3, fresh=True):
    """What the server says; the name of the error if nothing is said. fresh: by a port of the client's that was not used
    before, for the socket of one that was may be in TIME_WAIT."""
    source = (lab.client.v6 if ":" in address else lab.client.v4, next(SOURCES) if fresh else 0)
    try:
        with lab.client.connect(address, port, timeout=seconds, before=lambda s: s.bind(source)) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def seen(lab, family, port=PORT):
    """What a server on this port answers that sees the client's own address."""
    return f"{port} sees {getattr(lab.client, family)}"


def filters(lab, interface="in0"):
    """The names of programs at the ingress of an interface of the gateway."""
    text = lab.gateway.run("tc", "filter", "show", "dev", interface, "ingress", check=False).stdout
    return [name for name in ("shortcut", "intercept") if f"{name}:[" in text]


@pytest.fixture
def ebpf(make_gateway):
    """A gateway with the engine."""
    gateway = make_gateway(args=["--interception", "ebpf"])
    assert engine(gateway)["engine"] == "ebpf", engine(gateway)
    return gateway


@pytest.fixture(params=FAMILIES)
def family(request):
    """Both."""
    return request.param


@pytest.fixture
def server(lab, family):
    """A server in that family, on PORT."""
    with servers.Peer(lab.server, SERVER[family], PORT, hello):
        yield SERVER[family]


@needs_it
def test_connections(lab, ebpf, server, family):
    """The program classifies each connection, and the relay sees what it would."""
    ebpf.listener("web", ports=[str(PORT)])
    before = packets(ebpf)
    for _ in range(10):
        assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before) == {"tcp": 10}


@needs_it
def test_datagrams(lab, ebpf, family):
    """Those of clients are classified, and tproxy chooses the thread; answers find the socket of their flow."""
    ebpf.listener("dns", protocol="udp", ports=[str(PORT)])
    with DatagramPeer(lab.server, SERVER[family], PORT) as peer:
        before = packets(ebpf)
        with client(lab.client, SERVER[family], PORT) as flow:
            for number in range(5):
                assert ask(flow, b"%d" % number) == b"%d" % number
        assert rise(ebpf, before) == {"udp": 5}
        assert {address[0] for _, address in peer.seen} == {getattr(lab.client, family)}


@needs_it
@pytest.mark.parametrize("action", ["drop", "reject", "bypass"])
def test_a_stronger_listener_that_does_not_relay(lab, ebpf, server, family, action):
    """It shadows the one that does, as it does in nft, and nft does what it says."""
    ebpf.listener("web", ports=[str(PORT)])
    ebpf.listener("other", ports=[str(PORT)], destinations=[server], action=action)
    before = packets(ebpf)
    wanted = {"drop": "timeout", "reject": "ConnectionRefusedError", "bypass": seen(lab, family)}[action]
    assert answer(lab, server, PORT, seconds=1) in (wanted, "TimeoutError" if action == "drop" else wanted)
    assert "tcp" not in rise(ebpf, before)


@needs_it
@pytest.mark.parametrize("match", [{"ports": ["7590-7610"]}, {"ports": []}, {"ports": ["7600-7601", "7595"]},
                                   {"ports": ["1-65535"]}, {"ports": ["7600"], "interfaces": ["in0"]}],
                         ids=["range", "any", "several", "all", "interface"])
def test_kinds_of_match(lab, ebpf, server, family, match):
    """Ranges of ports are cut into prefixes; interfaces are known by their names."""
    ebpf.listener("web", destinations=[NET[family]], **match)
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}
    if match["ports"] == ["7590-7610"]:
        for port in (7589, 7611):
            assert answer(lab, server, port, seconds=1) == "ConnectionRefusedError"
        assert rise(ebpf, before).items() >= {("tcp", 1)}


@needs_it
def test_another_interface(lab, ebpf, server, family):
    """A listener of one interface does not take what comes in by another."""
    ebpf.listener("web", ports=[str(PORT)], interfaces=["out0"])
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)  # forwarded
    assert "tcp" not in rise(ebpf, before)


@needs_it
def test_own_addresses_are_spared(lab, ebpf, family):
    """A wide listener does not catch what is for the gateway itself; one that names the address does."""
    with servers.Peer(lab.gateway, OWN[family], PORT, hello):
        ebpf.listener("wide", ports=[str(PORT)])
        before = packets(ebpf)
        assert answer(lab, OWN[family], PORT) == seen(lab, family)
        assert "tcp" not in rise(ebpf, before)
        ebpf.listener("named", ports=[str(PORT)], destinations=[OWN[family]], action="reject")
        assert answer(lab, OWN[family], PORT) == "ConnectionRefusedError"


@needs_it
def test_limits_and_bans(lab, ebpf, server, family):
    """Limited listeners are left to nft; the banned meet the rules although the program has handed them over."""
    ebpf.must("POST", "rate-limits", {"name": "few", "metric": "new_connections", "rate": 1000, "burst": 1000})
    ebpf.listener("web", ports=[str(PORT)], rate_limits=["few"])
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert "tcp" not in rise(ebpf, before)
    ebpf.must("PATCH", "listeners/web", {"rate_limits": []})
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}
    ebpf.must("POST", "bans", {"address": getattr(lab.client, family)})
    assert answer(lab, server, PORT, seconds=1) in ("timeout", "TimeoutError")
    ebpf.must("DELETE", f"bans?address={getattr(lab.client, family)}")
    assert answer(lab, server, PORT) == seen(lab, family)


@needs_it
@pytest.mark.parametrize("engine_name", ["nft", "ebpf"])
def test_answers_of_a_banned_target(lab, make_gateway, engine_name, family):
    """A ban is of clients: what a banned address answers as a target of a flow gets through, with either engine, though a
    listener matches it as well; what it begins itself does not."""
    gateway = make_gateway(args=["--interception", engine_name])
    gateway.listener("all", protocol="udp")
    asked, back = next(SOURCES), next(SOURCES)
    with DatagramPeer(lab.server, SERVER[family], PORT), DatagramPeer(lab.client, getattr(lab.client, family), back) as peer, \
            client(lab.client, SERVER[family], PORT, source=(getattr(lab.client, family), asked)) as flow, \
            client(lab.server, getattr(lab.client, family), back, (SERVER[family], next(SOURCES)), 0.5) as other:
        assert ask(flow, b"1") == b"1" and ask(other, b"2") == b"2"
        gateway.must("POST", "bans", {"address": SERVER[family]})
        try:
            before = gateway.must("GET", "stats")["nft"]["banned"]["packets"]
            assert [ask(flow, b"3") for _ in range(5)] == [b"3"] * 5
            with pytest.raises(TimeoutError):
                ask(other, b"4")
            assert gateway.must("GET", "stats")["nft"]["banned"]["packets"] == before + 1
            assert [data for data, _ in peer.seen] == [b"2"]
        finally:
            gateway.must("DELETE", f"bans?address={SERVER[family]}")


@needs_it
def test_ports_in_time_wait(lab, ebpf, server, family):
    """A client that uses its port again, while the relay's socket is in TIME_WAIT, gets another connection."""
    ebpf.listener("web", ports=[str(PORT)])
    source, before = (getattr(lab.client, family), next(SOURCES)), packets(ebpf)
    for _ in range(5):
        with lab.client.connect(server, PORT, before=lambda s: s.bind(source)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert connection.recv(100).decode() == seen(lab, family)
            # The gateway has sent its FIN: here the client's socket goes, there it waits.
            assert connection.recv(100) == b""
            connection.shutdown(socket.SHUT_WR)
            wait_for(lambda: not lab.client.run("ss", "-Htn", "state", "last-ack", f"sport = :{source[1]}").stdout, 5,
                     "the last ACK")
    counted = rise(ebpf, before)
    assert counted["tcp"] == 1 and counted["in_use"] == 4


@needs_it
@pytest.mark.skipif("GW_INTERCEPTION" in os.environ, reason="the option counts more than the setting")
def test_setting(lab, make_gateway, server, family):
    """It comes and goes with the setting, and connections do not notice."""
    gateway = make_gateway(bpf=True)
    gateway.listener("web", ports=[str(PORT)])
    assert engine(gateway) == {"engine": "nft", "state": "off", "why": None, "interfaces": [], "packets": {}}
    for wanted in ("ebpf", "nft", "ebpf"):
        gateway.must("PATCH", "settings", {"interception": wanted})
        assert engine(gateway)["engine"] == wanted
        assert ("intercept" in filters(lab)) == (wanted == "ebpf")
        assert answer(lab, server, PORT) == seen(lab, family)
    assert packets(gateway)["tcp"] == 1
    assert {item["interface"] for item in engine(gateway)["interfaces"] if item["attached"]} >= {"in0", "out0"}
    gateway.stop()
    assert "intercept" in filters(lab)
    gateway.run_once("--cleanup")
    assert filters(lab) == [] and filters(lab, "out0") == []
    assert "clsact" not in lab.gateway.run("tc", "qdisc", "show", "dev", "in0").stdout


@needs_it
def test_somebody_has_the_table(lab, ebpf, server, family):
    """Without the rules, which go on with what the program begins, nothing is begun, as soon as that is known: clients pass
    straight through, and are relayed again when the table is ours."""
    ebpf.listener("web", ports=[str(PORT)])
    for _ in range(3):
        with taken_table(lab, ebpf):
            before = packets(ebpf)
            assert answer(lab, server, PORT) == seen(lab, family)
            assert rise(ebpf, before) == {} and engine(ebpf)["state"] == "closed"
        wait_for(lambda: ebpf.api("GET", "/readyz").status == 200, 5, "the healing")
        before = packets(ebpf)
        assert answer(lab, server, PORT) == seen(lab, family)
        assert rise(ebpf, before) == {"tcp": 1}


@needs_it
def test_explained_and_measured(lab, ebpf, server, family):
    """POST /explain says who hands a packet over, /metrics how many there were."""
    ebpf.listener("web", ports=[str(PORT)])
    assert answer(lab, server, PORT) == seen(lab, family)
    question = {"protocol": "tcp", "source": getattr(lab.client, family), "destination": server,
                "destination_port": PORT, "interface": "in0"}
    stages = {stage["stage"]: stage for stage in ebpf.must("POST", "explain", question)["stages"]}
    assert stages["nft"]["engine"] == "ebpf"
    text = ebpf.api("GET", "/metrics").text
    assert f'gateway_interception_packets_total{{outcome="tcp"}} {packets(ebpf)["tcp"]}\n' in text
    assert "gateway_interception_ebpf 1\n" in text


@needs_it
def test_changes_under_load(lab, ebpf, server, family):
    """While listeners come and go, no connection of another listener fails or is left out for good."""
    ebpf.listener("web", ports=[str(PORT)])
    wrong, done, ending = [], [], threading.Event()

    def load():
        while not ending.is_set():
            said = answer(lab, server, PORT, fresh=False)
            done.append(said)
            if said != seen(lab, family):
                wrong.append(said)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(40):
            ebpf.listener(f"l{number}", ports=[f"{20000 + 500 * number}-{20400 + 500 * number}"],
                          destinations=[NET[family]] if number % 2 else [SERVER[family]])
            if number % 3 == 0:
                ebpf.delete("listeners", f"l{number}")
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert wrong == [] and len(done) > 40
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}


@needs_it
def test_goes_on_without_the_daemon(lab, ebpf, server, family):
    """Killed, it leaves the program in force; the next daemon puts its own in the place, with its configuration."""
    ebpf.listener("web", ports=[str(PORT)])
    ebpf.kill()
    # What nft would have to look for is gone: only the program knows that there is a listener.
    for chain in ("tcp4", "tcp6"):
        lab.gateway.run("nft", "flush", "chain", "inet", "gatewayd", chain)
    assert answer(lab, server, PORT) == seen(lab, family)
    ebpf.start()
    assert engine(ebpf)["engine"] == "ebpf"
    assert answer(lab, server, PORT) == seen(lab, family)
    assert packets(ebpf)["tcp"] == 1


@needs_it
def test_without_a_relay(lab, ebpf, server, family):
    """Listeners that go direct while no relay serves do so with this engine, too."""
    ebpf.listener("web", ports=[str(PORT)], on_worker_down="direct")
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}
    pid = ebpf.break_relay()
    wait_for(lambda: not ebpf.status()["ready"], 10, "the loss of the relay")
    before = packets(ebpf)
    wait_for(lambda: answer(lab, server, PORT, seconds=1) == seen(lab, family), 10, "the direct way")
    assert rise(ebpf, before).get("tcp", 0) <= 1
    ebpf.mend_relay()
    ebpf.wait_relay(pid, 30)
    assert answer(lab, server, PORT) == seen(lab, family)


@needs_it
def test_datagrams_stay_with_their_thread(lab, make_gateway, family):
    """Which of the relay's threads a client's datagrams come to does not depend on the engine: flows keep their targets."""
    gateway = make_gateway(args=["--threads", "4"])
    targets = {"v4": ["10.71.2.3", "10.71.2.4"], "v6": ["fd71:2::3", "fd71:2::4"]}[family]
    gateway.upstream("pool", [(address, PORT) for address in targets])
    gateway.listener("dns", protocol="udp", ports=[str(PORT)], upstream="pool")
    with DatagramPeer(lab.server, targets[0], PORT, lambda *_: b"0"), DatagramPeer(lab.server, targets[1], PORT, lambda *_: b"1"):
        flows = [client(lab.client, SERVER[family], PORT) for _ in range(24)]
        try:
            chosen = [ask(flow) for flow in flows]
            assert set(chosen) == {b"0", b"1"}
            gateway.must("PATCH", "settings", {"interception": "ebpf"})
            before = packets(gateway)
            assert [ask(flow) for flow in flows] == chosen
            assert rise(gateway, before)["udp"] == 24
        finally:
            for flow in flows:
                flow.close()


@needs_it
def test_groups_are_spared(lab, ebpf):
    """Also when a frame to a group, or to all hosts, comes to the gateway's own hardware address."""
    ebpf.listener("web", ports=[str(PORT)])
    lab.gateway.run("ip", "route", "add", "default", "via", "10.71.2.2")
    try:
        before = packets(ebpf)
        with Wire(lab.client, "up0", lab.gateway, "in0") as wire:
            for address in ("224.0.0.251", "239.255.255.250", "255.255.255.255", "192.0.2.1"):
                wire.socket.send(wire.frame(lab.client.v4, address, next(SOURCES), PORT, SYN))
            wait_for(lambda: rise(ebpf, before).get("left", 0) == 3, 5, "the three")
        assert rise(ebpf, before)["tcp"] == 1
    finally:
        lab.gateway.run("ip", "route", "del", "default")


@needs_it
def test_closed_while_our_rules_are_not_there(lab, ebpf, server, family):
    """With drift: alert nobody puts them back: what comes in is forwarded, as it is with the other engine."""
    ebpf.must("PATCH", "settings", {"drift": "alert"})
    ebpf.listener("web", ports=[str(PORT)])
    lab.gateway.run("nft", "delete", "table", "inet", "gatewayd")
    wait_for(lambda: engine(ebpf)["state"] == "closed", 10, "the end of it")
    assert answer(lab, server, PORT) == seen(lab, family)
    ebpf.must("PATCH", "settings", {"drift": "heal"})
    wait_for(lambda: engine(ebpf)["state"] == "on", 10, "the engine")
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}


@needs_it
def test_part_of_a_bridge(lab, ebpf, server, family):
    """An interface that joins a bridge loses the program: the rules see the bridge's name from then on."""
    ebpf.listener("web", ports=[str(PORT)])
    lab.gateway.run("ip", "link", "add", "pair0", "type", "veth", "peer", "name", "pair1")
    try:
        lab.gateway.run("ip", "link", "set", "pair0", "up")
        lab.gateway.run("ip", "link", "set", "pair1", "up")
        wait_for(lambda: "intercept" in filters(lab, "pair0"), 10, "the program at an interface that has come")
        lab.gateway.run("ip", "link", "add", "bridge0", "type", "bridge")
        lab.gateway.run("ip", "link", "set", "pair0", "master", "bridge0")
        wait_for(lambda: "intercept" not in filters(lab, "pair0"), 10, "its end at a part of a bridge")
    finally:
        lab.gateway.run("ip", "link", "del", "bridge0", check=False)
        lab.gateway.run("ip", "link", "del", "pair0", check=False)


@needs_it
def test_taken_off_by_somebody(lab, ebpf, server, family):
    """Without it nft does it all; it is put there again."""
    ebpf.listener("web", ports=[str(PORT)])
    lab.gateway.run("tc", "qdisc", "del", "dev", "in0", "clsact")
    assert answer(lab, server, PORT) == seen(lab, family)
    before = packets(ebpf)
    wait_for(lambda: "intercept" in filters(lab), 15, "the program where it was")
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}


@needs_it
def test_more_shapes_than_it_takes(lab, ebpf, server, family):
    """The engine says that it cannot, nft does it all, and with a smaller configuration it is back."""
    document = ebpf.must("GET", "config")
    narrow = [{"name": f"l{length}", "ports": ["9"], "destinations": [f"fd99:{length:x}::/{length}"]}
              for length in range(48, 118)]
    web = {"name": "web", "ports": [str(PORT)]}
    ebpf.must("PUT", "config", document | {"listeners": [web, *narrow]})
    assert engine(ebpf)["state"] == "failed" and "more" in engine(ebpf)["why"]
    assert "interception" in {check["name"] for check in ebpf.must("GET", "doctor")["checks"] if not check["ok"]}
    assert answer(lab, server, PORT) == seen(lab, family)
    ebpf.must("PUT", "config", document | {"listeners": [web, *narrow[:30]]})
    assert engine(ebpf)["state"] == "on"
    before = packets(ebpf)
    assert answer(lab, server, PORT) == seen(lab, family)
    assert rise(ebpf, before).items() >= {("tcp", 1)}


@pytest.mark.skipif(HAS_IT, reason="the kernel has it")
def test_an_older_kernel(lab, make_gateway, server, family):
    """It is said why the engine is not in force, and nft does it all."""
    gateway = make_gateway(args=["--interception", "ebpf"])
    gateway.listener("web", ports=[str(PORT)])
    assert engine(gateway)["engine"] == "nft" and engine(gateway)["state"] == "failed"
    assert "6.6" in engine(gateway)["why"]
    assert answer(lab, server, PORT) == seen(lab, family)
