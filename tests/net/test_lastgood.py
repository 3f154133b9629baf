"""The last good configuration beside the database: from it the gateway goes on when the database is lost or refused."""

import time

LISTENER = {"name": "web", "destinations": ["10.9.0.0/24"], "ports": ["80"]}


def write_and_stop(gateway):
    """One listener and one upstream, and an orderly stop; the revision."""
    assert gateway.api("POST", "/api/v1/upstreams", {"name": "pool", "targets": [{"address": "10.9.0.1"}]}).status == 201
    assert gateway.api("POST", "/api/v1/listeners", {**LISTENER, "upstream": "pool"}).status == 201
    gateway.stop()
    return 2


def damage(path):
    """Spoils the file's pages, and takes its journal away."""
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def test_a_lost_database(lab, make_gateway):
    """Without the file the gateway makes it anew and serves what it served."""
    gateway = make_gateway()
    revision = write_and_stop(gateway)
    for path in gateway.state.glob("gateway.db*"):
        path.unlink()
    gateway.start()
    status = gateway.api("GET", "/api/v1/status").json
    assert status["revision"] == revision and status["ready"]
    assert gateway.api("GET", "/api/v1/listeners/web").json["upstream"] == "pool"
    assert "10.9.0.0 . 80" in gateway.api("GET", "/api/v1/ruleset").text
    # And it goes on from there.
    assert gateway.api("DELETE", "/api/v1/listeners/web").status == 204


def test_a_refused_database(lab, make_gateway):
    """A damaged file is refused and kept; the last good revision is offered, and taken when asked for."""
    gateway = make_gateway()
    write_and_stop(gateway)
    damage(gateway.state / "gateway.db")
    before = (gateway.state / "gateway.db").read_bytes()
    refused = gateway.run_once("--check")
    assert refused.returncode != 0
    assert "last good configuration is revision 2" in refused.stderr and "--restore" in refused.stderr
    assert (gateway.state / "gateway.db").read_bytes() == before
    assert gateway.run_once("--restore", "--check").returncode != 0
    gateway.args.append("--restore")
    gateway.start()
    assert gateway.api("GET", "/api/v1/listeners/web").status == 200
    kept = [path for path in gateway.state.glob("gateway.db.refused-*") if path.suffix[-4:] not in ("-wal", "-shm")]
    assert len(kept) == 1 and kept[0].read_bytes() == before


def test_it_is_written_while_the_daemon_runs(lab, make_gateway):
    """A daemon that is killed leaves what was in force a second before."""
    gateway = make_gateway()
    assert gateway.api("POST", "/api/v1/listeners", LISTENER).status == 201
    time.sleep(2.5)
    gateway.kill()
    for path in gateway.state.glob("gateway.db*"):
        path.unlink()
    gateway.start()
    assert gateway.api("GET", "/api/v1/listeners/web").status == 200
