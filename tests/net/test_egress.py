"""The egress gateway of docs/egress.md by the commands that stand there: names by SNI, so many streams for each client,
the rest refused, and who talks to whom. Servers of the lab stand for the names."""

import http.client
import re
import shutil
import socket
import ssl
import subprocess

import pytest

from lab import chromium
from lab.gateway import ROOT
from lab.names import Names
from lab.process import wait_for

FAMILIES = ["v4", "v6"]
NETS = {"v4": "10.71.2.", "v6": "fd71:2::"}
# Which of the server's addresses stands for which name.
PLACES = {"api.openai.com": 2, "eu.openai.com": 3, "api.anthropic.com": 4, "example.org": 5, "openai.com": 5}
STREAMS = 4
COMMANDS, REPORTS = re.findall("```sh\n(.*?)```", (ROOT / "docs" / "egress.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names(lab):
    """The servers, all names with a certificate."""
    made = Names(lab, lab.server, 443, PLACES)
    yield made
    made.stop()


def shell(gateway, *parts):
    """Runs parts of the page as they stand there, on this gateway's socket; returns what they print."""
    text = "set -e\n" + "".join(parts).replace("/run/gatewayd/api.sock", str(gateway.socket))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def egress(gateway):
    """The gateway as the page says."""
    shell(gateway, COMMANDS)
    return gateway


def place(family, name):
    """The address of a name."""
    return f"{NETS[family]}{PLACES[name]}"


def stream(host, names, family, name):
    """An answer that goes on until it is closed, over TLS that is checked."""
    raw = host.connect(place(family, name), 443)
    try:
        connection = http.client.HTTPConnection(name)
        connection.sock = ssl.create_default_context(cafile=names.authority).wrap_socket(raw, server_hostname=name)
        connection.request("GET", "/stream")
        assert connection.getresponse().read(17) == b"data: 0123456789\n"
    except BaseException:
        raw.close()
        raise
    return connection


def talk(gateway, query, *keys):
    """{values of the keys: flows} of groups."""
    items = gateway.must("GET", f"flows?{query}")["items"]
    assert all(item["bytes_to_client"] > 0 for item in items), items
    return {tuple(item["by"][key] for key in keys): item["flows"] for item in items}


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_and_who_talks_to_whom(lab, names, egress, family):
    """Four streams for a client and not one more, others have their own; each report says who, to whom, how many."""
    one, two = getattr(lab.client, family), getattr(lab.client2, family)
    wanted = ["api.openai.com", "api.openai.com", "eu.openai.com", "api.anthropic.com"]
    streams = [stream(lab.client, names, family, name) for name in wanted]
    assert len(streams) == STREAMS
    for name in ("api.openai.com", "api.anthropic.com"):
        with pytest.raises(ConnectionRefusedError):
            stream(lab.client, names, family, name)
    streams.append(stream(lab.client2, names, family, "api.anthropic.com"))
    for name in ("example.org", "openai.com"):
        with pytest.raises(ConnectionResetError):
            stream(lab.client2, names, family, name)

    whole = {(one, "api.openai.com"): 2, (one, "eu.openai.com"): 1, (one, "api.anthropic.com"): 1,
             (two, "api.anthropic.com"): 1}
    assert talk(egress, "group=client,sni", "client", "sni") == whole
    assert talk(egress, "group=client&sni=*.OpenAI.com", "client") == {(one,): 3}
    assert talk(egress, f"group=client,listener,sni&client={two}", "client", "listener", "sni") == {
        (two, "egress", "api.anthropic.com"): 1}
    flows = egress.must("GET", "flows?sort=bytes&sni=api.anthropic.com")["items"]
    assert {(flow["client"]["address"], flow["original"]["address"]) for flow in flows} == {
        (who, place(family, "api.anthropic.com")) for who in (one, two)}
    said = egress.lab.gateway.run(egress.binaries / "gatewayctl", "flows", "--group", "client,sni", "--sni",
                                  "*.openai.com", "--socket", egress.socket).stdout
    assert re.search(rf"^{one} api\.openai\.com +2 ", said, re.MULTILINE) and "anthropic" not in said, said
    assert f'"group": "{one} api.openai.com"' in shell(egress, COMMANDS.split("\n#")[0], "\n", REPORTS).replace('":"', '": "')

    limit = egress.must("GET", "stats/rate-limits/streams")
    assert limit["over"] >= 2 and limit["passed"] >= STREAMS + 3, limit
    counters = egress.status()["relay"]["counters"]
    assert (counters["route_matched"], counters["route_rejected"]) == (len(streams) + 2, 2)
    streams.pop(0).close()
    streams.append(wait_for(lambda: again(lab, names, family), 10, "room for another stream", interval=0.1))
    for connection in streams:
        connection.close()
    wait_for(lambda: egress.must("GET", "flows")["items"] == [], 10, "the end of all flows")

    past = {(one, "api.openai.com"): (2, 0), (one, "eu.openai.com"): (1, 0), (one, "api.anthropic.com"): (2, 0),
            (two, "api.anthropic.com"): (1, 0), (two, "example.org"): (1, 1), (two, "openai.com"): (1, 1)}
    wait_for(lambda: ended(egress) == past, 10, f"{past} and not {ended(egress)}")
    egress.wait_relay(egress.kill_relay())
    assert ended(egress) == past  # a relay more or less is nothing to that
    assert ended(egress, "&sni=*.anthropic.com&listener=egress") == {key: past[key] for key in past if "anthropic" in key[1]}
    said = egress.lab.gateway.run(egress.binaries / "gatewayctl", "flows", "--group", "client,destination", "--ended",
                                  "--socket", egress.socket).stdout
    assert re.search(rf"^{two} example\.org +0 +1 +1 ", said, re.MULTILINE), said


def ended(gateway, more=""):
    """{(client, destination): (ended, refused)} of flows that have ended."""
    answer = gateway.must("GET", f"flows?group=client,destination&include=ended{more}")
    assert answer["complete"] and answer["ended"]["evicted"] == 0
    assert all(item["flows"] == 0 and item["first_seen"] <= item["last_seen"] for item in answer["items"])
    return {(item["by"]["client"], item["by"]["destination"]): (item["ended"], item["refused"]) for item in answer["items"]}


def again(lab, names, family):
    """Another stream if there is room for it."""
    try:
        return stream(lab.client, names, family, "api.anthropic.com")
    except ConnectionRefusedError:
        return None


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_way_out(lab, names, nginx, egress, family):
    """Other ports, and QUIC's, are closed."""
    with pytest.raises(ConnectionRefusedError):
        lab.client.connect(place(family, "api.openai.com"), 8000)
    with lab.client.socket(socket.AF_INET6 if family == "v6" else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect((place(family, "api.openai.com"), 443))
        made.send(b"\xc0")
        with pytest.raises(ConnectionRefusedError):
            made.recv(1)


PAGE = """<!doctype html><title>names</title><body><script>
const names = ["api.openai.com", "eu.openai.com", "api.anthropic.com", "example.org"];
const ask = (name) => fetch(`https://${name}/whoami`).then((answer) => answer.text(), () => `${name} refused\n`);
Promise.all(names.map(ask)).then((all) => { document.body.textContent = all.join(""); });
</script>"""


@pytest.mark.parametrize("family", FAMILIES)
def test_chromium(lab, names, gateway, family):
    """A real browser, which offers HTTP/2 and greases: each name leads to its own servers."""
    if not shutil.which("chromium"):
        pytest.skip("chromium is not installed")
    (names.directory / "page.html").write_text(PAGE)
    for name, place_of in (("openai", "api.openai.com"), ("anthropic", "api.anthropic.com")):
        gateway.upstream(name, [(place(family, place_of), 443)])
    gateway.listener("egress", ports=["443"], routes=[
        {"sni": ["*.openai.com"], "alpn": ["h2"], "upstream": "openai"},
        {"sni": ["api.anthropic.com"], "upstream": "anthropic"}, {"action": "reject"}])
    said = chromium.page(lab, lab.client, "https://api.openai.com/page.html", NETS[family] + "3", names.authority)
    client = getattr(lab.client, family)
    for name, place_of in (("api.openai.com",) * 2, ("eu.openai.com", "api.openai.com"), ("api.anthropic.com",) * 2):
        assert f"{name} at {place(family, place_of)} sees {client} by TLSv1.3" in said, said
    assert "example.org refused" in said, said
    counters = gateway.status()["relay"]["counters"]
    assert counters["route_rejected"] > 0 and counters["route_matched"] == counters["first_bytes_tls"], counters
    counted = {one["name"]: one["flows_opened"] for one in gateway.must("GET", "stats")["upstreams"]}
    assert counted["openai"] >= 1 and counted["anthropic"] >= 1, counted
