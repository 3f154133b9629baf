"""A Debian 12 of its own, with systemd, as the gateway of the lab.

The root is made by mmdebstrap from this machine's package sources (kept in build/deb/base.tar) and unpacked anew for
each run; systemd-nspawn boots it in the lab's gateway namespace. What is to be installed in it is fetched before, so
that installing needs no network. The machine's kernel is shared: nothing here says anything about a boot of its own.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from lab.netns import run
from lab.process import Process, wait_for

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/deb"
BASE = WORK / "base.tar"
# Fetched packages, kept between runs.
ARCHIVES = WORK / "archives"
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")
CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON,CAP_SYS_RESOURCE"
# Those that systemd-nspawn does not allow by itself.
CALLS = "bpf perf_event_open landlock_create_ruleset landlock_restrict_self"
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
# What the tests use in the machine, besides our packages.
TOOLS = ("autopkgtest", "curl", "dpkg-dev", "jq", "procps")


class Failed(SystemExit):
    """Something in the machine went wrong; the message says what."""


def make_base():
    """The archive of a minimal Debian 12 that can boot; made once."""
    if BASE.exists():
        return
    print("-- making a Debian 12", flush=True)
    sources = [path for path in SOURCES if os.path.exists(path)]
    partial = BASE.with_suffix(".partial.tar")
    run("mmdebstrap", "--variant=minbase", "--include=systemd-sysv,dbus,ca-certificates", "bookworm", partial, *sources,
        timeout=1800)
    partial.rename(BASE)


class Machine:
    """A booted root in the lab's gateway namespace. packages: directory in the root -> files to be put there."""

    def __init__(self, lab, packages):
        self.lab, self.directory = lab, WORK / "root"
        self.process = self.leader = None
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        (ARCHIVES / "partial").mkdir(parents=True, exist_ok=True)
        run("tar", "-C", self.directory, "-xf", BASE, timeout=300)
        for name, files in packages.items():
            (self.directory / name).mkdir(parents=True)
            for path in files:
                shutil.copy(path, self.directory / name)
        self._fetch(list(packages)[-1])

    def _nspawn(self, *more):
        return ["systemd-nspawn", "-q", "-D", self.directory, "--register=no", "--keep-unit",
                f"--bind={ARCHIVES}:/var/cache/apt/archives", *more]

    def _fetch(self, newest):
        """What the packages and the tests depend on."""
        command = ("apt-get -qq update && apt-get -qq install -y --no-install-recommends --download-only "
                   f"/{newest}/*.deb {' '.join(TOOLS)}")
        # Without a copy of this machine's settings the root would have no name server.
        run(*self._nspawn("--pipe", "--resolv-conf=copy-host", "sh", "-c", command), timeout=1200)

    def boot(self):
        """Boots; returns when systemd says that everything is started."""
        command = self._nspawn("--boot", f"--network-namespace-path=/run/netns/{self.lab.gateway.name}",
                               f"--capability={CAPABILITIES}", f"--system-call-filter={CALLS}",
                               "systemd.unit=multi-user.target")
        self.process = Process(command, WORK / "machine.log")
        self.lab.processes.append(self.process)
        self.leader = wait_for(self._leader, 30, "the machine's first process")
        wait_for(lambda: self.call("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 300,
                 "the machine's start", interval=0.2)
        # As on a machine of its own, where systemd has it mounted.
        self.sh("mount -t bpf bpf /sys/fs/bpf")

    def _leader(self):
        """systemd-nspawn has another child before, which ends; 0 while there is none."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        children = [int(child) for child in Path(path).read_text().split()]
        return next((child for child in children if Path(f"/proc/{child}/comm").read_text() == "systemd\n"), 0)

    def call(self, script, timeout=600):
        """Runs a shell script in the machine; what came of it."""
        command = ["nsenter", "-t", self.leader, "-a", "env", "-i", PATH, "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8",
                   "sh", "-c", script]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, check=False)

    def sh(self, script):
        """Its output; Failed if it ends badly."""
        done = self.call(script)
        if done.returncode:
            raise Failed(f"FAILED: {script}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n"
                         + self.journal("gatewayd"))
        return done.stdout

    def journal(self, unit):
        """The end of a unit's log."""
        return self.call(f"journalctl -u {unit} -n 60 --no-pager -o cat").stdout

    def install(self, which):
        """apt install of both packages, from what was fetched."""
        self.sh(f"apt-get -qq install -y --no-install-recommends /{which}/*.deb")

    def status(self):
        """The daemon's status."""
        return json.loads(self.sh("gatewayctl get /api/v1/status -o json"))

    def shown(self, unit, *properties):
        """Properties of a unit, in this order."""
        found = self.sh(f"systemctl show {unit} {' '.join(f'-p {name}' for name in properties)}")
        values = dict(line.split("=", 1) for line in found.splitlines())
        return [values[name] for name in properties]

    def rights(self, pid):
        """Lines of a process's status, by their names."""
        lines = self.sh(f"cat /proc/{pid}/status").splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def alive(self, pid):
        """Whether there is such a process that is not dead."""
        return self.call(f"grep -q 'State:.[^Z]' /proc/{pid}/status").returncode == 0

    def provision(self, document):
        """Writes the file of the first configuration; text, or a document."""
        path = self.directory / "etc/gatewayd/provision.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))

    def put_source(self):
        """A source tree in /source with what autopkgtest reads."""
        shutil.copytree(ROOT / "packaging/debian", self.directory / "source/debian")

    def halt(self):
        """Ends the machine."""
        self.call("systemctl poweroff --no-block")
        wait_for(lambda: not self.process.running(), 60, "the machine's end")
