"""/stats, /metrics and /flows: parameters, roles, and the form of the documents. That the figures are true is tested in
tests/net."""

import pytest

from api.support import Raw, expect_problem
from lab import promlint
from lab.servers import Peer

pytestmark = pytest.mark.shared_gateway

PORT = 7300


def hold(connection, _peer):
    """Reads until the end."""
    with connection:
        while connection.recv(65536):
            connection.sendall(b"y")


@pytest.fixture
def busy(lab, furnished):
    """A gateway with one flow; (gateway, connection)."""
    furnished.upstream("echo", [("10.71.2.3", PORT)])
    furnished.listener("echo", ports=[str(PORT)], upstream="echo")
    with Peer(lab.server, "0.0.0.0", PORT, hold), lab.client.connect("10.71.2.5", PORT) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"y"
        yield furnished, connection


def test_documents(busy):
    """Each has what its schema says (the contract looks at them), and what was asked for."""
    gateway, _ = busy
    whole = gateway.must("GET", "stats")
    assert whole["flows_active"] == 1
    assert [one["name"] for one in whole["listeners"]] == ["echo"]
    assert [one["name"] for one in whole["upstreams"]] == ["echo"]
    assert [one["target"] for one in whole["targets"]] == [f"10.71.2.3:{PORT}"]
    assert gateway.must("GET", "stats/history?step=1&after=0")["step_s"] == 1
    assert gateway.must("GET", "stats/history")["step_s"] == 10
    assert gateway.must("GET", f"stats/history?after={1 << 62}")["rows"] == []
    ledger = gateway.must("GET", "stats/ledger")
    assert {"in0", "out0"} <= {row["interface"] for row in ledger["interfaces"]} and ledger["omitted"] == 0
    assert [row["interface"] for row in gateway.must("GET", "stats/ledger?interface=in0")["interfaces"]] == ["in0"]
    flows = gateway.must("GET", "flows")
    assert flows["active"] == 1 and flows["complete"] and flows["next"] is None
    flow = gateway.must("GET", f"flows/{flows['items'][0]['id']}")
    assert flow["listener"] == "echo"
    for group in ("client", "listener", "upstream", "target", "sni", "sni,client", "client,listener,upstream,target,sni"):
        (one,) = gateway.must("GET", f"flows?group={group}")["items"]
        assert one["flows"] == 1 and set(one["by"]) == set(group.split(","))
    assert one["group"] == f"10.71.1.2 echo echo 10.71.2.3:{PORT} -"
    assert gateway.must("GET", "flows?sni=*.example.com")["items"] == []
    for sort in ("bytes", "age", "rtt"):
        assert len(gateway.must("GET", f"flows?sort={sort}")["items"]) == 1
    query = f"listener=echo&upstream=echo&target=10.71.2.3:{PORT}&client=10.71.0.0/16&protocol=tcp&limit=1000"
    assert len(gateway.must("GET", f"flows?{query}")["items"]) == 1


def test_pages(busy):
    """Lists of what has been counted: all objects, in the order in which they were made, once each."""
    gateway, _ = busy
    for kind, names in (("listeners", ["web", "dns", "echo"]), ("upstreams", ["pool", "echo"])):
        items, after = [], 0
        while after is not None:
            page = gateway.must("GET", f"stats/{kind}?limit=1&after={after}")
            items += page["items"]
            assert page["total"] == len(names)
            after = page["next"]
        assert [one["name"] for one in items] == names
    targets = gateway.must("GET", "stats/targets")["items"]
    assert [one["target"] for one in targets] == ["10.71.2.3:0", "10.71.2.4:8080", f"10.71.2.3:{PORT}"]


@pytest.mark.parametrize("path", [
    "stats?limit=0", "stats?limit=1001", "stats?limit=x", "stats?colour=1", "stats/history?step=0", "stats/history?step=61",
    "stats/history?after=-1", "stats/listeners?after=x", "stats/listeners?limit=", "flows?limit=0", "flows?limit=1001",
    "flows?sort=colour", "flows?group=colour", "flows?group=client,",
    "flows?group=client,client", "flows?include=ended", "flows?group=target&include=ended", "flows?group=client&target=10.0.0.1&include=ended",
    "flows?group=client&include=all", "flows?sni=", "flows?sni=*", "flows?sni=a*.example.com", "flows?protocol=sctp", "flows?client=home", "flows?client=10.0.0.0/33",
    "flows?target=10.0.0.1:0", "flows?target=10.0.0.1:65536", "flows?target=10.0.0.1:", "flows?target=[10.0.0.1",
    "flows?target=fd00::1]:80", "flows?target=", "flows?after=x", "flows?after=p1.0", "flows?after=p1.0.0x", "flows?after=",
    "flows?after=s1.1", "flows?sort=bytes&after=p1.0.0", "flows?sort=bytes&group=client", "flows?group=client&after=p1.0.0",
    "flows?limit=1&limit=2", "flows/0000000000000001?x=1",
])
def test_bad_queries(gateway, path):
    """Each is refused with words, and nothing is guessed."""
    answer = gateway.api("GET", path)
    assert answer.status == 400, answer
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.own_gateway
@pytest.mark.parametrize("cursor", ["pffffffff.ff.ffffffff", "p0.0.0", "p1.3f.7fffffff"])
def test_strange_cursors(busy, cursor):
    """A cursor of another time, or one that was made up: an answer, whatever it is, and no harm."""
    gateway, _ = busy
    assert gateway.api("GET", f"flows?after={cursor}").status == 200
    run = "1"
    assert gateway.must("GET", f"flows?after=p{run}.ff.ffffffff")["items"] == []


@pytest.mark.parametrize("name", ["0000000000000001", "1", "FFFFFFFFFFFFFFFF", "0000000000000000", "xyz", "00000000000000011"])
def test_no_such_flow(gateway, name):
    """404, whatever the name looks like."""
    for method in ("GET", "DELETE"):
        assert gateway.api(method, f"flows/{name}").status == 404


def test_methods(gateway):
    """What can be asked is what the document says."""
    for path in ("stats", "stats/history", "stats/listeners", "flows", "/metrics"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = gateway.api(method, path)
            assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, OPTIONS", (method, path)
    assert gateway.api("PUT", "flows/0000000000000001").headers["Allow"] == "GET, HEAD, DELETE, OPTIONS"
    assert gateway.api("HEAD", "flows").status == gateway.api("HEAD", "/metrics").status == 200


def test_roles(busy):
    """Everybody with a token may look; to end a flow needs an operator."""
    gateway, connection = busy
    tokens = {role: gateway.must("POST", "tokens", {"name": f"t-{role}", "role": role})["token"]
              for role in ("viewer", "operator")}

    def ask(method, path, role):
        key = f"Authorization: Bearer {tokens[role]}\r\n" if role else ""
        return Raw(gateway, tcp=True).say(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n".encode())

    flow = "/api/v1/flows/" + gateway.must("GET", "flows")["items"][0]["id"]
    for path in ("/api/v1/stats", "/api/v1/stats/history", "/api/v1/stats/targets", "/api/v1/flows", flow, "/metrics"):
        assert ask("GET", path, "viewer")[0] == 200
        expect_problem(ask("GET", path, None), 401)
    expect_problem(ask("DELETE", flow, None), 401)
    expect_problem(ask("DELETE", flow, "viewer"), 403)
    connection.sendall(b"x")
    assert connection.recv(1) == b"y"
    assert ask("DELETE", flow, "operator")[0] == 204
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    expect_problem(ask("DELETE", flow, "operator"), 404)
    audit = gateway.must("GET", "audit")["items"]
    assert [(one["actor"], one["status"]) for one in audit if one["path"] == flow][:2] == [
        ("token t-operator", 404), ("token t-operator", 204)]


def test_metrics(busy):
    """As Prometheus wants it, with and without objects, and in each state of a flow."""
    gateway, connection = busy
    for _ in range(2):
        answer = gateway.api("GET", "/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert promlint.faults_of(answer.text) == []
        assert promlint.promtool_faults(answer.text) == ""
        assert 'gateway_listener_flows_active{listener="echo"}' in answer.text
        connection.close()
    gateway.must("PUT", "config", {})
    empty = gateway.api("GET", "/metrics").text
    assert promlint.faults_of(empty) == [] and "gateway_listener_" not in empty


@pytest.mark.own_gateway
def test_the_linter_notices(busy):
    """Each fault that it knows is found in an otherwise good text."""
    gateway, _ = busy
    good = gateway.api("GET", "/metrics").text
    head = "# HELP gateway_x_total x\n# TYPE gateway_x_total counter\n"
    for number, bad in enumerate((
            good[:-1], good + "x\n", good + "gateway_ready 1\n", good + head, good + head + "gateway_x_total{a=1} 1\n",
            good + head + "gateway_x_total 1\ngateway_x_total 1\n", good + head + head + "gateway_x_total 1\n",
            good.replace("# TYPE gateway_ready gauge\n", ""), good.replace("gateway_ready", "gateway_ready_total"),
            good.replace("gateway_ready", "gatewayReady"), good.replace("gateway_ready", "gateway_gauge"),
            good.replace("gateway_flows_opened_total", "gateway_flows_opened"),
            good.replace("gateway_duration_seconds", "gateway_duration_milliseconds"),
            good.replace('gateway_duration_seconds_bucket{le="+Inf"} 0', 'gateway_duration_seconds_bucket{le="+Inf"} 1'),
            good.replace('gateway_duration_seconds_bucket{le="0.000064"} 0', 'gateway_duration_seconds_bucket{le="1"} 0'),
            good.replace("gateway_duration_seconds_sum", "gateway_duration_seconds_total"),
    )):
        assert bad != good and promlint.faults_of(bad), number
