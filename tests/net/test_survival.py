"""Established connections outlive the relay, the daemon, and the upgrade of both."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from lab import servers, traffic
from lab.gateway import ROOT
from lab.process import alive, amount, in_threads, wait_for

pytestmark = pytest.mark.shared_gateway

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
PORT = 9600
STREAM_PORT = 9700
# Of each family: streams, kills, pause after each in seconds, new ones a second. The long one takes a minute.
STREAMS = amount((50, 4, 1.5, 50), (500, 20, 3, 200))
STREAMS_LONGEST_S = 150
MOVERS = ["copy", "splice", "sockmap"]


@pytest.fixture(scope="module")
def results(lab):
    """The checked-traffic server's results, by seed."""
    process, path = servers.traffic_server(lab, lab.server, PORT)

    def read():
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {line["seed"]: line for line in lines}

    yield read
    process.stop()


@pytest.fixture(scope="module")
def gwstream(lab):
    """Path of the program of self-checking streams; its server runs on the server's port 9700."""
    for preset in ("release", "dev"):
        path = ROOT / "build" / preset / "tests" / "gwstream"
        if path.exists():
            break
    process = lab.start(lab.server, "gwstream", path, "serve", STREAM_PORT)
    servers.wait_listening(lab.server, STREAM_PORT)
    yield path
    process.stop()


def kept(gateway):
    """What the status says of kept flows."""
    return gateway.status()["relay"]["kept"]


def wait_kept(gateway, number):
    """Waits until so many flows are held for the next relay."""
    wait_for(lambda: kept(gateway)["flows"] == number, 10, f"{number} kept flows")


def replace_relay(gateway):
    """kill -9 of the relay, and the next one that is ready."""
    return gateway.wait_relay(gateway.kill_relay(), 20)


def pairs(lab, gateway, number, port=7960, family="v4", wait=True):
    """So many established flows, as (client's socket, server's socket), all of them kept unless told not to wait."""
    accepted = {}

    def serve(connection, _address):
        connection.settimeout(10)
        accepted[connection.recv(4)] = connection

    peer = servers.Peer(lab.server, SERVER[family], port, serve)
    clients = {b"%04d" % n: lab.client.connect(SERVER[family], port) for n in range(number)}
    for name, client in clients.items():
        client.sendall(name)
    wait_for(lambda: len(accepted) == number, 10, "the server's connections")
    found = [(client, accepted[name]) for name, client in clients.items()]
    if wait:
        wait_kept(gateway, number)
    return peer, found


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_idle_flow_goes_on(lab, make_gateway, mover, family):
    """A flow in which nothing moves outlives the relay; then bytes pass both ways, and both ends of stream."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    before = kept(gateway)["adopted"]
    peer, [(client, server)] = pairs(lab, gateway, 1, family=family)
    with peer, client, server:
        for number in range(3):
            replace_relay(gateway)
            client.sendall(b"up %d" % number)
            assert server.recv(100) == b"up %d" % number
            server.sendall(b"down %d" % number)
            assert client.recv(100) == b"down %d" % number
        assert kept(gateway)["adopted"] - before == 3
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        server.sendall(b"last words")
        server.close()
        assert client.recv(100) == b"last words"
        assert client.recv(100) == b""
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0 and kept(gateway)["flows"] == 0, 5, "no flows")
    assert kept(gateway)["lost"] == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_bulk_through_kills(lab, make_gateway, results, figure, mover, family):
    """Transfers at full speed both ways, the relay killed again and again: every byte arrives, once, in order."""
    gateway = make_gateway(mover=mover)
    gateway.listener("checked", ports=[str(PORT)])
    kills = 0

    def kill(stop):
        nonlocal kills
        while not stop.wait(0.1):
            replace_relay(gateway)
            kills += 1

    for part in range(5):
        seeds = [f"kills {mover} {family} {time.monotonic_ns()} {n}" for n in range(4)]
        stop = threading.Event()
        killer = threading.Thread(target=kill, args=(stop,))
        connections = [lab.client.connect(SERVER[family], PORT, timeout=60) for _ in seeds]
        wait_kept(gateway, len(seeds))
        killer.start()
        outcomes = in_threads([lambda c=c, s=s, o=o: traffic.client(c, s, 60_000_000, 60_000_000, o)
                               for c, s, o in zip(connections, seeds, ("client", "server", "both", "both"))])
        stop.set()
        killer.join()
        assert [o for o in outcomes if not o["ok"]] == []
        wait_for(lambda: set(seeds) <= set(results()), 20, "the server's results")
        assert all(results()[seed]["ok"] for seed in seeds)
        if kills >= 2:
            break
        wait_kept(gateway, 0)
    figure("kills", kills)
    assert kills >= 2, "the transfers are over too soon"
    assert kept(gateway)["lost"] == 0


def talk(client, server, word):
    """Bytes pass both ways."""
    client.sendall(word)
    assert server.recv(100) == word
    server.sendall(word[::-1])
    assert client.recv(100) == word[::-1]


@pytest.mark.own_gateway  # counts what the daemon has seen
@pytest.mark.parametrize("mover", MOVERS)
def test_restart_hands_all_flows_over(lab, make_gateway, mover):
    """POST /relay/restart and SIGHUP: every flow goes on, also the youngest; nothing is lost."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960-7969"])
    peer, found = pairs(lab, gateway, 20)
    with peer:
        for number, how in enumerate(("api", "signal", "api")):
            old = gateway.relay_pid()
            more, young = pairs(lab, gateway, 10, port=7961 + number, wait=False)
            if how == "api":
                answer = gateway.api("POST", "relay/restart")
                assert (answer.status, answer.json) == (202, {"state": "handing_over"})
            else:
                os.kill(gateway.process.pid, signal.SIGHUP)
            gateway.wait_relay(old)
            for client, server in found + young:
                talk(client, server, b"after %d" % number)
            found += young
            more.close()
        relay = gateway.status()["relay"]
        assert (relay["handovers"], relay["restarts"], relay["kept"]["lost"]) == (3, 0, 0)
        assert relay["kept"]["adopted"] == 30 + 40 + 50
    for client, server in found:
        client.close()
        assert server.recv(10) == b""
        server.close()
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0 and kept(gateway)["flows"] == 0, 5, "no flows")


@pytest.mark.own_gateway  # counts what the daemon has seen
def test_daemon_dies_flows_stay_safe(lab, make_gateway):
    """kill -9 of the daemon, then of the relay under the next daemon: flows that the first daemon held are held anew."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 30)
    with peer:
        for number in range(3):
            gateway.kill()
            for client, server in found:
                talk(client, server, b"alone %d" % number)
            gateway.start()
            wait_kept(gateway, 30)
            assert gateway.status()["relay"]["flows"] == 30
            replace_relay(gateway)
            for client, server in found:
                talk(client, server, b"after %d" % number)
        assert kept(gateway)["lost"] == 0


@pytest.mark.own_gateway  # counts what the daemon has seen
def test_upgrade_of_both(lab, make_gateway):
    """Another relay program lies there when the daemon starts: it takes the flows over from the old one."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 30)
    with peer:
        old = gateway.relay_pid()
        gateway.stop()
        copy = gateway.directory / "next"
        copy.write_bytes(gateway.relay.read_bytes())
        copy.chmod(0o755)
        os.rename(copy, gateway.relay)
        gateway.start()
        new = gateway.wait_relay(old)
        assert new != old and not alive(old)
        for client, server in found:
            talk(client, server, b"upgraded")
        assert kept(gateway)["lost"] == 0
        gateway.kill()
        gateway.start()
        assert gateway.relay_pid() == new, "the same program stays"


def test_a_broken_program_replaces_nothing(lab, make_gateway):
    """An upgrade to a program that cannot be started leaves the relay that runs."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 3)
    with peer:
        old = gateway.relay_pid()
        broken = gateway.directory / "broken"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        os.rename(gateway.relay, gateway.directory / "whole")
        os.rename(broken, gateway.relay)
        assert gateway.api("POST", "relay/restart").status == 503
        gateway.stop()
        gateway.start()
        assert gateway.relay_pid() == old
        for client, server in found:
            talk(client, server, b"still there")
        gateway.mend_relay()


def frozen_relay(gateway):
    """Stops the relay in its tracks; returns its process id. What happens now it will not have seen when it is killed."""
    pid = gateway.kill_relay(signal.SIGSTOP)
    wait_for(lambda: open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()[0] == "T", 5,
             "the relay to stop")
    return pid


def ending(connection, seconds=10):
    """What is read until the end, and how it ends: "eof" or "rst"."""
    connection.settimeout(seconds)
    data = bytearray()
    try:
        while piece := connection.recv(1 << 18):
            data += piece
        return bytes(data), "eof"
    except ConnectionResetError:
        return bytes(data), "rst"


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("mover", MOVERS)
def test_half_closed(lab, make_gateway, mover, first, family):
    """A half-closed flow is adopted as such: no second end of stream, no false one, the open direction goes on."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    peer, [pair] = pairs(lab, gateway, 1, family=family)
    one, other = pair if first == "client" else reversed(pair)
    with peer:
        one.sendall(b"all I have")
        one.shutdown(socket.SHUT_WR)
        assert ending(other) == (b"all I have", "eof")
        for number in range(2):
            replace_relay(gateway)
            other.sendall(b"more %d" % number)
            assert one.recv(100) == b"more %d" % number
        other.close()
        assert ending(one) == (b"", "eof")
        one.close()
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0 and kept(gateway)["flows"] == 0, 5, "no flows")


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_what_happens_while_nobody_looks(lab, make_gateway, mover, family):
    """Data, ends of stream and resets that arrive while the relay is dead are dealt with by the next one."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 6, family=family)
    reset = lambda s: (s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"), s.close())
    with peer:
        (data_c, data_s), (end_c, end_s), (rst_c, rst_s), (both_c, both_s), (late_c, late_s), (half_c, half_s) = found
        half_c.shutdown(socket.SHUT_WR)
        assert ending(half_s) == (b"", "eof")
        pid = frozen_relay(gateway)
        data_c.sendall(b"d" * 100000)
        end_c.sendall(b"last")
        end_c.shutdown(socket.SHUT_WR)
        reset(rst_c)
        both_c.sendall(b"from client")
        both_c.shutdown(socket.SHUT_WR)
        both_s.sendall(b"from server")
        both_s.shutdown(socket.SHUT_WR)
        late_s.sendall(b"before the reset")
        time.sleep(0.1)
        reset(late_s)
        half_s.sendall(b"still open this way")
        time.sleep(0.1)
        reset(half_s)
        os.kill(pid, signal.SIGKILL)
        gateway.wait_relay(pid, 20)
        got = b""
        while len(got) < 100000:
            got += data_s.recv(100000)
        assert got == b"d" * 100000
        talk(data_c, data_s, b"on and on")
        assert ending(end_s) == (b"last", "eof")
        end_s.sendall(b"reply")
        end_s.close()
        assert ending(end_c) == (b"reply", "eof")
        assert ending(rst_s) == (b"", "rst")
        assert ending(both_s) == (b"from client", "eof")
        assert ending(both_c) == (b"from server", "eof")
        assert ending(late_c)[1] == "rst"
        assert ending(half_c)[1] == "rst"
    assert kept(gateway)["lost"] == 0


BLOCKS = b"".join(b"%015d\n" % n for n in range(1 << 20))  # 16 MiB, no two places alike


def fill(connection):
    """Sends from BLOCKS until nothing more is taken for a while; returns how many bytes went."""
    view, sent = memoryview(BLOCKS), 0
    connection.setblocking(False)
    quiet = time.monotonic()
    while time.monotonic() - quiet < 0.3 and sent < len(view):
        try:
            sent += connection.send(view[sent:sent + 65536])
            quiet = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    connection.setblocking(True)
    return sent


@pytest.mark.parametrize("how", ["kill", "restart"])
@pytest.mark.parametrize("mover", MOVERS)
def test_bytes_in_hand(lab, make_gateway, mover, how):
    """The reader does not read: the relay dies with full hands (buffers or pipes), several times; all arrives, once."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    four, found = pairs(lab, gateway, 4)
    six, more = pairs(lab, gateway, 4, family="v6", wait=False)
    found += more
    wait_kept(gateway, len(found))
    with four, six:
        # By turns the client and the server is the one that sends.
        found = [pair if n % 2 else pair[::-1] for n, pair in enumerate(found)]
        sent = in_threads([lambda s=sender: fill(s) for sender, _ in found])
        for _ in range(3):
            old = gateway.relay_pid()
            if how == "kill":
                replace_relay(gateway)
            else:
                gateway.must("POST", "relay/restart")
                gateway.wait_relay(old)
            wait_kept(gateway, len(found))
        for sender, _ in found:
            sender.shutdown(socket.SHUT_WR)
        for (got, how_ended), amount in zip(in_threads([lambda r=reader: ending(r, 20) for _, reader in found]), sent):
            assert how_ended == "eof"
            assert got == BLOCKS[:amount]
    assert kept(gateway)["lost"] == 0


def end_before_the_reader(sender, reader):
    """The sender has sent all, both have ended their streams, and its connection is over, while the reader has not read
    all of it. Returns how much was sent, and what the reader has read."""
    sent, got = fill(sender), b""
    reader.shutdown(socket.SHUT_WR)
    assert sender.recv(1) == b""
    sender.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + 20
    while sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x07":  # TCP_CLOSE
        assert time.monotonic() < deadline, "the sender's end of stream did not get through"
        got += reader.recv(10000)
        time.sleep(0.005)
    return sent, got


@pytest.mark.own_gateway  # its daemon is killed
@pytest.mark.parametrize("mover", MOVERS)
def test_one_end_is_over_before_the_flow_is_kept(lab, make_gateway, mover):
    """A peer that has nothing more to say or to hear is no reason to lose what it said: the flow is kept all the same."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    gateway.kill()  # so that no flow can be kept yet
    four, [(sender4, reader4)] = pairs(lab, gateway, 1, wait=False)
    six, [(reader6, sender6)] = pairs(lab, gateway, 1, family="v6", wait=False)
    found = [(sender4, reader4), (sender6, reader6)]
    with four, six:
        begun = in_threads([lambda s=sender, r=reader: end_before_the_reader(s, r) for sender, reader in found])
        gateway.start()
        flows = gateway.status()["relay"]["flows"]  # one that lay in sockets alone may be over, with the reader's part unread
        assert flows > 0
        wait_kept(gateway, flows)
        for _ in range(2):
            replace_relay(gateway)
        rest = in_threads([lambda r=reader: ending(r, 20) for _, reader in found])
        for (sent, got), (more_got, how_ended) in zip(begun, rest):
            assert how_ended == "eof"
            assert got + more_got == BLOCKS[:sent]
    assert kept(gateway)["lost"] == 0


@pytest.mark.parametrize("mover", MOVERS)
def test_both_die(lab, make_gateway, mover):
    """Daemon and relay killed at once: both peers see a reset, never an end of stream."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 20)
    with peer:
        for client, server in found[:10]:
            client.sendall(b"under way")
        pid = gateway.relay_pid()
        gateway.process.popen.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        gateway.kill()
        for client, server in found:
            assert ending(client)[1] == "rst"
            assert ending(server)[1] == "rst"
        gateway.start()


@pytest.mark.parametrize("mover", MOVERS)
def test_ends_of_kept_flows_are_seen_at_once(lab, make_gateway, mover):
    """Sockets that the daemon holds too: FIN and RST still go out when they should, with the daemon stopped."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7960"], idle_timeout_s=3)
    peer, [(a, b), (c, d), (idle_c, idle_s)] = pairs(lab, gateway, 3)
    with peer:
        gateway.process.popen.send_signal(signal.SIGSTOP)
        try:
            a.sendall(b"bye")
            a.shutdown(socket.SHUT_WR)
            assert ending(b) == (b"bye", "eof")
            b.sendall(b"goodbye")
            b.close()
            assert ending(a) == (b"goodbye", "eof")
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            c.close()
            assert ending(d)[1] == "rst"
            assert ending(idle_c) == (b"", "rst")
            assert ending(idle_s) == (b"", "rst")
        finally:
            gateway.process.popen.send_signal(signal.SIGCONT)
        wait_for(lambda: kept(gateway)["flows"] == 0, 5, "the daemon to let go")


@pytest.mark.own_gateway  # counts what the daemon has seen
def test_young_flows_are_lost_and_counted(lab, make_gateway):
    """A flow younger than the moment ends in a reset with its relay, and the status says how many."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"])
    peer, found = pairs(lab, gateway, 5)
    with peer:
        accepted = []
        with servers.Peer(lab.server, SERVER["v4"], 7961, lambda c, a: accepted.append(c)):
            gateway.listener("young", ports=["7961"])
            young = [lab.client.connect(SERVER["v4"], 7961) for _ in range(10)]
            pid = gateway.relay_pid()
            os.kill(pid, signal.SIGKILL)
            endings = [ending(connection)[1] for connection in young]
        gateway.wait_relay(pid)
        for client, server in found:
            talk(client, server, b"older ones go on")
        lost = endings.count("rst")
        wait_for(lambda: kept(gateway)["adopted"] == 5, 5, "the older ones")
        assert kept(gateway)["lost"] == lost
        assert lost > 0


def test_idle_timeout_counts_on(lab, make_gateway):
    """The idle time of a flow goes on over the change of relays."""
    gateway = make_gateway()
    gateway.listener("l", ports=["7960"], idle_timeout_s=4)
    peer, [(client, server), later] = pairs(lab, gateway, 2)
    with peer:
        started = time.monotonic()
        time.sleep(2.5)
        talk(*later, b"not idle")
        replace_relay(gateway)
        assert ending(client) == (b"", "rst")
        assert time.monotonic() - started > 3
        talk(*later, b"nor yet")  # were both idle since the change of relays, it would have ended too
        assert ending(server) == (b"", "rst")


def end_relay(gateway):
    """kill -9 of the relay."""
    replace_relay(gateway)


def end_daemon(gateway):
    """kill -9 of the daemon."""
    gateway.kill()
    gateway.start()


def upgrade(gateway):
    """Stop of the daemon, another relay program, start: both are replaced one after the other."""
    old = gateway.relay_pid()
    gateway.stop()
    copy = gateway.directory / "next"
    copy.write_bytes(gateway.relay.read_bytes())
    copy.chmod(0o755)
    os.rename(copy, gateway.relay)
    gateway.start()
    gateway.wait_relay(old, 20)


def alternate(gateway):
    """By turns the relay, the daemon, and an orderly restart of the relay."""
    gateway.turn = getattr(gateway, "turn", -1) + 1
    if gateway.turn % 3 == 2:
        old = gateway.relay_pid()
        gateway.must("POST", "relay/restart")
        gateway.wait_relay(old, 20)
    else:
        (end_relay, end_daemon)[gateway.turn % 3](gateway)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("blow", [end_relay, end_daemon, upgrade, alternate])
def test_streams_through_blows(lab, make_gateway, gwstream, figure, blow):
    """Checked streams and new connections while a process is ended again and again: no stream breaks, none is refused."""
    streams, blows, pause, new = STREAMS
    gateway = make_gateway()
    gateway.listener("streams", ports=[str(STREAM_PORT)])
    running = [subprocess.Popen(lab.client.command(gwstream, "run", SERVER[family], STREAM_PORT, streams, 20480,
                                                   STREAMS_LONGEST_S, new),
                                stdout=subprocess.PIPE, text=True) for family in ("v4", "v6")]
    wait_for(lambda: kept(gateway)["flows"] >= 2 * streams, 20, "all streams to be kept")
    for _ in range(blows):
        blow(gateway)
        time.sleep(pause)
    for process in running:
        assert process.poll() is None, "the streams were over before the last blow"
        process.send_signal(signal.SIGTERM)
    results = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    figure("IPv4, IPv6", results)
    figure("kept", kept(gateway))
    for result in results:
        check_streams(result, blow)
    if blow is end_relay:
        assert sum(result["short"]["reset"] for result in results) <= kept(gateway)["lost"]


def check_streams(result, blow):
    """What one family's program says after the blows."""
    streams, blows, pause, new = STREAMS
    assert result["streams"] == {"good": streams, "refused": 0, "reset": 0, "false_eof": 0, "corrupt": 0, "timed_out": 0}
    short = result["short"]
    assert (short["refused"], short["false_eof"], short["corrupt"], short["timed_out"]) == (0, 0, 0, 0)
    # Only those that were too young when their relay was killed.
    assert short["good"] + short["reset"] > blows * pause * new / 2
    assert short["reset"] < short["good"]
    if blow in (end_daemon, upgrade):
        assert short["reset"] == 0


def memory(pid):
    """Bytes of user-space memory of a process: its own, and what it shares."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return [int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem")]


@pytest.mark.timeout(180)
def test_memory_of_an_idle_flow(lab, make_gateway, figure):
    """What 2,000 idle flows take in user space, in the relay and in the daemon that holds them."""
    number = 2000
    if not (ROOT / "build" / "release" / "bin" / "gatewayd").exists():
        pytest.skip("needs the release build: sanitizers have memory of their own")
    gateway = make_gateway(build="release")
    gateway.listener("l", ports=["7960-7961"])
    peer, found = pairs(lab, gateway, 200)
    pids = (gateway.relay_pid(), gateway.process.pid)
    before = [memory(pid) for pid in pids]
    more, rest = pairs(lab, gateway, number, wait=False, port=7961)
    wait_kept(gateway, 200 + number)
    after = [memory(pid) for pid in pids]
    (relay, shared), (daemon, _) = ([(b - a) / number for a, b in zip(*both)] for both in zip(before, after))
    figure("bytes per idle flow", f"relay {relay:.0f}, daemon {daemon:.0f}, shared {shared:.0f}")
    peer.close()
    more.close()
    # By design 208, 64 and 96, 24 if the kernel may carry it, and whole pages: nothing is left of its making.
    assert relay <= 250
    assert shared <= 120
    assert relay + daemon + shared <= 430
    for client, server in found + rest:
        client.close()
        server.close()
