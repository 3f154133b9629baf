"""gatewayctl against a running gateway: what it shows, what it changes, and its exit codes."""

import json
import os
import pty
import select
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from lab import Gateway, servers
from lab.gateway import ROOT
from lab.process import SANITIZER, wait_for

OK, REFUSED, USAGE, UNREACHABLE, ATTENTION = range(5)
MANUAL = ROOT / "packaging" / "man" / "gatewayctl.1"


class Ctl:
    """Calls the program on one gateway's socket."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.program = gateway.binaries / "gatewayctl"

    def line(self, *words):
        """The command line."""
        return [str(word) for word in (self.program, *words, "--socket", self.gateway.socket)]

    def __call__(self, *words, code=OK, given=None, env=None):
        done = subprocess.run(self.line(*words), capture_output=True, text=True, timeout=30, input=given or "",
                              env={**os.environ, **(env or {})})
        assert not SANITIZER.search(done.stderr), done.stderr
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        self.said = done.stderr
        return done.stdout

    def json(self, *words, **options):
        """The document of -o json."""
        return json.loads(self(*words, "-o", "json", **options))


@pytest.fixture(scope="module")
def ctl(lab):
    """On a gateway of the module."""
    with Gateway(lab) as gateway:
        yield Ctl(gateway)


@pytest.fixture(autouse=True)
def empty(ctl):
    """Each test begins with no configuration."""
    ctl("apply", "-f", "-", given="{}")


WEB = {"listeners": [{"name": "web", "ports": ["7700"], "upstream": "pool"}],
       "upstreams": [{"name": "pool", "targets": [{"address": "10.71.2.3", "port": 7700},
                                                 {"address": "fd71:2::3", "port": 7700}]}]}


def test_status_and_exit_codes(ctl):
    """0 when all is well, 4 when something is wrong, and the tables tell what."""
    assert "ready       yes" in ctl("status")
    assert ctl.json("status")["ready"] is True
    with ctl.gateway.lab.gateway.sysctls(net__ipv4__ip_forward=0):
        shown = ctl("doctor", code=ATTENTION)  # looks anew, which the status does once a second
        assert "warning     ip_forward" in ctl("status", code=ATTENTION)
        assert "FAULT ip_forward" in shown and "sysctl -w net.ipv4.ip_forward=1" in shown
        assert ctl.json("doctor", code=ATTENTION)["ok"] is False
    ctl("doctor")


@pytest.mark.parametrize("words", [["nothing"], ["flows", "--types", "x"], ["apply"], ["apply", "-f", "/nowhere"],
                                   ["drain", "one"], ["status", "extra"], ["get", "--limit", "0"], ["status", "-o", "xml"],
                                   ["status", "--nothing"], ["apply", "-f"], ["diff"], ["top", "-o", "json"],
                                   ["explain", "tcp", "1.2.3.4", "5.6.7.8:99999"], ["flows", "kill"],
                                   ["trace", "tcp", "1.2.3.4", "5.6.7.8:80", "--for", "0"], ["trace", "tcp", "1.2.3.4"], []])
def test_wrong_use(ctl, words):
    """Wrong command lines are told on standard error, and nothing is asked."""
    if words[:2] == ["apply", "-f"] and len(words) == 2:
        done = subprocess.run([ctl.program, *words], capture_output=True, text=True, timeout=10)
        assert done.returncode == USAGE and done.stderr
        return
    ctl(*words, code=USAGE)


def test_no_gateway(ctl):
    """A socket that nobody listens on."""
    done = subprocess.run([ctl.program, "status", "--socket", "/nowhere/api.sock"], capture_output=True, text=True)
    assert done.returncode == UNREACHABLE
    assert "/nowhere/api.sock: No such file" in done.stderr


def test_apply_shows_then_does(ctl):
    """Dry run, difference, apply, nothing left to do; the list and the object."""
    text = json.dumps(WEB)
    assert "+ /listeners/web" in ctl("apply", "-f", "-", "--dry-run", given=text)
    assert ctl.json("get", "listeners") == []
    assert "+ /upstreams/pool" in ctl("diff", "-f", "-", given=text, code=ATTENTION)
    assert "revision" in ctl("apply", "-f", "-", given=text)
    assert "nothing changes" in ctl("diff", "-f", "-", given=text)
    assert "10.71.2.3:7700,[fd71:2::3]:7700" in ctl("get", "upstreams")
    assert json.loads(ctl("get", "listeners", "web"))["upstream"] == "pool"
    # What is got can be applied.
    assert "nothing changes" in ctl("diff", "-f", "-", given=ctl("get"))
    changed = {**WEB, "listeners": [{**WEB["listeners"][0], "ports": ["7701"]}]}
    shown = ctl("diff", "-f", "-", given=json.dumps(changed), code=ATTENTION)
    assert '    ports: ["7700"] -> ["7701"]' in shown and "upstream" not in shown


def test_a_transaction(ctl):
    """A list of changes is one revision."""
    changes = [{"method": "PUT", "path": "/upstreams/pool", "body": WEB["upstreams"][0]},
               {"method": "PUT", "path": "/listeners/web", "body": WEB["listeners"][0]}]
    before = ctl.json("status")["revision"]
    ctl("apply", "-f", "-", given=json.dumps(changes))
    assert ctl.json("status")["revision"] == before + 1


def test_faults_with_pointers(ctl):
    """Every fault is told with the place it stands at; broken JSON with line and column."""
    ctl("apply", "-f", "-", given='{"listeners": [{"name": "web", "ports": ["99999"], "action": "x"}]}', code=REFUSED)
    assert "/listeners/0/ports/0:" in ctl.said and "/listeners/0/action:" in ctl.said and "(422)" in ctl.said
    ctl("apply", "-f", "-", given='{"listeners": [],\n}', code=USAGE)
    assert "-:2:" in ctl.said
    ctl("get", "listeners", "none", code=REFUSED)
    assert "(404)" in ctl.said


def test_confirm_and_rollback(ctl):
    """A change that waits is undone or kept."""
    base = ctl.json("status")["revision"]
    ctl("apply", "-f", "-", "--confirm-within", "300", given=json.dumps(WEB))
    assert "gatewayctl confirm" in ctl.said
    ctl("rollback")
    assert ctl.json("get", "listeners") == []
    ctl("apply", "-f", "-", "--confirm-within", "300", given=json.dumps(WEB))
    assert "stays" in ctl("confirm")
    ctl("confirm", code=REFUSED)
    assert "- /listeners/web" in ctl("rollback", base, "--dry-run")
    ctl("rollback", base)
    assert "nothing changes" in ctl("diff", base)


def test_drain(ctl):
    """A target by address and port, also an IPv6 one."""
    ctl("apply", "-f", "-", given=json.dumps(WEB))
    for target in ("10.71.2.3:7700", "[fd71:2::3]:7700"):
        for option, state in (([], "drain"), (["--down"], "down"), (["--undo"], "up")):
            ctl("drain", "pool", target, *option)
            path = f"upstreams/pool/targets/{target}".replace("[", "%5B").replace("]", "%5D")
            assert ctl.gateway.must("GET", path)["admin_state"] == state
    ctl("drain", "pool", "10.9.9.9:1", code=REFUSED)


def test_undo_leaves_nothing(ctl):
    """What was configured counts again, with no word of the operator's left."""
    ctl("apply", "-f", "-", given=json.dumps(WEB))
    ctl("drain", "pool", "10.71.2.3:7700")
    assert ctl("drain", "pool", "10.71.2.3:7700", "--undo") == "10.71.2.3:7700 of pool: up\n"
    assert ctl.gateway.must("GET", "upstreams/pool/targets/10.71.2.3:7700")["override"] is None


def test_targets_and_their_trouble(ctl):
    """Whose target cannot be used is told by targets, status and explain, each with why."""
    ctl("apply", "-f", "-", given=json.dumps(WEB))
    assert "10.71.2.3:7700" in ctl("targets") and "[fd71:2::3]:7700" in ctl("targets", "pool")
    ctl("drain", "pool", "10.71.2.3:7700")
    lines = [line.split() for line in ctl("targets", "pool", code=ATTENTION).splitlines()]
    assert ["pool", "10.71.2.3:7700", "drain", "NO"] == next(line for line in lines if "10.71.2.3:7700" in line)[:4]
    assert len(ctl.json("targets", code=ATTENTION)) == len(WEB["upstreams"][0]["targets"])
    shown = ctl("explain", "tcp", "10.71.1.2", "10.71.2.9:7700")
    assert "10.71.2.3:7700: it is set to drain" in shown
    assert "port 7700," not in shown and "port 7700\n" in shown and "the client's own port" in shown and "port 0" not in shown
    ctl("drain", "pool", "[fd71:2::3]:7700", "--down")
    wait_for(lambda: "upstream    pool is down: 0 of 2 targets usable" in ctl("status", code=ATTENTION), 10, "told")
    ctl("targets", "none", code=REFUSED)


def test_paths_as_they_are_documented(ctl):
    """/status is /api/v1/status, and what lies beside that has its own address."""
    assert ctl.json("get", "/status")["ready"] == json.loads(ctl("get", "/api/v1/status"))["ready"]
    assert "gateway_ready 1" in ctl("get", "/metrics") and ctl("get", "/readyz")
    ctl("get", "/nothing", code=REFUSED)


def test_help_and_refusals_say_it_once(ctl):
    """help is a command too; a fault of the whole has no pointer to show; an interface that is not there is no empty table."""
    assert ctl("help") == ctl("--help") and ctl("help", "flows") == ctl("flows", "--help")
    ctl("rollback", "9999", "-y", code=REFUSED)
    assert ctl.said.count("There is no revision 9999") == 1
    ctl("ledger", "nope", code=REFUSED)


def test_bans(ctl):
    """Made with words and a time, shown with who did it, lifted; how long one may last is the API's to say."""
    for prefix in ("192.0.2.7", "2001:db8::/47"):
        ctl("ban", prefix, "--for", 30 * 86400, "--reason", "noise")
        heads, shown = ctl("get", "bans").splitlines()
        assert heads.split() == ["ADDRESS", "REASON", "ACTOR", "RATE_LIMIT", "PLACEMENT", "INTERFACES", "EXPIRES_AT"]
        assert shown.split()[:4] == [prefix, "noise", "uid", "0"]
        assert json.loads(ctl("get", "bans", prefix))["address"] == prefix
        ctl("ban", prefix, "--for", 30 * 86400 + 1, code=REFUSED)
        assert "/ban_s: 1 to 2592000 seconds" in ctl.said
        ctl("unban", prefix)
        ctl("unban", prefix, code=REFUSED)


def test_columns_are_fields(ctl):
    """Each column of a list is a field that the API's description of it has."""
    document = ctl.json("get", "/api/v1/openapi.json")

    def properties(schema):
        """Of the schema and of what it may be instead, with those of objects inside as "one.other"."""
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        found = set()
        for name, inner in schema.get("properties", {}).items():
            found |= {name} | {f"{name}.{deeper}" for deeper in properties(inner)}
        return found.union(*(properties(one) for one in schema.get("anyOf", [])))

    for resource in ("listeners", "upstreams", "address-sets", "rate-limits", "prefilters", "tokens", "revisions", "audit", "bans"):
        answer = document["paths"][f"/api/v1/{resource}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = document["components"]["schemas"][answer["$ref"].rpartition("/")[2]]
        fields = properties(whole["properties"]["items"]["items"])
        heads = ctl("get", resource).splitlines()[0].lower().split()
        assert len(heads) > 2 and set(heads) <= fields, resource


def test_flows_and_their_end(lab, ctl):
    """Flows as a table and as JSON; killed by filter, and by id."""
    lists = [["kill", "--client", lab.client.v4], ["kill"]]
    ctl("apply", "-f", "-", given=json.dumps({"listeners": [{"name": "held", "ports": ["7710"]}]}))
    with servers.Peer(lab.server, "10.71.2.2", 7710, lambda c, _a: c.sendall(b"hello")):
        for words in lists:
            with lab.client.connect("10.71.2.2", 7710) as connection:
                assert connection.recv(5) == b"hello"
                items = wait_for(lambda: ctl.json("flows", "--listener", "held")["items"], 5, "the flow")
                assert items[0]["id"] in ctl("flows", "--sort", "bytes") and "held" in ctl("flows")
                assert lab.client.v4 in ctl("flows", "--group", "client")
                heads, row = [line.split() for line in ctl("get", "flows").splitlines()]
                assert heads[:3] == ["ID", "PROTO", "CLIENT"] and row[0] == items[0]["id"] and "held" in row
                assert "held" in ctl("top", "--count", 1)
                if words == ["kill"]:
                    words = words + [items[0]["id"]]
                said = ctl("flows", *words)
                assert said == ("1 flow ended\n" if "--client" in words else ""), said
                with pytest.raises(ConnectionResetError):
                    connection.recv(5)
    ctl("flows", "kill", "0000000000000001", code=REFUSED)


def test_events(ctl):
    """What happens while one looks on, and from an event on."""
    process = subprocess.Popen(ctl.line("events", "--types", "revision", "-n", 2, "-o", "json"), stdout=subprocess.PIPE,
                               text=True)
    try:
        for number in range(200):
            ctl.gateway.must("PUT", "listeners/web", {"name": "web", "ports": [str(7000 + number)]})
            if process.poll() is not None:
                break
        first, second = [json.loads(line) for line in process.communicate(timeout=10)[0].splitlines()]
        assert process.returncode == OK
        assert first["type"] == "revision" and second["data"]["revision"] == first["data"]["revision"] + 1
        again = json.loads(ctl("events", "--types", "revision", "--after", first["id"], "-n", 1, "-o", "json"))
        assert again == second
    finally:
        process.kill()


def test_events_end_with_their_reader(ctl):
    """`gatewayctl events | head -1` is over when head is, not when something happens next."""
    process = subprocess.Popen(ctl.line("events", "--types", "revision"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        changed = iter(range(7000, 7200))

        def told():
            ctl.gateway.must("PUT", "listeners/web", {"name": "web", "ports": [str(next(changed))]})
            return select.select([process.stdout], [], [], 0.1)[0]
        wait_for(told, 10, "an event")
        assert process.stdout.readline()
        assert process.poll() is None
        process.stdout.close()
        process.wait(5)
        assert process.returncode == OK and not process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_control_characters_stay_away_from_the_terminal(ctl, tmp_path):
    """Escape codes in what a gateway says (a server name, say) are shown without them."""
    body = json.dumps({"items": [{"name": "a", "comment": "x\u001b[31my\u009bz"}], "next": None}).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen(1)

        def answer():
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                                   b"Connection: close\r\n\r\n" % len(body) + body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        done = subprocess.run([ctl.program, "get", "things", "--socket", str(tmp_path / "api.sock")],
                              capture_output=True, text=True, timeout=20)
        thread.join(5)
    assert done.returncode == OK, done.stderr
    assert "x?[31my?" in done.stdout and "\x1b" not in done.stdout and "\u009b" not in done.stdout


def test_support_bundle(ctl, tmp_path):
    """All parts are there, only the owner can read it, nothing is overwritten, and no secret is in it."""
    made = ctl.gateway.must("POST", "tokens", {"name": "helper", "role": "viewer"})
    bundle = tmp_path / "bundle.tar"
    ctl("support-bundle", bundle)
    assert bundle.stat().st_mode & 0o777 == 0o600
    ctl("support-bundle", bundle, code=USAGE)
    with tarfile.open(bundle) as archive:
        names = {member.name for member in archive}
        assert {"about.json", "status.json", "doctor.json", "config.json", "stats.json", "metrics.txt", "flows.json",
                "ruleset.txt", "revisions.json", "audit.json"} <= names
        assert json.load(archive.extractfile("status.json"))["ready"] is True
    everything = bundle.read_bytes()
    for secret in (made["token"], ctl.gateway.token()):
        assert secret.encode() not in everything
    ctl.gateway.api("DELETE", "tokens/helper")


def test_token_over_tcp(lab, ctl, tmp_path):
    """Over the network with a token from a file; without one it is refused with a hint."""
    file = tmp_path / "token"
    file.write_text(ctl.gateway.token() + "\n")
    base = lab.gateway.command(ctl.program, "status", "--url", "http://127.0.0.1:8080/")
    done = subprocess.run([*base, "--token-file", str(file)], capture_output=True, text=True, timeout=20)
    assert done.returncode == OK, done.stderr
    done = subprocess.run(base, capture_output=True, text=True, timeout=20)
    assert done.returncode == REFUSED and "--token-file" in done.stderr


def test_top_on_a_terminal(ctl):
    """It takes the terminal, ends with q, and gives it back."""
    control, terminal = pty.openpty()
    process = subprocess.Popen(ctl.line("top"), stdin=terminal, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    shown = b""
    try:
        while b"LISTENER" not in shown:
            shown += os.read(control, 4096)
        os.write(control, b"q")
        assert process.wait(20) == OK
        shown += os.read(control, 4096)
        assert shown.startswith(b"\x1b[?1049h") and b"\x1b[?1049l" in shown
    finally:
        process.kill()
        os.close(control)


def test_manual_and_completion_know_everything(ctl):
    """Each command and option of the program stands in the manual page, and completion offers it."""
    manual = MANUAL.read_text().replace("\\-", "-")
    commands = subprocess.run([ctl.program, "--complete"], capture_output=True, text=True, check=True).stdout.split()
    assert len(commands) == 19
    for command in commands:
        assert command in manual
        options = subprocess.run([ctl.program, "--complete", command], capture_output=True, text=True, check=True)
        for option in options.stdout.split():
            assert option in manual, f"{option} of {command}"
    script = Path(ROOT / "packaging" / "bash-completion" / "gatewayctl")
    done = subprocess.run(["bash", "-c", f"PATH={ctl.program.parent}:$PATH; . {script}; COMP_WORDS=(gatewayctl fl); "
                           "COMP_CWORD=1; _gatewayctl; echo ${COMPREPLY[@]}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["flows"]


@pytest.mark.parametrize("family, source, destination", [(4, "10.71.1.2", "10.71.2.3:7700"), (6, "fd71:1::2", "[fd71:2::3]:7700")])
def test_trace(ctl, family, source, destination):
    """Packets as they come, each with its steps, until there are as many as wanted."""
    ctl("apply", "-f", "-", given=json.dumps({"listeners": [{"name": "dns", "protocol": "udp", "ports": ["7700"]}]}))
    over = threading.Event()

    def send():
        with ctl.gateway.lab.client.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as made:
            while not over.wait(0.1):
                made.sendto(b"x", ("10.71.2.3" if family == 4 else "fd71:2::3", 7700))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        shown = ctl("trace", "udp", source, destination, "--count", "2")
        lines = ctl("trace", "udp", source, destination, "--count", "1", "-o", "json").splitlines()
    finally:
        over.set()
        thread.join()
    assert shown.count(": relay, listener dns") == 2 and "(listener dns)" in shown and "over: packets" in shown
    assert [json.loads(line)["verdict"] for line in lines] == ["relay"]
