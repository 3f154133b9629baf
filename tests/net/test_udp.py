"""UDP through the relay: who sees whom, real DNS and QUIC, many flows, and what must not be taken away from others."""

import errno
import os
import signal
import socket
import subprocess
import time

import pytest

from lab import datagrams, servers
from lab.datagrams import DatagramPeer, ask, client, gwudp_result, is_silent
from lab.netns import run
from lab.process import alive, descriptors, wait_for

pytestmark = pytest.mark.shared_gateway

FAMILIES = ["v4", "v6"]
SERVERS = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
TARGETS = {"v4": ["10.71.2.3", "10.71.2.4"], "v6": ["fd71:2::3", "fd71:2::4"]}
FAR = {"v4": "10.71.4.2", "v6": "fd71:4::2"}
UDP_SEGMENT = 103


def counters(gateway):
    """The relay's counters."""
    return gateway.counters()


def open_flows(gateway):
    """UDP flows that have begun and not ended."""
    now = counters(gateway)
    return now["udp_flows_opened"] - now["udp_flows_closed"]


def tell(data, address):
    """A server that says whom it sees."""
    return f"{address[0]} {address[1]}".encode()


def own_name(made):
    """The same, of a socket's own address."""
    return "{} {}".format(*made.getsockname()[:2]).encode()


@pytest.mark.parametrize("family", FAMILIES)
def test_server_sees_the_client(lab, gateway, family):
    """The server sees the client's address and port, and the client hears the address and port that it asked."""
    gateway.listener("u", protocol="udp", ports=["7100"])
    with DatagramPeer(lab.server, SERVERS[family], 7100, tell), client(lab.client, SERVERS[family], 7100) as made:
        for _ in range(3):
            assert ask(made) == own_name(made)
    now = counters(gateway)
    assert (now["udp_flows_opened"], now["ports_kept"]) == (1, 1)
    assert (now["datagrams_to_target"], now["datagrams_to_client"]) == (3, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_upstream(lab, gateway, family):
    """With an upstream another server answers, sees the client all the same, and the client cannot tell."""
    gateway.upstream("pool", [(TARGETS[family][0], 7111)])
    gateway.listener("u", protocol="udp", ports=["7110"], upstream="pool")
    with DatagramPeer(lab.server, TARGETS[family][0], 7111, tell), client(lab.client, SERVERS[family], 7110) as made:
        assert ask(made) == own_name(made)


@pytest.mark.parametrize("family", FAMILIES)
def test_source_address_gateway(lab, gateway, family):
    """With source_address gateway the server sees the gateway; with source_port any another port."""
    gateway.listener("g", protocol="udp", ports=["7120"], source_address="gateway")
    gateway.listener("a", protocol="udp", ports=["7121"], source_port="any")
    gateway_address = {"v4": "10.71.2.1", "v6": "fd71:2::1"}[family]
    with DatagramPeer(lab.server, SERVERS[family], 7120, tell), client(lab.client, SERVERS[family], 7120) as made:
        assert ask(made).split()[0].decode() == gateway_address
    with DatagramPeer(lab.server, SERVERS[family], 7121, tell), client(lab.client, SERVERS[family], 7121) as made:
        address, port = ask(made).split()
        assert address == own_name(made).split()[0] and port != own_name(made).split()[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes(lab, gateway, family):
    """Empty datagrams, and those larger than the MTU, which travel in fragments, both ways."""
    gateway.listener("u", protocol="udp", ports=["7130"])
    with DatagramPeer(lab.server, SERVERS[family], 7130), client(lab.client, SERVERS[family], 7130) as made:
        for size in (0, 1, 1400, 1472, 1473, 4000, 0, 65000, 65507 if family == "v4" else 65000):
            data = os.urandom(size)
            assert ask(made, data) == data, size
    assert counters(gateway)["udp_dropped"] == 0


def settles(attempt, tries=4):
    """Whether it works after the kernel has learned of the path; what was on its way then is lost, as without us."""
    for _ in range(tries):
        try:
            return attempt()
        except socket.timeout:
            continue
    raise AssertionError("nothing gets through")


@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_path_to_the_server(lab, gateway, family):
    """A path MTU behind the gateway is learned by the relay's socket; larger datagrams go in fragments then."""
    gateway.listener("u", protocol="udp", ports=["7140"])
    data = os.urandom(1400)
    with DatagramPeer(lab.far, FAR[family], 7140), client(lab.client, FAR[family], 7140, timeout=0.7) as made:
        assert settles(lambda: ask(made, data)) == data


@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_path_to_the_client(lab, gateway, family):
    """And one towards the client by the socket that answers are sent from."""
    gateway.listener("u", protocol="udp", ports=["7150"])
    data = os.urandom(1400)
    address = getattr(lab.client, family)
    with DatagramPeer(lab.client, address, 7150, lambda _data, _address: data):
        with client(lab.far, address, 7150, timeout=0.7) as made:
            assert settles(lambda: ask(made)) == data


@pytest.mark.parametrize("family", FAMILIES)
def test_many_in_one(lab, gateway, family):
    """What a client hands to its kernel as one and is cut there (UDP_SEGMENT) arrives as the datagrams that it is."""
    gateway.listener("u", protocol="udp", ports=["7160"])
    data = os.urandom(20 * 1000 + 300)
    with DatagramPeer(lab.server, SERVERS[family], 7160) as peer:
        with client(lab.client, SERVERS[family], 7160) as made:
            made.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            made.send(data)
            answers = [made.recv(65536) for _ in range(21)]
    assert [len(piece) for piece, _ in peer.seen] == [1000] * 20 + [300]
    assert b"".join(answers) == data
    assert (counters(gateway)["datagrams_to_target"], counters(gateway)["datagrams_to_client"]) == (21, 21)


# --- flows that could be taken for one another ---

def test_two_clients_one_destination(lab, gateway):
    """Two clients with the same port, and one destination: each gets its own answers."""
    gateway.listener("u", protocol="udp", ports=["7200"])
    with DatagramPeer(lab.server, SERVERS["v4"], 7200, tell):
        one = client(lab.client, SERVERS["v4"], 7200, source=("0.0.0.0", 7777))
        two = client(lab.client2, SERVERS["v4"], 7200, source=("0.0.0.0", 7777))
        for _ in range(5):
            assert ask(one) == f"{lab.client.v4} 7777".encode()
            assert ask(two) == f"{lab.client2.v4} 7777".encode()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_port_two_destinations(lab, gateway, family):
    """One socket of a client's, two destinations, and two upstreams: four flows, each answered from where it went."""
    gateway.upstream("one", [(TARGETS[family][0], 7212)])
    gateway.upstream("two", [(TARGETS[family][1], 7212)])
    gateway.listener("plain", protocol="udp", ports=["7210"])
    gateway.listener("up1", protocol="udp", ports=["7213"], upstream="one")
    gateway.listener("up2", protocol="udp", ports=["7214"], upstream="two")
    server, other = SERVERS[family], TARGETS[family][0]
    made = lab.client.socket(socket.AF_INET6 if family == "v6" else socket.AF_INET, socket.SOCK_DGRAM, timeout=3)
    with DatagramPeer(lab.server, server, 7210, lambda *_: b"server"), \
            DatagramPeer(lab.server, other, 7210, lambda *_: b"other") as peer, \
            DatagramPeer(lab.server, TARGETS[family][0], 7212, lambda *_: b"one"), \
            DatagramPeer(lab.server, TARGETS[family][1], 7212, lambda *_: b"two") as last:
        for _ in range(3):
            for where, answer in (((server, 7210), b"server"), ((other, 7210), b"other"), ((server, 7213), b"one"),
                                  ((server, 7214), b"two")):
                made.sendto(b"?", where)
                data, address = made.recvfrom(100)
                assert (data, address[:2]) == (answer, where)
        assert {address[1] for _, address in peer.seen + last.seen} == {made.getsockname()[1]}
    assert counters(gateway)["ports_kept"] == 4


def test_one_port_same_target_twice(lab, gateway):
    """Two flows of one client's port that end at one target cannot both keep it: the second is counted, both work."""
    gateway.upstream("pool", [(TARGETS["v4"][0], 7222)])
    gateway.listener("u", protocol="udp", ports=["7220-7221"], upstream="pool")
    made = lab.client.socket(kind=socket.SOCK_DGRAM, timeout=3)
    with DatagramPeer(lab.server, TARGETS["v4"][0], 7222, tell):
        for _ in range(3):
            for port in (7220, 7221):
                made.sendto(b"?", (SERVERS["v4"], port))
                data, address = made.recvfrom(100)
                assert address == (SERVERS["v4"], port)
                assert (data.split()[1] == str(made.getsockname()[1]).encode()) == (port == 7220)
    assert (counters(gateway)["ports_kept"], counters(gateway)["ports_taken"]) == (1, 1)


def test_nothing_is_stolen(lab, gateway, gwudp):
    """While flows to a server begin and end by the thousand, the datagrams of a client that is not matched, to the same
    address and port, pass by untouched: none is lost, none goes through the relay."""
    gateway.listener("u", protocol="udp", ports=["7230"], sources=["10.71.1.0/24"], idle_timeout_s=1)
    datagrams.echo_server(lab, lab.server, gwudp, 7230)
    blast = subprocess.Popen(lab.client.command(gwudp, "many", SERVERS["v4"], 7230, 6000, 20), stdout=subprocess.PIPE)
    rounds = 0
    while blast.poll() is None:
        done = gwudp_result(lab.client2.run(gwudp, "check", SERVERS["v4"], 7230, 10, 500, 100, 4, check=False))
        assert (done["bad"], done["failed"], done["resent"], done["doubled"]) == (0, 0, 0, 0)
        rounds += 1
    assert blast.returncode == 0 and rounds > 0
    assert counters(gateway)["datagrams_to_target"] < 6100


def test_answers_pass_whatever_matches_them(lab, gateway):
    """Listeners of all kinds that match every datagram, also the answers of targets, do not get those."""
    with DatagramPeer(lab.server, SERVERS["v4"], 7240, tell), client(lab.client, SERVERS["v4"], 7240) as made:
        for action in ("drop", "reject", "bypass", "relay"):
            gateway.listener("u", protocol="udp", ports=["7240"], destinations=["10.71.2.0/24"])
            gateway.listener("all", protocol="udp", action=action)
            assert ask(made) == own_name(made), action


@pytest.mark.parametrize("family", FAMILIES)
def test_listener_of_everything(lab, gateway, family):
    """A listener that names nothing relays both directions; the gateway itself stays reachable."""
    gateway.listener("all", protocol="udp")
    address = getattr(lab.client, family)
    with DatagramPeer(lab.server, SERVERS[family], 7250, tell), client(lab.client, SERVERS[family], 7250) as made:
        assert ask(made) == own_name(made)
    with DatagramPeer(lab.client, address, 7251, tell), client(lab.server, address, 7251) as made:
        assert ask(made) == own_name(made)
    gateway_address = {"v4": "10.71.1.1", "v6": "fd71:1::1"}[family]
    with DatagramPeer(lab.gateway, gateway_address, 7252, tell), client(lab.client, gateway_address, 7252) as made:
        assert ask(made) == own_name(made)


def test_other_actions_beside(lab, gateway):
    """Relay, reject, drop and bypass next to one another."""
    gateway.listener("relay", protocol="udp", ports=["7260"])
    gateway.listener("reject", protocol="udp", ports=["7261"], action="reject")
    gateway.listener("drop", protocol="udp", ports=["7262"], action="drop")
    gateway.listener("bypass", protocol="udp", ports=["7263"], action="bypass")
    peers = [DatagramPeer(lab.server, SERVERS["v4"], port, tell) for port in range(7260, 7264)]
    for port in (7260, 7263):
        with client(lab.client, SERVERS["v4"], port) as made:
            assert ask(made) == own_name(made)
    with client(lab.client, SERVERS["v4"], 7261) as made, pytest.raises(ConnectionRefusedError):
        ask(made)
    with client(lab.client, SERVERS["v4"], 7262) as made:
        made.send(b"?")
        assert is_silent(made)
    assert [len(peer.seen) for peer in peers] == [1, 0, 0, 1]
    assert counters(gateway)["datagrams_to_target"] == 1
    for peer in peers:
        peer.socket.close()


# --- errors ---

@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_at_the_port(lab, gateway, family):
    """A server without anybody at the port: the client learns of it as if there were no gateway."""
    gateway.listener("u", protocol="udp", ports=["7300"])
    with client(lab.client, SERVERS[family], 7300) as made, pytest.raises(ConnectionRefusedError):
        ask(made)


@pytest.mark.parametrize("family", FAMILIES)
def test_client_has_gone(lab, gateway, family):
    """And a server whose client has gone, in the same way. It sends again: ICMP errors are few, by the kernel's limit."""
    gateway.listener("u", protocol="udp", ports=["7310"])
    with lab.server.socket(socket.AF_INET6 if family == "v6" else socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SERVERS[family], 7310))
        with client(lab.client, SERVERS[family], 7310) as made:
            made.send(b"?")
            _, address = server.recvfrom(100)
            server.connect(address)

        def told():
            try:
                server.send(b"late")
            except ConnectionRefusedError:
                return True
            return False
        wait_for(told, 10, "the error at the server", interval=0.1)


def test_target_refuses(lab, gateway):
    """A target of a pool that refuses is counted, and the next datagram is sent to another one."""
    gateway.upstream("pool", [(TARGETS["v4"][0], 7320), (TARGETS["v4"][1], 7320)])
    gateway.listener("u", protocol="udp", ports=["7321"], upstream="pool")
    with DatagramPeer(lab.server, TARGETS["v4"][0], 7320, tell):
        for _ in range(4):
            with client(lab.client, SERVERS["v4"], 7321, timeout=0.3) as made:
                assert settles(lambda: ask(made), 3) == own_name(made)
    assert counters(gateway)["udp_refused"] >= 1


# --- the life of flows ---

def test_idle(lab, gateway):
    """A flow that nobody uses ends after idle_timeout_s; its next datagram begins one with the same port."""
    gateway.listener("u", protocol="udp", ports=["7400"], idle_timeout_s=1)
    with DatagramPeer(lab.server, SERVERS["v4"], 7400, tell), client(lab.client, SERVERS["v4"], 7400) as made:
        assert ask(made) == own_name(made)
        assert open_flows(gateway) == 1
        wait_for(lambda: open_flows(gateway) == 0, 10, "the end of the flow")
        assert counters(gateway)["udp_idle"] == 1
        assert ask(made) == own_name(made)


def test_oldest_is_evicted(lab, make_gateway):
    """With a full table the flow that was used least lately gives its place; those in use stay; the relay's
    descriptors stay bounded."""
    gateway = make_gateway(args=["--max-flows", "64", "--threads", "1"])
    gateway.listener("u", protocol="udp", ports=["7410"])
    with DatagramPeer(lab.server, SERVERS["v4"], 7410, tell) as peer:
        kept = client(lab.client, SERVERS["v4"], 7410)
        for number in range(200):
            assert ask(kept) == own_name(kept)
            # Ports chosen by the kernel come again, and then it is the same flow.
            with client(lab.client, SERVERS["v4"], 7410, source=("10.71.1.2", 5000 + number)) as made:
                assert ask(made) == own_name(made)
        assert len(peer.seen) == 400
    now = counters(gateway)
    assert open_flows(gateway) == 32
    assert now["udp_evicted"] == now["udp_flows_closed"] == now["udp_flows_opened"] - 32
    assert now["udp_flows_opened"] == 201, "the flow in use was evicted"
    assert descriptors(gateway.relay_pid()) < 32 + 40


def test_connections_come_first(lab, make_gateway):
    """UDP flows give way to connections when both together are as many as there may be."""
    gateway = make_gateway(args=["--max-flows", "64", "--threads", "1"])
    gateway.listener("u", protocol="udp", ports=["7420"])
    gateway.listener("t", ports=["7420"])
    with DatagramPeer(lab.server, SERVERS["v4"], 7420, tell):
        made = [client(lab.client, SERVERS["v4"], 7420) for _ in range(32)]
        for one in made:
            ask(one)
        assert open_flows(gateway) == 32
        with servers.Peer(lab.server, SERVERS["v4"], 7420, lambda connection, _: connection.recv(1)):
            connections = [lab.client.connect(SERVERS["v4"], 7420) for _ in range(40)]
            wait_for(lambda: gateway.status()["relay"]["flows"] == 40, 5, "all connections")
            assert open_flows(gateway) == 64 - 40
            for connection in connections:
                connection.close()


def test_configuration_moves_flows(lab, gateway):
    """A flow whose listener gets another upstream is begun anew with the next datagram; one that is untouched stays."""
    gateway.upstream("one", [(TARGETS["v4"][0], 7430)])
    gateway.upstream("two", [(TARGETS["v4"][1], 7430)])
    gateway.listener("u", protocol="udp", ports=["7431"], upstream="one")
    with DatagramPeer(lab.server, TARGETS["v4"][0], 7430, lambda *_: b"one"), \
            DatagramPeer(lab.server, TARGETS["v4"][1], 7430, lambda *_: b"two") as two, \
            client(lab.client, SERVERS["v4"], 7431) as made:
        assert ask(made) == b"one"
        gateway.listener("other", protocol="udp", ports=["7439"])
        assert ask(made) == b"one"
        assert counters(gateway)["udp_flows_opened"] == 1
        gateway.listener("u", protocol="udp", ports=["7431"], upstream="two")
        assert ask(made) == b"two"
        assert two.seen[-1][1][1] == made.getsockname()[1]
    assert (counters(gateway)["udp_flows_opened"], counters(gateway)["udp_flows_closed"]) == (2, 1)


def test_late_answers(lab, gateway):
    """What a target sends when the flow has ended is no client's datagram, though a listener matches it."""
    gateway.upstream("pool", [(TARGETS["v4"][0], 7440)])
    gateway.listener("all", protocol="udp", upstream="pool", idle_timeout_s=1)
    with DatagramPeer(lab.server, TARGETS["v4"][0], 7440, tell) as peer, client(lab.client, SERVERS["v4"], 7441) as made:
        ask(made)
        wait_for(lambda: open_flows(gateway) == 0, 10, "the end of the flow")
        peer.socket.sendto(b"late", made.getsockname())
        wait_for(lambda: counters(gateway)["udp_late_answers"] == 1, 5, "the late answer")
        assert len(peer.seen) == 1


def test_no_leak(lab, gateway, gwudp):
    """Thousands of flows leave no descriptor and no port behind."""
    gateway.listener("u", protocol="udp", ports=["7450"], idle_timeout_s=1)
    datagrams.echo_server(lab, lab.server, gwudp, 7450)
    before = descriptors(gateway.relay_pid())
    done = gwudp_result(lab.client.run(gwudp, "many", SERVERS["v4"], 7450, 4000, 100))
    assert (done["received"], done["failed"], done["bad"]) == (4000, 0, 0)
    wait_for(lambda: open_flows(gateway) == 0, 20, "the end of all flows")
    assert descriptors(gateway.relay_pid()) == before
    held = lab.gateway.run("ss", "-Huna").stdout.splitlines()
    assert len([line for line in held if ":7450" in line]) == 0


# --- real programs, and many ---

@pytest.mark.parametrize("family", FAMILIES)
def test_dns(lab, gateway, family):
    """dig and dnsperf against dnsmasq, which logs who asks."""
    server = SERVERS[family]
    dns = datagrams.dns_server(lab, lab.server, [server])
    gateway.listener("dns", protocol="udp", ports=["53"])
    assert datagrams.dig(lab.client, server, "-b", f"{getattr(lab.client, family)}#33333") == datagrams.DNS_ADDRESS
    assert f"{getattr(lab.client, family)}/33333 query[A]" in dns.output()
    sent, completed = datagrams.dnsperf(lab.client, server, 2, lab.directory)
    assert sent > 500 and completed == sent
    assert counters(gateway)["datagrams_to_client"] >= sent
    dns.stop()


@pytest.mark.parametrize("family", FAMILIES)
def test_quic(lab, gateway, family, tmp_path):
    """ngtcp2's HTTP/3 server and client, with a file whose bytes are compared."""
    key, certificate, served = tmp_path / "key", tmp_path / "crt", tmp_path / "www"
    served.mkdir()
    (served / "file").write_bytes(os.urandom(3 << 20))
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=lab.test", "-keyout", key, "-out", certificate)
    server = SERVERS[family]
    quic = lab.start(lab.server, f"quic-{family}", "gtlsserver", "-q", "-d", served, server, 4433, key, certificate)
    datagrams.wait_bound(lab.server, 4433)
    gateway.listener("quic", protocol="udp", ports=["4433"])
    url = f"https://[{server}]:4433/file" if ":" in server else f"https://{server}:4433/file"
    lab.client.run("gtlsclient", "-q", f"--download={tmp_path}", "--exit-on-all-streams-close", server, 4433, url)
    assert (tmp_path / "file").read_bytes() == (served / "file").read_bytes()
    assert counters(gateway)["bytes_to_client"] > 3 << 20
    quic.stop()


@pytest.mark.parametrize("family", FAMILIES)
def test_thousand_flows(lab, gateway, gwudp, family):
    """1,000 flows at once, each byte of each datagram checked, both ways."""
    gateway.listener("u", protocol="udp", ports=["7500"])
    server = datagrams.echo_server(lab, lab.server, gwudp, 7500)
    done = gwudp_result(lab.client.run(gwudp, "check", SERVERS[family], 7500, 1000, 20, 700, 2, check=False))
    assert (done["received"], done["bad"], done["failed"]) == (20000, 0, 0)
    assert counters(gateway)["udp_flows_opened"] == 1000
    assert counters(gateway)["udp_evicted"] == 0
    server.stop()


# --- who may die ---

def test_relay_dies_under_dns(lab, gateway):
    """kill -9 of the relay under a load of questions: a short gap, and the same ports afterwards."""
    dns = datagrams.dns_server(lab, lab.server, [SERVERS["v4"]])
    gateway.listener("dns", protocol="udp", ports=["53"])
    (lab.directory / "questions").write_text(f"{datagrams.DNS_NAME} A\n")
    load = subprocess.Popen(lab.client.command("dnsperf", "-s", SERVERS["v4"], "-d", lab.directory / "questions", "-l",
                                               "6", "-c", "5", "-Q", "300", "-t", "1"),
                            stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        time.sleep(1)
        gateway.wait_relay(gateway.kill_relay())
    text = load.communicate(timeout=30)[0]
    lost = int(next(line for line in text.splitlines() if "Queries lost" in line).split()[2])
    completed = int(next(line for line in text.splitlines() if "Queries completed" in line).split()[2])
    assert completed > 1000 and lost < 0.05 * completed, text
    # dnsperf has one socket for each of its 5 clients: no more ports were seen than that.
    asked = {line.split()[2] for line in dns.output().splitlines() if "query[A]" in line}
    assert len(asked) == 5, asked
    dns.stop()


def test_stream_outlives_relays(lab, gateway, gwudp):
    """A checked stream of datagrams goes on while relays are killed; what is lost is sent again, nothing is changed."""
    gateway.listener("u", protocol="udp", ports=["7600"])
    datagrams.echo_server(lab, lab.server, gwudp, 7600)
    load = subprocess.Popen(lab.client.command(gwudp, "check", SERVERS["v4"], 7600, 20, 20000, 600, 4),
                            stdout=subprocess.PIPE)
    kills = 0
    while load.poll() is None and kills < 4:
        time.sleep(0.5)
        gateway.wait_relay(gateway.kill_relay())
        kills += 1
    done = gwudp_result(subprocess.CompletedProcess([], 0, load.communicate(timeout=100)[0]))
    assert (done["received"], done["bad"], done["failed"]) == (400000, 0, 0)
    assert kills > 1


def test_no_relay(lab, gateway):
    """While no relay runs: drop keeps datagrams from the server, direct forwards them; both are relayed afterwards."""
    gateway.listener("d", protocol="udp", ports=["7610"])
    gateway.listener("o", protocol="udp", ports=["7611"], on_worker_down="direct")
    with DatagramPeer(lab.server, SERVERS["v4"], 7610, tell) as closed, DatagramPeer(lab.server, SERVERS["v4"], 7611,
                                                                                    tell):
        with client(lab.client, SERVERS["v4"], 7610) as one, client(lab.client, SERVERS["v4"], 7611) as two:
            gateway.break_relay()
            wait_for(lambda: gateway.status()["relay"]["direct"], 10, "the gate")
            assert ask(two) == own_name(two)
            one.send(b"?")
            assert is_silent(one) and not closed.seen
            one.settimeout(3)
            gateway.mend_relay()
            gateway.wait_relay(0)
            wait_for(lambda: not gateway.status()["relay"]["direct"], 10, "the gate closed")
            assert one.recv(100) == own_name(one), "what waited in the socket is delivered"
            assert ask(two) == own_name(two)
    assert counters(gateway)["datagrams_to_target"] >= 2


def test_daemon_dies(lab, gateway):
    """kill -9 of the daemon: flows go on; the next daemon takes the same relay over, with its UDP sockets."""
    gateway.listener("u", protocol="udp", ports=["7620"])
    pid = gateway.relay_pid()
    with DatagramPeer(lab.server, SERVERS["v4"], 7620, tell), client(lab.client, SERVERS["v4"], 7620) as made:
        assert ask(made) == own_name(made)
        gateway.kill()
        assert ask(made) == own_name(made)
        gateway.start()
        assert alive(pid) and gateway.relay_pid() == pid
        assert ask(made) == own_name(made)
        gateway.kill_relay(signal.SIGKILL)
        gateway.wait_relay(pid)
        assert ask(made) == own_name(made)
