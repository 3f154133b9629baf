"""Faults with real causes, in the midst of a write: the write is refused with words, every plane stays what it was, the
gateway goes on relaying, and recovers without anybody's help."""

import os
import signal
import sqlite3
import threading
import time

import pytest

from lab import kernel, servers
from lab.netns import run
from lab.process import alive, rss_kib, wait_for
from net.control import desired, expect_kernel_as_desired, expect_sound, redirect, target_of, timed


class Before:
    """Everything a refused write must leave alone."""

    def __init__(self, lab, gateway):
        self.lab, self.gateway = lab, gateway
        self.config, self.revision = gateway.must("GET", "config"), gateway.status()["revision"]
        self.table, self.routing = kernel.our_table(lab.gateway), kernel.routing(lab.gateway)

    def expect(self, gate=False):
        """It is all the same now; `gate`: but for the way past a relay that is being restarted."""
        assert self.gateway.must("GET", "config") == self.config
        assert self.gateway.status()["revision"] == self.revision
        table = [o for o in kernel.our_table(self.lab.gateway) if not (gate and '"rule": {"chain": "direct_gate"' in o)]
        assert table == self.table
        assert kernel.routing(self.lab.gateway) == self.routing


def expect_unavailable(answer, *words):
    """503 as a problem document whose words name the cause."""
    assert answer.status == 503, answer
    assert "problem+json" in answer.headers["Content-Type"]
    for word in words:
        assert word in answer.text, answer


FILES = ("gateway.db", "gateway.db-wal", "gateway.db-shm")
WRITES = [
    ("PUT", "listeners/more", {"name": "more", "ports": ["8001"], "upstream": "second"}),
    ("DELETE", "listeners/web", None),
    ("POST", "transactions", [{"method": "PUT", "path": "/listeners/more", "body": {"ports": ["8001"]}},
                              {"method": "DELETE", "path": "/upstreams/second"}]),
    ("POST", "revisions/1/rollback", None),
]


@pytest.mark.parametrize("method, path, body", WRITES, ids=lambda v: v if isinstance(v, str) and "/" in v else "")
def test_the_relay_hangs(lab, nginx, gateway, figure, method, path, body):
    """SIGSTOP of the relay in front of a write: 503, all as before, a new relay, the write works then."""
    redirect(gateway)
    before = Before(lab, gateway)
    old = gateway.relay_pid()
    os.kill(old, signal.SIGSTOP)
    try:
        answer, seconds = timed(lambda: gateway.api(method, path, body))
        figure("answered after, s", f"{seconds:.1f}")
        expect_unavailable(answer, "relay")
        before.expect(gate=True)
    finally:
        if alive(old):
            os.kill(old, signal.SIGCONT)
    gateway.wait_relay(old)
    assert not alive(old), "the relay that hung is ended"
    wait_for(lambda: kernel.our_table(lab.gateway) == before.table, 3, "the gate to be closed again")
    assert target_of(lab) == "10.71.2.3"
    answer = gateway.api(method, path, body)
    assert answer.status < 300, answer
    expect_kernel_as_desired(lab, gateway)
    expect_sound(gateway)


def test_the_relay_hangs_and_is_not_asked(lab, nginx, gateway):
    """What is nothing to the relay is written although it hangs; what is one to it builds upon that, also a way back."""
    redirect(gateway)
    relay = gateway.relay_pid()
    os.kill(relay, signal.SIGSTOP)
    try:
        for name in ("some", "others"):
            gateway.must("PUT", f"address-sets/{name}", {"entries": ["192.0.2.0/24"]})
        applied = gateway.status()["applied"]
        assert applied["relay"] == applied["nft"] == gateway.status()["revision"], applied
    finally:
        os.kill(relay, signal.SIGCONT)
    gateway.must("PUT", "listeners/web", gateway.must("GET", "listeners/web") | {"upstream": "second"})
    assert target_of(lab) == "10.71.2.4"
    gateway.must("DELETE", "address-sets/some")
    gateway.must("POST", f"revisions/{gateway.status()['revision'] - 2}/rollback")
    assert target_of(lab) == "10.71.2.3"
    assert gateway.relay_pid() == relay
    expect_kernel_as_desired(lab, gateway)
    expect_sound(gateway)


def test_the_relay_dies_during_writes(lab, nginx, gateway):
    """kill -9 of the relay fifty times while writes go on: each is in force or refused, and all planes agree."""
    redirect(gateway)
    wanted, stop = {}, threading.Event()

    def kill():
        while not stop.is_set():
            time.sleep(0.03)
            pid = gateway.relay_pid_quietly()
            if pid:
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        for number in range(150):
            name = f"l{number % 20}"
            answer = gateway.api("PUT", f"listeners/{name}", {"name": name, "ports": [str(20000 + number)]})
            assert answer.status in (200, 201, 503), answer
            if answer.status < 300:
                wanted[name] = [str(20000 + number)]
    finally:
        stop.set()
        killer.join()
    assert len(wanted) == 20
    wait_for(lambda: gateway.status()["ready"], 15, "readiness")
    found = {l["name"]: l["ports"] for l in gateway.must("GET", "config")["listeners"] if l["name"] != "web"}
    assert found == wanted
    expect_kernel_as_desired(lab, gateway)
    assert target_of(lab) == "10.71.2.3"
    for number in range(20):
        port = int(wanted[f"l{number}"][0])
        with servers.Peer(lab.server, "10.71.2.2", port, lambda c, _a: c.sendall(b"hello")):
            with lab.client.connect("10.71.2.2", port, timeout=5) as connection:
                assert connection.recv(10) == b"hello"
                sockets = lab.gateway.run("ss", "-Htn", f"dport = :{port}").stdout
                assert "10.71.1.2" in sockets, "not relayed"


def test_a_relay_that_cannot_start(lab, nginx, gateway):
    """With no relay at all writes still work: they wait for it in the kernel, and hold when it comes."""
    redirect(gateway)
    pid = gateway.break_relay()
    answer = gateway.api("PATCH", "listeners/web", {"upstream": "second"})
    assert answer.status in (200, 503), answer
    assert gateway.api("GET", "/readyz").status == 503
    gateway.mend_relay()
    gateway.wait_relay(pid, 20)
    assert target_of(lab) == ("10.71.2.4" if answer.status == 200 else "10.71.2.3")


def test_nft_refuses(lab, nginx, gateway):
    """The kernel says no in the very transaction: a set of the new shape's name is there, with another type, put there
    faster than it is healed. Refused whole, or healed and in force whole; never half."""
    redirect(gateway)
    refused = 0
    for number in range(40):
        body = {"name": "shape", "ports": [f"{30000 + number}-{30010 + number}"], "destinations": ["10.71.2.0/24"],
                "upstream": "second"}
        wanted = gateway.api("PUT", "listeners/shape?dry_run=true", body).json["nft"]
        names = [line.split()[4] for line in wanted.splitlines() if line.startswith("add set inet gatewayd")]
        assert names or "shape" in str(gateway.must("GET", "listeners")), wanted
        name = names[0] if names else "none"
        lab.gateway.run("nft", f"add set inet gatewayd {name} {{ type inet_service ; }}", check=False)
        answer = gateway.api("PUT", "listeners/shape", body)
        assert answer.status in (200, 201, 422, 503), answer
        refused += answer.status >= 400
        there = gateway.api("GET", "listeners/shape").status
        assert there == (200 if answer.status < 300 else 404)
        if answer.status < 300:
            gateway.delete("listeners", "shape")
        wait_for(lambda: desired(lab, gateway) == kernel.our_table(lab.gateway), 3, "the kernel as desired")
    # A refusal that somebody else's hand has caused is put right and tried once more.
    assert refused or "is tried once more" in gateway.log.read_text(), "the kernel never refused: the trap is not set"
    assert target_of(lab) == "10.71.2.3"


def test_too_large(lab, nginx, gateway, figure):
    """The lists of one listener multiply to two hundred and fifty thousand elements: in force, or refused with words that
    name the limit; in bounded memory, and never half."""
    redirect(gateway)
    before = Before(lab, gateway)
    body = {"ports": [str(p) for p in range(10000, 10064)], "destinations": [f"10.1.{i}.0/24" for i in range(64)],
            "sources": [f"192.168.{i}.0/24" for i in range(64)]}
    answer, seconds = timed(lambda: gateway.api("PUT", "listeners/huge", body, timeout=100))
    figure("answer, seconds, RSS of the daemon in MiB",
           f"{answer.status}, {seconds:.1f}, {rss_kib(gateway.process.pid) // 1024}")
    if answer.status == 201:
        expect_kernel_as_desired(lab, gateway)
    else:
        assert answer.status in (413, 422, 503), answer
        before.expect()
    assert target_of(lab) == "10.71.2.3"


@pytest.fixture
def tmpfs_gateway(lab, make_gateway, tmp_path):
    """A gateway whose state lies in a file system of its own, of a few MiB; (gateway, mount point)."""
    gateway = make_gateway(start=False)
    run("mount", "-t", "tmpfs", "-o", "size=3m", "gwstate", gateway.state)
    try:
        gateway.start()
        yield gateway
    finally:
        run("mount", "-o", "remount,rw,size=64m", gateway.state, check=False)
        gateway.stop()
        run("umount", "-l", gateway.state, check=False)


def fill(directory):
    """Takes every free byte."""
    with open(directory / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def write_until_refused(gateway, n=400):
    """Writes until one is not acknowledged; (the refusal or None, ports of what was acknowledged)."""
    wanted = {}
    for number in range(n):
        body = {"name": f"l{number % 50}", "ports": [str(20000 + number)], "comment": "x" * 200}
        answer = gateway.api("PUT", f"listeners/{body['name']}", body)
        if answer.status >= 300:
            return answer, wanted
        wanted[body["name"]] = body["ports"]
    return None, wanted


def expect_listeners(gateway, wanted):
    """Exactly the acknowledged ones beside web."""
    found = {l["name"]: l["ports"] for l in gateway.must("GET", "config")["listeners"] if l["name"] != "web"}
    assert found == wanted


def test_disk_full(lab, nginx, tmpfs_gateway, figure):
    """503 with the reason; what was acknowledged stays, traffic goes on; with room again writes work by themselves."""
    gateway = tmpfs_gateway
    redirect(gateway)
    fill(gateway.state)
    refusal, wanted = write_until_refused(gateway)
    assert refusal, "the disk is not full"
    figure("acknowledged before the disk was full", len(wanted))
    figure("the words", refusal.json["detail"] + " " + str(refusal.json.get("errors")))
    expect_unavailable(refusal, "full")
    expect_listeners(gateway, wanted)
    expect_kernel_as_desired(lab, gateway)
    assert target_of(lab) == "10.71.2.3"
    assert gateway.api("GET", "/healthz").status == 200
    for _ in range(20):
        assert gateway.api("PUT", "listeners/again", {"name": "again", "ports": ["9"], "comment": "y" * 250}).status == 503
    os.unlink(gateway.state / "ballast")
    answer = gateway.api("PUT", "listeners/l0", {"name": "l0", "ports": ["19999"]})
    assert answer.status < 300, answer
    wanted["l0"] = ["19999"]
    expect_sound(gateway)
    gateway.kill()
    gateway.start()
    expect_listeners(gateway, wanted)
    expect_kernel_as_desired(lab, gateway)
    assert target_of(lab) == "10.71.2.3"


def test_killed_with_a_full_disk(lab, nginx, tmpfs_gateway):
    """kill -9 while the disk is full, and a start on it: the gateway serves what was stored."""
    gateway = tmpfs_gateway
    redirect(gateway)
    fill(gateway.state)
    _, wanted = write_until_refused(gateway)
    gateway.kill()
    assert target_of(lab) == "10.71.2.3"
    gateway.start()
    expect_listeners(gateway, wanted)
    assert target_of(lab) == "10.71.2.3"
    os.unlink(gateway.state / "ballast")
    assert gateway.api("PUT", "listeners/more", {"name": "more", "ports": ["8001"]}).status == 201


def mount_ext4(directory, place, *options):
    """A file system of its own for a state directory; skips where that cannot be."""
    image = directory / "state.img"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    if run("mkfs.ext4", "-q", "-F", image, check=False).returncode:
        pytest.skip("mkfs.ext4 does not work here")
    if run("mount", "-o", ",".join(["loop", *options]), image, place, check=False).returncode:
        pytest.skip("no loop devices here")


def test_read_only_file_system(lab, nginx, make_gateway, tmp_path, figure):
    """ext4 whose emergency remount does what a failing disk does, read-only with files open: 503, and all goes on."""
    gateway = make_gateway(start=False)
    mount_ext4(tmp_path, gateway.state, "errors=remount-ro")
    try:
        gateway.start()
        redirect(gateway)
        before = Before(lab, gateway)
        if run("mount", "-o", "remount,abort", gateway.state, check=False).returncode:
            pytest.skip("no remount,abort here")
        answer = gateway.api(*WRITES[0])
        figure("the words", answer.text)
        expect_unavailable(answer)
        before.expect()
        assert target_of(lab) == "10.71.2.3"
    finally:
        gateway.stop()
        run("umount", "-l", gateway.state, check=False)


def test_files_that_may_not_be_written(lab, nginx, make_gateway, tmp_path, figure):
    """A file system that refuses every write to the open files, and takes them again later, as one that was remounted
    read-only does: 503 with words, all stays, and writes work again by themselves."""
    gateway = make_gateway(start=False)
    mount_ext4(tmp_path, gateway.state)
    files = [gateway.state / name for name in FILES]
    try:
        gateway.start()
        redirect(gateway)
        before = Before(lab, gateway)
        if run("chattr", "+i", *files, check=False).returncode:
            pytest.skip("no immutable files here")
        for method, path, body in WRITES:
            answer = gateway.api(method, path, body)
            expect_unavailable(answer, "database")
        figure("the words", answer.json["detail"] + " " + str(answer.json.get("errors")))
        before.expect()
        assert target_of(lab) == "10.71.2.3"
        assert gateway.api("GET", "/healthz").status == 200
        run("chattr", "-i", *files)
        assert gateway.api(*WRITES[0]).status == 201
        assert target_of(lab, port=8001) == "10.71.2.4"
        gateway.kill()
        gateway.start()
        assert gateway.api("GET", "listeners/more").status == 200
        expect_sound(gateway)
    finally:
        run("chattr", "-i", *files, check=False)
        gateway.stop()
        run("umount", "-l", gateway.state, check=False)


@pytest.mark.parametrize("mode", ["EXCLUSIVE", "IMMEDIATE"])
def test_database_locked(lab, nginx, gateway, figure, mode):
    """Somebody holds the database with sqlite3: 503 that says so, soon; reads and traffic go on; then it works."""
    redirect(gateway)
    before = Before(lab, gateway)
    other = sqlite3.connect(gateway.state / "gateway.db", isolation_level=None)
    other.execute(f"BEGIN {mode}")
    try:
        for method, path, body in WRITES:
            answer, seconds = timed(lambda m=method, p=path, b=body: gateway.api(m, p, b))
            expect_unavailable(answer, "locked")
            figure("refused after, s", f"{seconds:.2f}")
        before.expect()
        assert target_of(lab) == "10.71.2.3"
        assert gateway.api("GET", "/healthz").status == 200
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert gateway.api(*WRITES[0]).status == 201
    assert target_of(lab, port=8001) == "10.71.2.4"
    expect_sound(gateway)


def test_start_with_a_locked_database(lab, nginx, gateway):
    """A start while somebody holds the database: it waits or ends with words, and the traffic goes on."""
    redirect(gateway)
    gateway.kill()
    other = sqlite3.connect(gateway.state / "gateway.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        gateway.start(ready=False)
        time.sleep(2)
        assert target_of(lab) == "10.71.2.3"
        if gateway.process.running():
            pass
        else:
            assert "locked" in gateway.tail(), gateway.tail()
    finally:
        other.execute("ROLLBACK")
        other.close()
    if not gateway.process.running():
        gateway.start(ready=False)
    gateway.wait_ready()
    assert target_of(lab) == "10.71.2.3"


def test_a_deadline_on_a_locked_database(lab, nginx, gateway):
    """The time of a change that waits is over while the database is locked: it is taken back when that is possible."""
    redirect(gateway)
    base = gateway.status()["revision"]
    assert gateway.api("PATCH", "listeners/web?confirm_within=5", {"upstream": "second"}).status == 200
    other = sqlite3.connect(gateway.state / "gateway.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        time.sleep(7)
        assert gateway.status()["revision"] == base + 1
        assert gateway.api("POST", f"revisions/{base + 1}/confirm").status == 503
        assert target_of(lab) == "10.71.2.4"
    finally:
        other.execute("ROLLBACK")
        other.close()
    wait_for(lambda: gateway.status()["revision"] == base + 2, 10, "the way back")
    assert target_of(lab) == "10.71.2.3"
    assert gateway.status()["pending"] is None


@pytest.mark.parametrize("deleted", [FILES, FILES[:1], FILES[1:2]], ids=["all", "file", "log"])
@pytest.mark.parametrize("write", [True, False], ids=["write", "no write"])
def test_the_database_is_deleted(lab, nginx, gateway, deleted, write):
    """rm of the database, or of its log, under the running daemon: it is written anew, with everything acknowledged, the
    history and what comes after it; at the next write, or without one within a second or two."""
    redirect(gateway)
    history, inode = gateway.must("GET", "revisions")["items"], (gateway.state / FILES[0]).stat().st_ino
    for name in deleted:
        (gateway.state / name).unlink(missing_ok=True)
    if write:
        assert gateway.api(*WRITES[0]).status == 201
    else:
        wait_for(lambda: (gateway.state / FILES[0]).stat().st_ino != inode, 5, "another file")
    assert target_of(lab) == "10.71.2.3"
    gateway.kill()
    gateway.start()
    assert target_of(lab) == "10.71.2.3"
    assert gateway.api("GET", "listeners/more").status == (200 if write else 404)
    assert [r for r in gateway.must("GET", "revisions")["items"] if r in history] == history
    expect_sound(gateway)


def test_the_database_is_replaced(lab, nginx, gateway):
    """Another file in its place is not overwritten: writes are refused with words, traffic goes on, a restart loads it."""
    redirect(gateway)
    copy = gateway.state / "copy"
    copy.write_bytes(gateway.api("GET", "backup").body)
    gateway.must("PATCH", "listeners/web", {"comment": "after the copy"})
    copy.rename(gateway.state / "gateway.db")
    before = (gateway.state / "gateway.db").read_bytes()
    answer = gateway.api(*WRITES[0])
    assert answer.status == 503
    assert "another file" in answer.text and "restart" in answer.text
    assert gateway.api("GET", "listeners/more").status == 404
    assert target_of(lab) == "10.71.2.3"
    assert (gateway.state / "gateway.db").read_bytes() == before
    gateway.kill()
    for name in FILES[1:]:
        (gateway.state / name).unlink(missing_ok=True)
    gateway.start()
    assert gateway.must("GET", "listeners/web")["comment"] == ""
    assert gateway.api(*WRITES[0]).status == 201


def test_routing_cannot_be_changed(lab, nginx, gateway):
    """A rule of theirs at our priority: writes go on to work."""
    redirect(gateway)
    lab.gateway.run("ip", "rule", "add", "pref", "101", "from", "192.0.2.1", "lookup", "main")
    try:
        assert gateway.api(*WRITES[0]).status == 201
        assert target_of(lab, port=8001) == "10.71.2.4"
        assert "192.0.2.1" in lab.gateway.run("ip", "rule").stdout, "foreign rules are left alone"
    finally:
        lab.gateway.run("ip", "rule", "del", "pref", "101", "from", "192.0.2.1", check=False)
