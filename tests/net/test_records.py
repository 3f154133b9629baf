"""Records of flows: every end with who, why and how much, over the death of a relay, as the settings choose them."""

import contextlib
import json
import socket
import struct

import pytest

from lab.datagrams import DatagramPeer, ask, client
from lab.gateway import UnixConnection
from lab.process import wait_for
from lab.servers import Peer

PORT = 7400
SERVERS = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
RESET = struct.pack("ii", 1, 0)


def serve(connection, _peer):
    """Sends back what comes; on b"bye" it closes first, on b"reset" it resets."""
    with connection:
        connection.settimeout(None)
        while piece := connection.recv(65536):
            if piece == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if piece in (b"bye", b"reset"):
                return
            connection.sendall(piece)


@pytest.fixture(scope="module")
def server(lab):
    """The server on TCP and UDP, both families."""
    with Peer(lab.server, "::", PORT, serve), DatagramPeer(lab.server, SERVERS["v4"], PORT), \
            DatagramPeer(lab.server, SERVERS["v6"], PORT):
        yield


class Log:
    """The file of records of a gateway: what came since the last look, by the client's port."""

    def __init__(self, gateway, name="flows.jsonl"):
        self.path, self.seen = gateway.logs / name, []

    def read(self):
        """All records so far; each line is whole."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def end_of(self, port, to=PORT):
        """The record of the end of the flow from this port of the client's to that of the server."""
        def found():
            return next((one for one in self.read() if one["event"] == "end" and one["client_port"] == port and
                         one.get("original_port", to) == to), None)

        return wait_for(found, 10, f"the record of port {port} in {self.path}")


def settings(gateway, **log):
    """A log in a file, what is not said as by default."""
    gateway.must("PUT", "settings", {"flow_log": {"destination": "file", **log}})


def port_of(connection):
    return connection.getsockname()[1]


def talk(connection, data):
    """There and back."""
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        got += connection.recv(65536)


def flow_id(gateway, port):
    """The id of the flow that the gateway shows with this port of the client's."""
    return wait_for(lambda: next((flow["id"] for flow in gateway.must("GET", "flows")["items"]
                                  if flow["client"]["port"] == port), None), 5, "the flow")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_ends(lab, gateway, server, family):
    """Each way in which a flow ends, by whom, and its bytes as client and server have them."""
    address, me = SERVERS[family], getattr(lab.client, family)
    gateway.listener("web", ports=[str(PORT), "7499"], interfaces=["in0"])
    gateway.listener("names", ports=["7401"], routes=[{"http_host": ["good.test"]}, {"action": "reject"}])
    gateway.listener("dgrams", protocol="udp", ports=[str(PORT)])
    settings(gateway, events="both")
    log, ends = Log(gateway), {}

    def begin():
        made = lab.client.connect(address, PORT)
        talk(made, b"x" * 100000)
        return made

    for how in ("client", "target", "client_reset", "target_reset", "killed"):
        connection = begin()
        port = port_of(connection)
        if how == "killed":
            gateway.must("DELETE", f"flows/{flow_id(gateway, port)}")
        elif how.startswith("target"):
            connection.sendall(b"bye" if how == "target" else b"reset")
            with pytest.raises(ConnectionResetError) if how == "target_reset" else contextlib.nullcontext():
                assert connection.recv(1) == b""
        elif how == "client_reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
        ends[how] = log.end_of(port)
    wanted = {"client": ("closed", "client"), "target": ("closed", "target"), "client_reset": ("reset", "client"),
              "target_reset": ("reset", "target"), "killed": ("killed", "gateway")}
    assert {how: (one["reason"], one["closed_by"]) for how, one in ends.items()} == wanted
    for how, one in ends.items():
        more = {"target": 3, "target_reset": 5}.get(how, 0)
        assert (one["bytes_to_target"], one["bytes_to_client"]) == (100000 + more, 100000), (how, one)
        assert (one["client"], one["original"], one["target"]) == (me, address, address)
        assert (one["protocol"], one["listener"], one["upstream"], one["route"], one["sni"]) == (
            "tcp", "web", None, None, None)
        assert one["original_port"] == one["target_port"] == PORT and one["retries"] == 0
        assert one["interface"] == "in0" and one["mover_to_target"] in ("copy", "splice") and one["connect_us"] > 0
        assert one["started"] <= one["time"] and one["duration_ms"] >= 0
        start = next(it for it in log.read() if it["id"] == one["id"] and it["event"] == "start")
        assert {**start, "event": "end", "time": one["time"]}.items() <= one.items()

    # No connection: refused by the server, refused by a route.
    ports = []

    def bound(connection):
        connection.bind(("::" if family == "v6" else "0.0.0.0", 0))
        ports.append(port_of(connection))

    with pytest.raises(ConnectionResetError):  # by whatever call it is noticed
        with lab.client.connect(address, 7499, before=bound) as connection:
            connection.recv(1)
    port = ports[0]
    one = log.end_of(port, 7499)
    assert (one["reason"], one["closed_by"], one["bytes_to_target"]) == ("connect_failed", "target", 0), one
    with lab.client.connect(address, 7401) as connection:
        port = port_of(connection)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: BAD.test\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    one = log.end_of(port, 7401)
    assert (one["reason"], one["closed_by"], one["route"], one["sni"], one["target"]) == (
        "rejected", "gateway", 1, "bad.test", None), one

    # A flow of UDP, which somebody ends.
    asking = client(lab.client, address, PORT)
    port = port_of(asking)
    ask(asking, b"12345")
    gateway.must("DELETE", f"flows/{flow_id(gateway, port)}")
    one = log.end_of(port)
    assert (one["protocol"], one["reason"], one["bytes_to_target"], one["bytes_to_client"], one["mover_to_target"]) == (
        "udp", "killed", 5, 5, None), one
    asking.close()
    assert gateway.status()["relay"]["counters"]["flow_records_lost"] == 0


def test_relay_dies(lab, gateway, server):
    """A flow that is taken over has one record, with its true beginning, name, route and bytes; what ended with the
    relay has one that says so."""
    gateway.listener("names", ports=[str(PORT)], routes=[{"http_host": ["good.test"]}])
    gateway.listener("dgrams", protocol="udp", ports=[str(PORT)])
    settings(gateway)
    log, head = Log(gateway), b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"
    old = lab.client.connect(SERVERS["v4"], PORT)
    talk(old, head)
    wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 1, 10, "the flow kept")
    before = gateway.must("GET", f"flows/{flow_id(gateway, port_of(old))}")
    asking = client(lab.client, SERVERS["v4"], PORT)
    udp_port = port_of(asking)
    ask(asking)
    for _ in range(2):  # what the first one has learnt of the flow, the third still knows
        dead = gateway.kill_relay()
        gateway.wait_relay(dead)
        talk(old, b"more")
        wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 1, 10, "the flow kept again")
    one = log.end_of(udp_port)
    assert (one["protocol"], one["reason"], one["closed_by"], one["bytes_to_client"]) == (
        "udp", "relay_died", "gateway", 1), one
    assert gateway.must("GET", f"flows/{before['id']}")["sni"] == "good.test"
    port = port_of(old)
    old.close()
    one = log.end_of(port)
    assert (one["id"], one["reason"], one["closed_by"], one["sni"], one["route"]) == (
        before["id"], "closed", "client", "good.test", 0), one
    assert (one["bytes_to_target"], one["bytes_to_client"], one["connect_us"]) == (
        len(head) + 8, len(head) + 8, before["connect_us"]), one
    assert one["duration_ms"] >= before["age_ms"]
    assert len([it for it in log.read() if it["client_port"] == port]) == 1
    gateway.kill()  # the daemon: what the relay tells meanwhile waits for the next one
    with lab.client.connect(SERVERS["v6"], PORT) as connection:
        port = port_of(connection)
        talk(connection, head)
    gateway.start()
    one = log.end_of(port)
    assert (one["client"], one["listener"], one["reason"]) == (lab.client.v6, "names", "closed"), one
    asking.close()


class Stream:
    """A reader of events."""

    def __init__(self, gateway, query):
        self.connection = UnixConnection(gateway.socket)
        self.connection.request("GET", f"/api/v1/events{query}")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200 and self.answer.readline() == b":\n"

    def until(self, wanted):
        """The events up to one of this type, as (type, data)."""
        seen, kind = [], None
        while not seen or seen[-1][0] != wanted:
            line = self.answer.readline().decode()
            assert line, seen
            if line.startswith("event: "):
                kind = line[7:].strip()
            elif line.startswith("data: "):
                seen.append((kind, json.loads(line[6:])))
        return seen


def test_events(lab, gateway, server):
    """Who asks for single flows gets them, at most a hundred a second and word of the rest; others get none."""
    gateway.listener("web", ports=[str(PORT)])
    gateway.listener("dgrams", protocol="udp", ports=[str(PORT)])
    flows, ends, plain = (Stream(gateway, query) for query in ("?types=flow_start,flow_end", "?types=flow_end", ""))
    with lab.client.connect(SERVERS["v6"], PORT) as connection:
        talk(connection, b"12345")
        port = port_of(connection)
    (first, start), (second, end) = flows.until("flow_end")
    assert (first, second) == ("flow_start", "flow_end") and start["id"] == end["id"]
    assert (end["client"], end["client_port"], end["bytes_to_client"], end["reason"], end["listener"]) == (
        lab.client.v6, port, 5, "closed", "web")
    assert ends.until("flow_end") == [("flow_end", end)]
    asking = [client(lab.client, SERVERS["v4"], PORT) for _ in range(400)]
    for one in asking:
        one.send(b"?")
    seen = flows.until("flow_left_out")
    assert seen[-1][1]["why"] == "rate" and seen[-1][1]["left_out"] > 0
    assert len(seen) > 90 and {kind for kind, _ in seen[:-1]} == {"flow_start"}
    for one in asking:
        one.close()
    gateway.must("PATCH", "settings", {"talkers_kept": 7})
    assert [kind for kind, _ in plain.until("revision")] == ["revision"]
    assert gateway.must("GET", "flows?group=client&include=ended")["ended"]["most"] == 7


def test_settings(lab, gateway, server):
    """What is chosen is written, and nothing else; a file that was renamed is followed by a new one; what is no name of
    a file is refused."""
    gateway.listener("web", ports=[str(PORT)])

    def flow():
        with lab.client.connect(SERVERS["v4"], PORT) as connection:
            talk(connection, b"x")
            return port_of(connection)

    flow()
    settings(gateway, file="a.log", fields=["client_port", "event", "bytes_to_client"])
    log = Log(gateway, "a.log")
    assert log.end_of(flow()) == {"event": "end", "client_port": log.read()[-1]["client_port"], "bytes_to_client": 1}
    log.path.rename(gateway.logs / "a.log.1")
    log.end_of(flow())
    assert len(log.read()) == 1
    settings(gateway, sample=1000000)
    for _ in range(3):
        flow()
    settings(gateway, file="b.log")
    log = Log(gateway, "b.log")
    log.end_of(flow())
    assert len(log.read()) == 1 and not (gateway.logs / "flows.jsonl").read_text()
    status = gateway.status()
    assert status["flow_log"] == {"destination": "file", "file": str(log.path), "ok": True, "fault": None}
    assert status["relay"]["counters"]["flow_records_written"] == 3
    for name in ("", ".", "../x", "a/b", "-x", "a b"):
        answer = gateway.api("PATCH", "settings", {"flow_log": {"file": name}},
                             headers={"Content-Type": "application/merge-patch+json"})
        assert answer.status == 422 and answer.json["errors"][0]["pointer"] == "/flow_log/file", answer
    gateway.must("PATCH", "settings", {"flow_log": None})
    assert gateway.must("GET", "settings")["flow_log"]["destination"] == "off"
    assert log.path.stat().st_mode & 0o137 == 0
