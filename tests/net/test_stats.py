"""What the gateway says it has done, against what client and server counted themselves."""

import os
import random
import signal
import socket
import subprocess
import threading

import pytest

from lab.process import alive, wait_for
from lab.servers import Peer

PORT = 7100
CLIENT_SIDE = ("bytes_to_target", "bytes_to_client", "flows_opened")


class CountingServer:
    """Reads what comes to the end and answers with as many bytes as the first eight say; counts by address."""

    def __init__(self, lab):
        self.lock = threading.Lock()
        self.counts = {}
        self.peer = Peer(lab.server, "::", PORT, self.handle)  # both families

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()

    def handle(self, connection, _peer):
        """One connection."""
        local = connection.getsockname()[0].removeprefix("::ffff:")
        with connection:
            connection.settimeout(60)
            head = receive(connection, 8)
            self.count(local, flows_opened=1, bytes_to_target=len(head))
            if len(head) < 8:
                return
            answer = bytes(int.from_bytes(head, "big"))
            connection.sendall(answer)
            self.count(local, bytes_to_client=len(answer))
            while piece := connection.recv(65536):
                self.count(local, bytes_to_target=len(piece))

    def count(self, address, **more):
        """Adds to what this address of the server has seen."""
        with self.lock:
            mine = self.counts.setdefault(address, dict.fromkeys(CLIENT_SIDE, 0))
            for key, value in more.items():
                mine[key] += value

    def total(self):
        """Of all addresses."""
        with self.lock:
            return {key: sum(one[key] for one in self.counts.values()) for key in CLIENT_SIDE}


def receive(connection, size):
    """Exactly so many bytes, or fewer at the end of the stream."""
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


class Client:
    """Connections to the counting server, and what they have sent and received."""

    def __init__(self, lab):
        self.lab = lab
        self.counts = dict.fromkeys(CLIENT_SIDE, 0)

    def open(self, address, up, down):
        """A connection that has exchanged its bytes and stays open."""
        connection = self.lab.client.connect(address, PORT, timeout=30)
        connection.sendall(down.to_bytes(8, "big") + bytes(up))
        got = receive(connection, down)
        assert len(got) == down
        self.counts["flows_opened"] += 1
        self.counts["bytes_to_target"] += 8 + up
        self.counts["bytes_to_client"] += down
        return connection

    def close(self, connection):
        """An orderly end, seen by both."""
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()

    def exchange(self, address, up, down):
        """The whole of it."""
        self.close(self.open(address, up, down))


def furnish(gateway):
    """One listener with a pool of two servers, one that leaves the destination as it is."""
    gateway.upstream("pool", [("10.71.2.3", PORT), ("10.71.2.4", PORT)])
    gateway.listener("pooled", destinations=["10.71.2.2"], ports=[str(PORT)], upstream="pool")
    gateway.listener("direct", destinations=["10.71.2.5", "fd71:2::5"], ports=[str(PORT)])


def stats(gateway):
    """The document of GET /stats."""
    return gateway.must("GET", "stats?limit=1000")


def picked(counters):
    """The figures that the client has as well."""
    return {key: counters[key] for key in CLIENT_SIDE}


def object_of(gateway, kind, name):
    """The figures of one listener, upstream or target."""
    items = gateway.must("GET", f"stats/{kind}")["items"]
    return next(one for one in items if name in (one.get("name"), one.get("target")))


def wait_idle(gateway):
    """Until the last flow has ended."""
    wait_for(lambda: stats(gateway)["flows_active"] == 0, 10, "the end of all flows")


def random_exchanges(client, seed, n):
    """Connections of many sizes to both listeners and in both families."""
    choice = random.Random(seed)
    for _ in range(n):
        address = choice.choice(["10.71.2.2", "10.71.2.5", "fd71:2::5"])
        client.exchange(address, choice.choice([0, 1, 100, 70000, 300000]), choice.choice([0, 1, 1000, 66000, 500000]))


@pytest.mark.parametrize("mover", ["copy", "splice", "auto"])
def test_figures_are_those_of_client_and_server(lab, make_gateway, mover):
    """Connections and bytes of the whole, of listeners, upstreams and targets, to the byte."""
    gateway = make_gateway(mover=mover)
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab) as server:
        random_exchanges(client, mover, 60)
        wait_idle(gateway)
        counted = stats(gateway)
        assert picked(counted["counters"]) == client.counts == server.total()
        assert counted["counters"]["flows_closed"] == client.counts["flows_opened"]
        assert counted["counters"]["flows_reset"] == 0
        targets = [object_of(gateway, "targets", f"10.71.2.{last}:{PORT}") for last in (3, 4)]
        for last, target in zip((3, 4), targets):
            assert picked(target) == server.counts[f"10.71.2.{last}"]
        pool = object_of(gateway, "upstreams", "pool")
        pooled, direct = (object_of(gateway, "listeners", name) for name in ("pooled", "direct"))
        for key in CLIENT_SIDE:
            assert pool[key] == pooled[key] == sum(target[key] for target in targets)
            assert pooled[key] + direct[key] == client.counts[key]
            assert direct[key] == server.counts["10.71.2.5"][key] + server.counts["fd71:2::5"][key]
        for name, histogram in counted["histograms"].items():
            assert histogram["count"] <= client.counts["flows_opened"], name
        assert counted["histograms"]["duration"]["count"] == client.counts["flows_opened"]
        total = client.counts["bytes_to_target"] + client.counts["bytes_to_client"]
        assert counted["histograms"]["flow_bytes"]["sum"] == total
        assert pool["histograms"]["connect_time"]["count"] == pool["flows_opened"]
        assert pool["histograms"] == pooled["histograms"]
        for name, histogram in counted["histograms"].items():
            for key in ("count", "sum"):
                assert pooled["histograms"][name][key] + direct["histograms"][name][key] == histogram[key], name


def test_figures_outlive_the_relay(lab, gateway):
    """kill -9 of the relay: nothing is lost, nothing is counted twice, and no flow that died is said to live."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab) as server:
        random_exchanges(client, 1, 10)
        for _ in range(3):
            held = [client.open(address, 5000, 7000) for address in ("10.71.2.2", "10.71.2.5", "fd71:2::5")]
            wait_for(lambda: picked(stats(gateway)["counters"]) == client.counts, 5, "all bytes counted")
            gateway.wait_relay(gateway.kill_relay())
            for connection in held:
                connection.close()
            wait_idle(gateway)
            random_exchanges(client, 2, 5)
        wait_idle(gateway)
        assert picked(stats(gateway)["counters"]) == client.counts == server.total()
        assert object_of(gateway, "listeners", "pooled")["flows_active"] == 0


def test_figures_outlive_the_daemon(lab, gateway):
    """kill -9 of the daemon: flows go on, are counted meanwhile, and the next daemon has the figures of the first."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab) as server:
        random_exchanges(client, 3, 10)
        held = client.open("10.71.2.2", 100, 100)
        for _ in range(2):
            gateway.kill()
            random_exchanges(client, 4, 5)
            gateway.start()
            wait_for(lambda: stats(gateway)["flows_active"] == 1, 5, "the flow that was held")
            assert picked(stats(gateway)["counters"]) == client.counts == server.total()
            assert object_of(gateway, "listeners", "pooled")["flows_active"] == 1
            assert [flow["listener"] for flow in gateway.must("GET", "flows")["items"]] == ["pooled"]
        client.close(held)
        wait_idle(gateway)


def test_counters_belong_to_the_object(lab, gateway):
    """They survive changes of it and of others, and go with it: the next one of its name begins at nothing."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab):
        client.exchange("10.71.2.2", 10, 10)
        held = client.open("10.71.2.2", 10, 10)
        wait_for(lambda: object_of(gateway, "listeners", "pooled")["bytes_to_client"] == 20, 5, "bytes of the listener")
        gateway.must("PATCH", "listeners/pooled", {"idle_timeout_s": 77})
        gateway.listener("other", ports=["7999"])
        assert object_of(gateway, "listeners", "pooled")["flows_opened"] == 2
        gateway.delete("listeners", "other")
        gateway.delete("listeners", "pooled")
        gateway.listener("pooled", destinations=["10.71.2.2"], ports=[str(PORT)], upstream="pool")
        assert object_of(gateway, "listeners", "pooled")["flows_opened"] == 0
        client.exchange("10.71.2.2", 10, 10)
        # The flow of the listener that was deleted ends: it is not one of the new listener's.
        client.close(held)
        wait_idle(gateway)
        pooled = object_of(gateway, "listeners", "pooled")
        assert (pooled["flows_opened"], pooled["flows_closed"], pooled["flows_active"]) == (1, 1, 0)
        assert (pooled["bytes_to_target"], pooled["bytes_to_client"]) == (18, 10)
        assert object_of(gateway, "upstreams", "pool")["flows_closed"] == 3


def test_failures_are_counted(lab, gateway):
    """A target that refuses, and an upstream that has none for the client's family."""
    gateway.upstream("closed", [("10.71.2.3", 7999)])
    gateway.listener("refused", destinations=["10.71.2.2", "fd71:2::2"], ports=[str(PORT)], upstream="closed")
    for address in ("10.71.2.2", "fd71:2::2"):
        with pytest.raises(OSError), lab.client.connect(address, PORT, timeout=5) as connection:
            connection.recv(1)
            raise ConnectionResetError
    wait_idle(gateway)
    for kind, name in (("listeners", "refused"), ("upstreams", "closed")):
        found = object_of(gateway, kind, name)
        assert (found["connect_failed"], found["refused"], found["flows_reset"]) == (1, 1, 1), kind
    assert object_of(gateway, "targets", "10.71.2.3:7999")["connect_failed"] == 1


def test_history_outlives_the_daemon(lab, gateway):
    """The seconds that one daemon has seen are told by the next one, and their sum is what was counted."""
    furnish(gateway)
    client = Client(lab)

    def told():
        document = gateway.must("GET", "stats/history?step=1")
        columns = {name: [row[i] for row in document["rows"]] for i, name in enumerate(document["columns"])}
        assert columns["time"] == sorted(set(columns["time"]))
        return columns

    with CountingServer(lab):
        wait_for(lambda: told()["time"], 5, "a first second")
        random_exchanges(client, 5, 10)
        wait_idle(gateway)
        wait_for(lambda: sum(told()["flows_opened"]) == 10, 5, "ten flows in the history")
        gateway.kill()
        gateway.start()
        before = told()
        for key in CLIENT_SIDE:
            assert sum(before[key]) == client.counts[key]
        # Seconds with connections tell how long they took, the others nothing; the longest is what the histogram has.
        slowest = [value for value in before["connect_time_p99"] if value is not None]
        longest = stats(gateway)["histograms"]["connect_time"]["max"]
        assert 0 < len(slowest) <= sum(1 for value in before["flows_opened"] if value) + 1
        assert longest <= max(slowest) <= longest * 1.125 + 1
        assert all(a <= b <= c for a, b, c in zip(*(before[f"connect_time_{part}"] for part in ("p50", "p95", "p99"))) if a is not None)
        assert any(value is not None for value in before["first_byte_p50"])
        ten = gateway.must("GET", "stats/history?step=10")
        opened = ten["columns"].index("flows_opened")
        assert sum(row[opened] for row in ten["rows"]) == 10
        assert all(row[0] % 10 == 0 for row in ten["rows"])
        random_exchanges(client, 6, 3)
        wait_for(lambda: sum(told()["flows_opened"]) == 13, 5, "the history to go on")


def test_rates(lab, gateway):
    """While bytes flow there is a rate, and it is none any more a while after."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab):
        wait_for(lambda: gateway.must("GET", "stats/history?step=1")["rows"], 5, "a first second")
        client.exchange("10.71.2.2", 0, 1000000)
        wait_for(lambda: stats(gateway)["rates"]["bytes_to_client"] > 0, 5, "a rate")
        assert object_of(gateway, "targets", f"10.71.2.3:{PORT}")["rates"]["bytes_to_client"] > 0
        assert object_of(gateway, "listeners", "direct")["rates"]["bytes_to_client"] == 0
        wait_for(lambda: stats(gateway)["rates"]["bytes_to_client"] == 0, 15, "the rate's end")


def test_nft_counters(lab, gateway):
    """What nft itself has decided is told too."""
    gateway.listener("no", ports=[str(PORT)], action="reject")
    with pytest.raises(OSError):
        lab.client.connect("10.71.2.2", PORT, timeout=3)
    assert stats(gateway)["nft"]["rejected"]["packets"] == 1


def metric_values(text):
    """{name{labels}: value} of a Prometheus text."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_metrics_are_the_same_figures(lab, gateway):
    """/metrics says what /stats says."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab):
        random_exchanges(client, 7, 20)
        wait_idle(gateway)
        values = metric_values(gateway.api("GET", "/metrics").text)
        assert values["gateway_flows_opened_total"] == client.counts["flows_opened"]
        assert values["gateway_to_target_bytes_total"] == client.counts["bytes_to_target"]
        assert values["gateway_flows_active"] == 0
        assert values["gateway_relay_up"] == 1
        pooled = object_of(gateway, "listeners", "pooled")
        assert values['gateway_listener_to_client_bytes_total{listener="pooled"}'] == pooled["bytes_to_client"]
        for which in ("duration", "first_byte", "connect_time"):
            for label in ('listener_{}{{listener="pooled"}}', 'upstream_{}{{upstream="pool"}}'):
                assert values["gateway_" + label.format(f"{which}_seconds_count")] == pooled["histograms"][which]["count"]
        target = object_of(gateway, "targets", f"10.71.2.3:{PORT}")
        labels = f'{{upstream="pool",target="10.71.2.3:{PORT}"}}'
        assert values["gateway_target_flows_opened_total" + labels] == target["flows_opened"]
        assert values['gateway_duration_seconds_bucket{le="+Inf"}'] == values["gateway_duration_seconds_count"] == 20


def test_both_die(lab, gateway):
    """With daemon and relay gone the figures begin anew, and nothing else is wrong."""
    furnish(gateway)
    client = Client(lab)
    with CountingServer(lab):
        client.exchange("10.71.2.2", 10, 10)
        pid = gateway.relay_pid()
        gateway.kill()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), 5, "the relay's death")
        gateway.start()
        client = Client(lab)
        random_exchanges(client, 8, 5)
        wait_idle(gateway)
        assert picked(stats(gateway)["counters"]) == client.counts


def test_memory_of_idle_counters_is_small(gateway):
    """Ten thousand listeners that nobody uses cost the counters' memory a few pages."""
    listeners = [{"name": f"l{i}", "ports": [str(1000 + i)], "destinations": ["10.71.9.0/24"]} for i in range(10000)]
    config = gateway.must("GET", "config")
    gateway.must("PUT", "config", {**config, "listeners": listeners}, timeout=110)
    assert gateway.must("GET", "stats/listeners?limit=1")["total"] == 10000
    metrics = gateway.api("GET", "/metrics").text
    assert metric_values(metrics)['gateway_metrics_omitted_objects{kind="listener"}'] == 9000
    smaps = subprocess.run(["cat", f"/proc/{gateway.relay_pid()}/smaps"], capture_output=True, text=True, check=True).stdout
    block = smaps[smaps.index("gateway-stats"):]
    resident = int(next(line for line in block.splitlines() if line.startswith("Rss:")).split()[1])
    assert resident < 2048, "kB"
