"""gatewayd in the lab: started, asked over its API, killed, started again, stopped."""

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

from lab.netns import run
from lab.process import SANITIZER, Process, alive, wait_for

ROOT = Path(__file__).resolve().parents[2]
# The interception engine of all gateways that do not say theirs: nft or ebpf; "": as the settings say.
INTERCEPTION = os.environ.get("GW_INTERCEPTION", "")
_numbers = itertools.count()


class SanitizerReport(Exception):
    """The sanitizers found a fault in the gateway; the message is what they wrote."""


class Answer:
    """Answer to an API request; unpacks as (status, headers, document)."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        """The body as JSON; None if there is no body."""
        return json.loads(self.body) if self.body else None

    @property
    def text(self):
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def __iter__(self):
        kind = self.headers.get("Content-Type", "")
        return iter((self.status, self.headers, self.json if "json" in kind else self.text))

    def __repr__(self):
        return f"{self.status} {self.text[:2000]}"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, which can be reached from every network namespace."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Gateway:
    """One gatewayd, with a state of its own, in the gateway namespace of a lab.

    build: the CMake preset whose binaries run (environment LAB_BUILD, default dev).
    mover: auto, copy, splice or sockmap. bpf: a bpf file system of its own, so that the sockmap can be used (default:
    if it is the mover). relay: path of another relay program. args: further arguments.
    """

    def __init__(self, lab, build=None, mover=None, relay=None, args=(), listen="http://127.0.0.1:8080", start=True,
                 bpf=None):
        self.lab = lab
        self.binaries = ROOT / "build" / (build or os.environ.get("LAB_BUILD", "dev")) / "bin"
        self.name = f"gatewayd{next(_numbers)}"
        self.directory = lab.directory / self.name
        self.state = self.directory / "state"
        self.runtime = self.directory / "run"
        self.bpf = self.directory / "bpf"
        self.logs = self.directory / "logs"
        for path in (self.directory, self.state, self.runtime, self.bpf):
            path.mkdir()
        self.log = self.directory / "gatewayd.log"
        # A copy, because the relay's own user must be able to reach it (a clone may lie in /root), and so that
        # break_relay can replace it.
        self.relay = self.directory / "gateway-relay"
        shutil.copy(relay or self.binaries / "gateway-relay", self.relay)
        self.relay.chmod(0o755)
        self.listen, self.mover, self.args = listen, mover, list(args)
        self.process, self.counters_before = None, {}
        self.bpf_mounted = mover == "sockmap" if bpf is None else bpf
        if self.bpf_mounted:
            run("mount", "-t", "bpf", "bpf", self.bpf)
        if start:
            self.start_or_end()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(check=kind is None)

    @property
    def socket(self):
        """Path of the API's unix socket."""
        return self.runtime / "api.sock"

    def command(self, *more, program=None):
        """The daemon's command line; program: another one than that of the build."""
        line = [program or self.binaries / "gatewayd", "--state-dir", self.state, "--runtime-dir", self.runtime,
                "--log-dir", self.logs, "--listen",
                self.listen, "--relay", self.relay, "--bpf-dir", self.bpf / "gatewayd", "--log-level", os.environ.get("LAB_LOG_LEVEL", "info")]
        if self.mover:
            line += ["--mover", self.mover]
        if INTERCEPTION and "--interception" not in self.args:
            line += ["--interception", INTERCEPTION]
        return [*line, *self.args, *more]

    def environment(self):
        """The daemon's environment: sanitizers end the program at the first finding, with a report in the log."""
        return {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0", "UBSAN_OPTIONS": "print_stacktrace=1"}

    def start(self, ready=True, timeout=30):
        """Starts the daemon; waits until it is ready, unless told not to."""
        self.process = Process(self.lab.gateway.command(*self.command()), self.log, self.environment())
        self.lab.processes.append(self.process)
        if ready:
            self.wait_ready(timeout)
        return self

    def start_or_end(self):
        """Starts; a daemon that does not get ready is ended, for nobody else would."""
        try:
            self.start()
        except BaseException:
            self.process.kill()
            raise

    def wait_ready(self, timeout=30):
        """Waits until /readyz answers 200."""
        def ready():
            if not self.process.running():
                raise RuntimeError(f"gatewayd ended with {self.process.popen.returncode}:\n{self.tail()}")
            return self.api("GET", "/readyz").status == 200
        wait_for(ready, timeout, f"gatewayd ready\n{self.tail()}")

    def run_once(self, *args, timeout=60):
        """Runs the daemon with arguments that make it end (--check, --cleanup)."""
        done = self.lab.gateway.run(*self.command(*args), check=False, timeout=timeout, env=self.environment())
        if SANITIZER.search(done.stderr):
            raise SanitizerReport(done.stderr[:6000])
        return done

    def stop(self, seconds=15):
        """An orderly stop; returns the exit code."""
        return self.process.stop(seconds) if self.process else None

    def kill(self):
        """kill -9 of the daemon; the relay goes on by itself."""
        self.process.kill()

    def close(self, check=True):
        """Stops it, removes what it left in the kernel, and raises if a sanitizer found a fault."""
        relay = self.relay_pid_quietly()
        self.stop()
        if relay:
            end_process(relay)
        self.clean_up()
        if self.bpf_mounted:
            run("umount", self.bpf, check=False)
            self.bpf_mounted = False
        if check:
            self.check_sanitizers()

    def clean_up(self):
        """--cleanup by the program that does it at the least cost: a release build that is not older than ours."""
        quick = ROOT / "build" / "release" / "bin" / "gatewayd"
        if quick.exists() and quick.stat().st_mtime >= (self.binaries / "gatewayd").stat().st_mtime:
            self.lab.gateway.run(*self.command("--cleanup", program=quick), check=False)
        else:
            self.run_once("--cleanup")

    def check_sanitizers(self):
        """Raises SanitizerReport if one is in the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        match = SANITIZER.search(text)
        if match:
            raise SanitizerReport(text[max(0, match.start() - 500):match.start() + 6000])

    def tail(self, characters=4000):
        """The end of the daemon's log."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def token(self):
        """The first start's admin token."""
        return (self.state / "admin.token").read_text().strip()

    def api(self, method, path, body=None, headers=None, timeout=30):
        """One request over the unix socket. body: a JSON document, or bytes to be sent as they are.

        Paths that do not start with / or that name a resource are taken below /api/v1."""
        if not path.startswith(("/api/", "/healthz", "/readyz", "/metrics", "/openapi")) and path != "/":
            path = "/api/v1/" + path.lstrip("/")
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None and not any(k.lower() == "content-type" for k in headers):
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def must(self, method, path, body=None, **options):
        """The document of a request that has to succeed."""
        answer = self.api(method, path, body, **options)
        if answer.status >= 300:
            raise AssertionError(f"{method} {path} {body}: {answer}")
        return answer.json if answer.body else None

    def listener(self, name, **fields):
        """Creates or replaces a listener."""
        return self.must("PUT", f"listeners/{name}", {"name": name, **fields})

    def upstream(self, name, targets, **fields):
        """Creates or replaces an upstream; targets are (address, port) pairs or whole objects."""
        whole = [t if isinstance(t, dict) else {"address": t[0], "port": t[1]} for t in targets]
        return self.must("PUT", f"upstreams/{name}", {"name": name, "targets": whole, **fields})

    def delete(self, resource, name):
        """Deletes a listener or an upstream."""
        return self.must("DELETE", f"{resource}/{name}")

    def status(self):
        """The document of GET /status."""
        return self.must("GET", "status")

    def counters(self):
        """The relay's counters since this gateway was given to the test."""
        now = self.status()["relay"]["counters"]
        return {name: value - self.counters_before.get(name, 0) for name, value in now.items()}

    def relay_pid(self):
        """Process id of the relay as the status has it; 0 or None while there is none."""
        return self.status()["relay"]["pid"]

    def relay_pid_quietly(self):
        """The same, None if the daemon does not answer."""
        try:
            return self.relay_pid()
        except Exception:
            return None

    def kill_relay(self, number=signal.SIGKILL):
        """Sends the relay a signal; returns its process id."""
        pid = self.relay_pid()
        os.kill(pid, number)
        return pid

    def sockmap(self, seconds=35):
        """(state, why) of the sockmap mover, once the daemon has tried it."""
        def tried():
            found = self.status()["relay"]["movers"]["sockmap"]
            return found if found["state"] != "testing" else None
        found = wait_for(tried, seconds, "the check of the sockmap")
        return found["state"], found.get("why")

    def wait_relay(self, not_pid, seconds=10):
        """Waits for a relay other than that of the given id that has the configuration; returns its id."""
        def found():
            pid = self.relay_pid()
            return pid if pid and pid != not_pid and alive(pid) and self.api("GET", "/readyz").status == 200 else 0
        return wait_for(found, seconds, "a new relay", interval=0.005)

    def break_relay(self):
        """From now on the relay ends at once when it is started; the running one is killed."""
        broken = self.directory / "broken"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        os.rename(self.relay, self.directory / "whole")
        os.rename(broken, self.relay)
        pid = self.kill_relay()
        wait_for(lambda: not alive(pid), 5, "the relay's death")
        return pid

    def mend_relay(self):
        """Undoes break_relay."""
        os.rename(self.directory / "whole", self.relay)


def end_process(pid, seconds=5):
    """SIGTERM to a process that is not our child, and SIGKILL if it stays."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not alive(pid):
            return
