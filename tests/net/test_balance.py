"""Which server a connection goes to, with real servers: weights, hashing, limits, retries, backups and ejection."""

import socket
import struct
import threading
from collections import Counter

import pytest

from lab.process import wait_for
from lab.servers import Peer

pytestmark = pytest.mark.shared_gateway

PORT = 7300
NETS = {"v4": "10.71.2.", "v6": "fd71:2::"}
CLIENT_NETS = {"v4": "10.71.1.", "v6": "fd71:1::"}
both_families = pytest.mark.parametrize("family", list(NETS))
v4_only = pytest.mark.parametrize("family", ["v4"])  # what follows depends on no address
v6_only = pytest.mark.parametrize("family", ["v6"])


def server_address(family, last):
    """The address of the server with this number, 2 to 5; there is nobody at the others."""
    return f"{NETS[family]}{last}"


def name_itself(connection, _peer):
    """Says which server it is, and holds on until the client ends."""
    with connection:
        connection.sendall(connection.getsockname()[0][-1].encode())
        connection.settimeout(60)
        while connection.recv(4096):
            pass


def reset_at_once(connection, _peer):
    """Takes the connection and breaks it off without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Servers:
    """Servers by number, of one family, which say their number."""

    def __init__(self, lab, family):
        self.lab, self.family, self.peers = lab, family, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in list(self.peers):
            self.stop(number)

    def start(self, *numbers, handle=name_itself):
        """Starts the servers with these numbers."""
        for number in numbers:
            self.peers[number] = Peer(self.lab.server, server_address(self.family, number), PORT, handle)
        return self

    def stop(self, number):
        """From here on connections to it are refused."""
        self.peers.pop(number).close()


@pytest.fixture
def servers(lab, family):
    """Servers of this family; none is started."""
    with Servers(lab, family) as made:
        yield made


def target(family, number, **fields):
    return {"address": server_address(family, number), "port": PORT, **fields}


def furnish(gateway, targets, listener=None, **fields):
    """An upstream of these targets, and a listener that leads to it."""
    gateway.upstream("pool", targets, **fields)
    gateway.listener("web", ports=[str(PORT)], upstream="pool", **(listener or {}))


def begin(lab, family, source=None):
    """A connection, and the number of the server it has reached; the number is None if it was reset."""
    def bind(made):
        if source:
            made.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            made.bind((source, 0))

    connection = None
    try:
        connection = lab.client.connect(server_address(family, 2), PORT, before=bind)
        answer = connection.recv(1)
    except ConnectionResetError:
        answer = b""
    return connection, int(answer) if answer else None


def ask(lab, family, source=None):
    """The number of the server that a short connection reaches, or None."""
    connection, number = begin(lab, family, source)
    if connection:
        connection.close()
    return number


def counters(gateway, *names):
    """Sums of the relay's counters."""
    found = gateway.counters()
    return tuple(found[name] for name in names)


def of_target(gateway, number, *names):
    """Counters of the target with this number."""
    for one in gateway.must("GET", "stats")["targets"]:
        if one["target"].strip("[]").rsplit(":", 1)[0].rstrip("]")[-1] == str(number):
            return tuple(one[name] for name in names)
    raise AssertionError(f"no target {number}")


# --- retries ---


@both_families
def test_a_refusal_is_invisible(lab, servers, gateway, family):
    """One of three servers refuses: each of 300 clients is served, and none has a second connection to show for it."""
    servers.start(2, 3)
    targets = [target(family, number) for number in (2, 3, 4)]
    furnish(gateway, targets, max_retries=1)
    reached = Counter(ask(lab, family) for _ in range(300))
    assert set(reached) == {2, 3} and reached.total() == 300, reached
    assert counters(gateway, "connect_failed", "connect_retried", "flows_opened", "flows_reset")[:3] == (100, 100, 300)
    assert of_target(gateway, 4, "connect_failed", "connect_retried", "flows_opened", "flows_closed",
                     "flows_active") == (100, 100, 100, 100, 0)
    furnish(gateway, targets, max_retries=0)
    assert Counter(ask(lab, family) for _ in range(9))[None] == 3


@v6_only
def test_no_more_retries_than_allowed(lab, servers, gateway, family):
    """Two of three refuse and one retry is allowed: a client that meets both is reset; with two none is."""
    servers.start(2)
    targets = [target(family, 3, weight=100), target(family, 4, weight=100), target(family, 2)]
    furnish(gateway, targets, max_retries=1, algorithm="round_robin")
    assert Counter(ask(lab, family) for _ in range(10))[None] >= 8
    furnish(gateway, targets, max_retries=2)
    assert {ask(lab, family) for _ in range(10)} == {2}


@v4_only
def test_silence_is_retried_too(lab, servers, gateway, family):
    """A target that does not answer costs connect_timeout_ms, and the client is served by another one."""
    servers.start(2)
    furnish(gateway, [target(family, 9), target(family, 2, backup=True)], {"connect_timeout_ms": 200}, max_retries=1)
    assert ask(lab, family) == 2
    assert counters(gateway, "connect_timeout", "connect_retried") == (1, 1)


# --- who is chosen ---


@v4_only
def test_weights(lab, servers, gateway, family):
    """Rotation by weight, and a weight of none."""
    servers.start(2, 3, 4, 5)
    furnish(gateway, [target(family, number, weight=weight) for number, weight in ((2, 1), (3, 2), (4, 5), (5, 0))])
    per_thread = Counter(ask(lab, family) for _ in range(160))
    assert set(per_thread) == {2, 3, 4}
    for number, share in ((2, 20), (3, 40), (4, 100)):
        assert abs(per_thread[number] - share) <= 8, per_thread  # each thread rotates for itself


@pytest.fixture
def sources(lab, family):
    """Forty addresses of the client."""
    made = [f"{CLIENT_NETS[family]}{last}" for last in range(100, 140)]
    rest = "24" if family == "v4" else "64 nodad"
    lab.client.run("ip", "-batch", "-", input="".join(f"addr add {one}/{rest} dev up0\n" for one in made))
    yield made
    lab.client.run("ip", "-batch", "-", input="".join(f"addr del {one}/{rest[:2]} dev up0\n" for one in made))


@both_families
def test_source_hash(lab, servers, gateway, family, sources):
    """Each client keeps its server: over time, over another relay, and when other servers come and go."""
    numbers = (2, 3, 4, 5)
    servers.start(*numbers)
    furnish(gateway, [target(family, number) for number in numbers], algorithm="source_hash", max_retries=1)
    first = {source: ask(lab, family, source) for source in sources}
    assert set(first.values()) == set(numbers)
    assert {source: ask(lab, family, source) for source in sources} == first
    pid = gateway.relay_pid()
    gateway.must("POST", "relay/restart")
    gateway.wait_relay(pid)
    assert {source: ask(lab, family, source) for source in sources} == first
    servers.stop(5)
    moved = {source: ask(lab, family, source) for source in sources}
    assert all(moved[source] == first[source] for source in sources if first[source] != 5)
    assert {moved[source] for source in sources if first[source] == 5} <= {2, 3, 4}
    furnish(gateway, [target(family, number, admin_state="drain" if number == 5 else "up") for number in reversed(numbers)],
            algorithm="source_hash")
    assert {source: ask(lab, family, source) for source in sources} == moved


@v4_only
def test_least_conn(lab, servers, gateway, family):
    """Open connections are by weight, and those that have ended are made up for, whichever thread has had them."""
    servers.start(2, 3, 4)
    furnish(gateway, [target(family, 2), target(family, 3), target(family, 4, weight=2)], algorithm="least_conn")
    held = [begin(lab, family) for _ in range(40)]
    assert Counter(number for _, number in held) == {2: 10, 3: 10, 4: 20}
    for connection, number in held:
        if number == 3:
            connection.close()
    wait_for(lambda: of_target(gateway, 3, "flows_active") == (0,), 5, "the end of these flows")
    more = [begin(lab, family) for _ in range(9)]
    assert {number for _, number in more} == {3}
    for connection, _ in held + more:
        connection.close()


@v6_only
def test_random_two(lab, servers, gateway, family):
    """Nobody has nothing, or nearly all."""
    servers.start(2, 3, 4)
    furnish(gateway, [target(family, number) for number in (2, 3, 4)], algorithm="random_two")
    held = [begin(lab, family) for _ in range(60)]
    reached = Counter(number for _, number in held)
    assert set(reached) == {2, 3, 4} and max(reached.values()) <= 28, reached
    for connection, _ in held:
        connection.close()


class Datagrams:
    """UDP servers by number, of one family, which answer with their number."""

    def __init__(self, lab, family, *numbers):
        self.lab, self.family = lab, family
        self.kind = socket.AF_INET if family == "v4" else socket.AF_INET6
        self.sockets = [self.start(number) for number in numbers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for made in self.sockets:
            made.sendto(b"end", made.getsockname())

    def start(self, number):
        """The socket of one that has been started."""
        made = self.lab.server.socket(self.kind, socket.SOCK_DGRAM, timeout=None)
        made.bind((server_address(self.family, number), PORT))
        threading.Thread(target=self.serve, args=(made, number), daemon=True).start()
        return made

    @staticmethod
    def serve(made, number):
        """Answers until told to end."""
        with made:
            while (received := made.recvfrom(2048))[0] != b"end":
                made.sendto(str(number).encode(), received[1])

    def client(self, timeout=10):
        """A socket of a new client."""
        return self.lab.client.socket(self.kind, socket.SOCK_DGRAM, timeout=timeout)

    def ask(self, client):
        """The number that answers, None if nobody does."""
        client.sendto(b"x", (server_address(self.family, 2), PORT))
        try:
            return int(client.recv(10))
        except (TimeoutError, ConnectionRefusedError):
            return None


@v6_only
def test_datagrams_choose_alike(lab, gateway, family):
    """UDP flows are counted like connections, and go where there are fewest; not to one that is down."""
    gateway.upstream("pool", [target(family, 2), target(family, 3), target(family, 4, admin_state="down")],
                     algorithm="least_conn")
    gateway.listener("names", protocol="udp", ports=[str(PORT)], upstream="pool")
    with Datagrams(lab, family, 2, 3, 4) as servers:
        reached = Counter()
        for _ in range(40):
            with servers.client() as client:
                reached[servers.ask(client)] += 1
    assert reached == {2: 20, 3: 20}


def test_datagrams_that_are_refused(lab, gateway):
    """A target at whose port nobody is is left out; the client's next datagrams go to another one."""
    gateway.upstream("pool", [target("v4", 3), target("v4", 2, backup=True)], passive_failures=3)
    gateway.listener("names", protocol="udp", ports=[str(PORT)], upstream="pool")
    with Datagrams(lab, "v4", 2) as servers, servers.client(timeout=1) as client:
        answers = [servers.ask(client) for _ in range(6)]
    assert answers[:3] == [None] * 3 and answers[-1] == 2, answers
    assert counters(gateway, "targets_ejected", "udp_refused") == (1, 3)


# --- limits, backups, nobody ---


@v6_only
def test_max_connections(lab, servers, gateway, family):
    """As many as the targets may have, then a reset, which is counted; an end makes room."""
    servers.start(2, 3)
    furnish(gateway, [target(family, 2, max_connections=3), target(family, 3, max_connections=5)])
    held = [begin(lab, family) for _ in range(10)]
    assert Counter(number for _, number in held) == {2: 3, 3: 5, None: 2}
    assert counters(gateway, "refused_target_full", "refused_no_target") == (2, 0)
    held[0][0].close()
    wait_for(lambda: ask(lab, family), 5, "room for one more")
    for connection, _ in held:
        if connection:
            connection.close()


@v4_only
def test_backups(lab, servers, gateway, family):
    """Backups serve while nobody else can: all others down, failing or full."""
    servers.start(2, 3, 5)

    def furnished(**two):
        furnish(gateway, [target(family, 2, **two), target(family, 5, backup=True)], max_retries=1)

    furnished()
    assert {ask(lab, family) for _ in range(5)} == {2}
    furnished(admin_state="down")
    assert {ask(lab, family) for _ in range(5)} == {5}
    furnished(max_connections=1)
    held, number = begin(lab, family)
    assert number == 2 and ask(lab, family) == 5
    held.close()
    furnished()
    servers.stop(2)
    assert {ask(lab, family) for _ in range(5)} == {5}


@both_families
def test_all_down(lab, servers, gateway, family):
    """The client is reset at once, and the upstream has counted it."""
    servers.start(2, 3)
    furnish(gateway, [target(family, 2, admin_state="down"), target(family, 3, admin_state="drain", backup=True)])
    assert [ask(lab, family) for _ in range(3)] == [None] * 3
    assert counters(gateway, "refused_no_target") == (3,)
    assert [one["refused"] for one in gateway.must("GET", "stats")["upstreams"]] == [3]
    assert not any(peer.seen for peer in servers.peers.values())


@v6_only
def test_original_port(lab, servers, gateway, family):
    """port 0: the server is asked at the port that the client named."""
    servers.start(3)
    furnish(gateway, [target(family, 3) | {"port": 0}])
    assert ask(lab, family) == 3


# --- ejection ---


def ejected_by(gateway):
    return counters(gateway, "targets_ejected")[0]


@v6_only
def test_ejection_and_return(lab, servers, gateway, family):
    """A server that refuses is left out after three times in a row, also by another relay, and comes back by itself."""
    servers.start(2, 3)
    furnish(gateway, [target(family, number) for number in (2, 3, 4)], max_retries=1, passive_failures=3)
    for _ in range(40):
        assert ask(lab, family) in (2, 3)
        if ejected_by(gateway):
            break
    assert ejected_by(gateway) == 1
    failed = counters(gateway, "connect_failed")
    assert failed >= (3,)
    for _ in range(10):
        assert ask(lab, family) in (2, 3)
    assert counters(gateway, "connect_failed") == failed
    gateway.wait_relay(gateway.kill_relay())
    for _ in range(6):
        assert ask(lab, family) in (2, 3)
    assert counters(gateway, "connect_failed") == failed
    servers.start(4)
    wait_for(lambda: ask(lab, family) == 4, 15, "the return of the third server")


@v4_only
def test_ejection_by_resets(lab, servers, gateway, family):
    """A server that takes connections and breaks them off without a word is left out; half of the targets stay."""
    servers.start(2).start(3, 4, handle=reset_at_once)
    furnish(gateway, [target(family, number) for number in (2, 3, 4)], passive_failures=2)
    for _ in range(40):
        ask(lab, family)
        if ejected_by(gateway):
            break
    assert ejected_by(gateway) == 1
    for _ in range(30):
        ask(lab, family)
    assert ejected_by(gateway) == 1  # one of three is a third, two would be more than half
    furnish(gateway, [target(family, number) for number in (2, 3, 4, 5)], passive_failures=2)
    servers.start(5)
    for _ in range(40):
        ask(lab, family)
    assert ejected_by(gateway) == 2
    assert {ask(lab, family) for _ in range(8)} == {2, 5}
