"""./dev image --test: the appliance image boots, serves, relays, updates itself and leaves a bad update.

One machine, software emulation, five starts:

1. from slot a, set up by a configuration drive: web UI, relay from client to server seen from both, daemon and relay
   started anew and killed under AppArmor, journal and logrotate, the console's questions asked and answered;
2. a spoilt update in slot b (its daemon ends at once) is tried, and the machine restarts by itself;
3. slot a again, which says so, with its configuration, started in the right order, and relays;
4. a good update in slot b is tried, found healthy and stays; it relays;
5. the entry of the menu that is for repairs: a shell, no gateway, nothing forwarded.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).resolve().parent)]
os.environ.setdefault("LAB_SLOWNESS", "10")

from lab.netns import run  # noqa: E402
from lab.process import wait_for  # noqa: E402
from lab.servers import Nginx  # noqa: E402
from lab.topology import Lab  # noqa: E402
from machine import FIRMWARE_STATE, Failed, Machine, tap  # noqa: E402

IMAGE = ROOT / "build/image"
WORK = IMAGE / "test"
CARDS = {"in": "52:54:00:71:00:01", "out": "52:54:00:71:00:02"}
PASSWORD = "a-password-for-the-test"
DISK_GIB = 4
PORT = 8000
API = "https://10.71.1.1:8443"
LISTENER = {"name": "web", "ports": [str(PORT)]}
DATAGRAMS = {"name": "datagrams", "protocol": "udp", "ports": ["7720"]}
# Whether the same relay is there afterwards.
LIFE = (("systemctl restart gatewayd", True), ("systemctl reload gatewayd", False), ("kill -9 $(pidof gateway-relay)", False),
        ("kill -9 $(pidof gatewayd)", True))
# What has to be through before the next begins.
ORDER = ("nftables.service", "gatewayd-early.service", "systemd-sysctl.service", "gatewayd.service",
         "systemd-networkd.service", "network-online.target")
# More than the log takes of one message in its window, which is 10 s.
CHANGES = 120
SERVERS = {"v4": f"http://10.71.2.2:{PORT}/whoami", "v6": f"http://[fd71:2::2]:{PORT}/whoami"}


class Room(Lab):
    """Client and server as in the lab, each at the end of a cable to the appliance, which is .1 and ::1 of both."""

    def _build(self, client2, hop):
        self.client, self.server = self._host("cl"), self._host("sv")
        self.cards = [(self._tap(self.client, 1), CARDS["in"]), (self._tap(self.server, 2), CARDS["out"])]

    def _tap(self, host, number):
        descriptor = tap(host, "up0")
        host.v4, host.v6 = f"10.71.{number}.2", f"fd71:{number}::2"
        host.run("ip", "addr", "add", f"{host.v4}/24", "dev", "up0")
        host.run("ip", "addr", "add", f"{host.v6}/64", "dev", "up0", "nodad")
        host.run("ip", "link", "set", "up0", "up")
        host.run("ip", "route", "add", "default", "via", f"10.71.{number}.1")
        host.run("ip", "-6", "route", "add", "default", "via", f"fd71:{number}::1")
        return descriptor


def make_drive(path):
    """The drive that a new appliance takes its settings from."""
    files = path.parent / "drive"
    (files / "network").mkdir(parents=True)
    for number, (name, address) in enumerate(CARDS.items(), 1):
        (files / f"network/10-{name}.network").write_text(
            f"[Match]\nMACAddress={address}\n\n[Network]\nAddress=10.71.{number}.1/24\nAddress=fd71:{number}::1/64\n"
            "IPv6AcceptRA=no\n")
    (files / "hostname").write_text("gateway-in-test\n")
    (files / "password-hash").write_text(run("openssl", "passwd", "-6", PASSWORD).stdout)
    (files / "gatewayd.conf").write_text(f"listen = {API}\n")
    run("truncate", "-s", "4M", path)
    run("/sbin/mkfs.vfat", "-n", "GATEWAYD", path)
    run("mcopy", "-s", "-i", path, *sorted(files.iterdir()), "::")


def other_version(update, path, version):
    """The same update under another version, which is all that its manifest says of it."""
    parts = path.parent / "parts"
    parts.mkdir()
    run("tar", "-C", parts, "-xf", update)
    manifest = (parts / "manifest").read_text()
    (parts / "manifest").write_text(re.sub(r"(?m)^version .*$", f"version {version}", manifest))
    run("tar", "-C", parts, "--format=ustar", "-cf", path, "manifest", "vmlinuz", "initrd", "root.squashfs")
    shutil.rmtree(parts)


class Check:
    """The run: a room, a disk that keeps what the machine writes, and the machine."""

    def __init__(self, room, options):
        self.room = room
        self.options = options
        self.nginx = Nginx(room, room.server)
        self.version = (IMAGE / "version").read_text().strip()
        self.started = time.monotonic()
        self.faults = []
        self.machine = None
        self.requests = 0
        self.token = None
        self.starts = 0

    def prepare(self):
        """Disk (a layer over the image, larger than it), drive, updates."""
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", IMAGE / "gatewayd.qcow2", WORK / "disk.qcow2",
            f"{DISK_GIB}G")
        make_drive(WORK / "drive.img")
        shutil.copy(FIRMWARE_STATE, WORK / "firmware")
        other_version(IMAGE / "gatewayd.update", WORK / "good.update", self.version + ".good")

    def boot(self):
        """Switches the machine on, with what it had before."""
        self.starts += 1
        disks = [(WORK / "disk.qcow2", "qcow2"), (WORK / "drive.img", "raw"), (IMAGE / "spoilt.update", "raw"),
                 (WORK / "good.update", "raw")]
        self.machine = Machine(disks, self.room.cards, WORK / "firmware", WORK / f"console-{self.starts}.log",
                               "kvm" if self.options.kvm else "tcg,thread=multi")

    def restart(self):
        """The machine restarts by itself, which is waited for."""
        self.machine.ended(self.options.boot_limit)
        self.machine.kill()
        self.boot()

    def say(self, text):
        """A line of the report, with the time since the start."""
        print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)

    def claim(self, text, holds, found=""):
        """One thing that has to be so; what is not makes the check fail at its end."""
        self.say(("ok      " if holds else "FAILED  ") + text + ("" if holds else f": {found}"))
        if not holds:
            self.faults.append(text)

    def api(self, path, method="GET", body=None):
        """The API as seen by the client: TLS, with the token. Returns the status code and the document."""
        done = self.room.client.run("curl", "-sSk", "-m", 60, "-X", method, "-H", f"Authorization: Bearer {self.token}",
                                    "-H", "Content-Type: application/json", *(["-d", json.dumps(body)] if body else []),
                                    "-w", "\n%{http_code}", API + path, check=False, timeout=90)
        text, _, code = done.stdout.rpartition("\n")
        return int(code or 0), json.loads(text) if text.startswith("{") else text

    def relays(self):
        """A request of each family passes the gateway's relay, and the server sees the client."""
        before = self.opened()
        for family, url in SERVERS.items():
            self.requests += 1
            url += f"?n={self.requests}"
            address = self.room.client.v4 if family == "v4" else self.room.client.v6
            done = self.room.client.run("curl", "-sS", "-m", 60, url, check=False, timeout=90)
            log = self.nginx.wait_line(f"/whoami?n={self.requests} ", 3) if done.returncode == 0 else ""
            self.claim(f"{family}: the client gets its page", f"sees {address}" in done.stdout, done.stdout + done.stderr)
            self.claim(f"{family}: the server's log shows {address}", log.startswith(address + " "), log)
        self.claim("both went through the relay", self.opened() == before + len(SERVERS))

    def opened(self):
        """How many flows the relay has opened, as the API says."""
        return self.status()["relay"]["counters"]["flows_opened"]

    def status(self):
        """The daemon's status; {} while it has none."""
        found = self.api("/api/v1/status")[1]
        return found if isinstance(found, dict) else {}

    def serves(self):
        """The web UI, and readiness, from outside."""
        page = wait_for(lambda: self.room.client.run("curl", "-sSk", "-m", 20, API + "/", check=False).stdout, 20,
                        "the web UI")
        self.claim("the client gets the web UI over TLS", "<title>" in page and "gatewayd" in page, page[:200])
        self.claim("the gateway is ready", self.api("/readyz")[0] == 200)

    def first_start(self):
        """Slot a, from the configuration drive."""
        self.boot()
        self.machine.expect(r"settings from the drive GATEWAYD", self.options.boot_limit)
        self.machine.login(PASSWORD, self.options.boot_limit)
        self.claim("the console names version and slot", f"gatewayd {self.version}, slot a" in self.machine.said)
        self.say(f"login; the system was up {self.machine.run('cut -d. -f1 /proc/uptime')} s")
        self.token = self.machine.run("cat /var/lib/gatewayd/admin.token")
        self.serves()
        code, answer = self.api("/api/v1/listeners", "POST", LISTENER)
        self.claim("a listener is made over the API", code == 201, answer)
        self.relays()
        self.appliance()
        self.life()
        self.journal()
        self.held()

    def appliance(self):
        """What makes it one: nothing to write to, nothing open, room on the disk."""
        run_there = self.machine.run
        self.claim("the root is read-only", "Read-only" in run_there("touch /usr/x 2>&1 || :"))
        self.claim("ssh does not run", run_there("systemctl is-active ssh || :") == "inactive")
        size = int(run_there("df -m --output=size /data | tail -n 1"))
        self.claim("the data partition has grown with the disk", size > 2000, f"{size} MiB")
        slots = run_there("gateway-slots")
        self.claim("slot a runs, slot b is empty", re.search(r"^\* a\s+good ", slots, re.M) and " b  empty" in slots, slots)
        failed = run_there("systemctl --failed --no-legend --plain")
        self.claim("no unit has failed", not failed, failed)
        self.say("memory in use: " + run_there("free -m | awk '/^Mem/ { print $3 }'") + " MiB")

    def life(self):
        """Everything that loads something into the kernel stays on, whoever starts anew."""
        card = self.machine.run(f"grep -l {CARDS['in']} /sys/class/net/*/address").split("/")[4]
        for kind, body in (("listeners", DATAGRAMS), ("prefilters", {"interface": card, "mode": "generic", "syn_cookies": "auto"})):
            code, answer = self.api(f"/api/v1/{kind}", "POST", body)
            self.claim(f"{kind} take one more", code == 201, answer)
        for command, same in LIFE:
            before = self.status()["relay"]["pid"]
            self.machine.run(command)

            def settled():
                relay = self.status().get("relay", {"state": "none"})
                return relay if relay["state"] == "running" and (relay["pid"] == before) == same \
                    and relay["movers"]["sockmap"]["state"] != "testing" else None
            movers = wait_for(settled, 30, command)["movers"]
            states = [mover["state"] for mover in movers.values()] + [row["state"] for row in self.status()["prefilters"]]
            self.claim(f"{command}: sockmap, short cut and prefilter are on", states == ["on"] * 3, (movers, states))
        self.relays()

    def held(self):
        """AppArmor holds daemon and relay, and has had nothing to refuse since the start."""
        held = self.machine.run("cat /proc/$(pidof gatewayd)/attr/current /proc/$(pidof gateway-relay)/attr/current")
        self.claim("AppArmor holds daemon and relay", held.split("\n") == ["gatewayd (enforce)"] * 2, held)
        enclosed = self.status()["relay"]["enclosed"]
        self.claim("Landlock holds the relay besides", (enclosed or "").startswith("landlock "), enclosed)
        refused = self.machine.run("dmesg | grep 'apparmor=\"[DA][EL]' || :")
        self.claim("and refuses nothing", not refused, refused)

    def journal(self):
        """Each change is in the journal, with its fields, or counted as left out; records of flows are rotated."""
        run_there = self.machine.run
        post = "curl -sS -o /dev/null --unix-socket /run/gatewayd/api.sock -H Content-Type:application/json"
        many = f"http://localhost/api/v1/rate-limits/many[1-{CHANGES}]"
        run_there(f"{post} -X PUT -d '{{\"metric\": \"new_connections\", \"rate\": 1000}}' '{many}'", 120)
        run_there(f"{post} -X DELETE '{many}'", 120)
        time.sleep(10)
        self.api("/api/v1/settings", "PATCH", {"flow_log": {"destination": "file"}})
        lines = [line for line in run_there("journalctl -b -u gatewayd -o cat --no-pager | grep 'is in force' | cut -c-150").split("\n")
                 if "is in force" in line]
        left_out = sum(int(count) for count in re.findall(r"\((\d+) lines like this one", "\n".join(lines)))
        self.claim("each change is in the journal, or counted as left out", left_out and
                   len(lines) + left_out == self.status()["revision"], (len(lines), left_out, self.status()["revision"]))
        found = run_there("journalctl -u gatewayd GATEWAY_LISTENER=web -o cat --no-pager")
        self.claim("a listener's lines are found by its field", "POST listeners" in found, found)
        found = run_there("journalctl -u gatewayd SYSLOG_IDENTIFIER=gateway-relay -o cat --no-pager")
        self.claim("the relay's lines are those of the same unit", "a daemon has connected" in found, found)
        self.recorded()
        run_there("logrotate -f /etc/logrotate.d/gatewayd")
        self.recorded()
        found = run_there("ls /var/log/gatewayd").split()
        self.claim("logrotate takes the records away, and the daemon begins anew", found == ["flows.jsonl", "flows.jsonl.1"], found)
        # For the order of the next starts.
        run_there("systemctl -q enable nftables systemd-networkd-wait-online; "
                  "systemctl -q add-wants multi-user.target network-online.target")

    def recorded(self):
        """What is relayed now has its records in the file, which had none."""
        self.relays()
        wait_for(lambda: self.machine.run("wc -l </var/log/gatewayd/flows.jsonl 2>&1 || :") == str(len(SERVERS)), 10, "the records")

    def order(self):
        """Rules come before forwarding, forwarding before the network; and nobody has taken anything away since."""
        shown = self.machine.run("systemctl show -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic "
                                 + " ".join(ORDER))
        times = [{key: int(value) for key, value in (line.split("=") for line in block.split("\n"))}
                 for block in shown.split("\n\n")]
        for before, after, first, second in zip(ORDER, ORDER[1:], times, times[1:]):
            self.claim(f"{before} was through before {after}", 0 < first["ActiveEnterTimestampMonotonic"]
                       <= second["InactiveExitTimestampMonotonic"], (first, second))
        early = self.machine.run("journalctl -b -u gatewayd-early -o cat --no-pager")
        self.claim("the early rules were those of the last revision", f"the rules of revision {self.status()['revision']} are "
                   "in place" in early, early)
        self.claim("nothing had to be put right since", self.status()["drift"]["healed"] == 0, self.status()["drift"])

    def questions(self):
        """The console asks a machine that is not set up, and what is answered holds."""
        machine = self.machine
        machine.type("rm /etc/gatewayd-image/configured; rm /etc/systemd/network/*; exit")
        machine.expect(r"Name of this machine \[gatewayd\]: ", 120)
        machine.type("Not A Name")
        machine.expect(r"small letters", 60)
        machine.type("asked")
        for number in (1, 2):
            machine.expect(r"IPv4 address/length", 60)
            if number == 1:
                machine.type("10.71.1.300/24")
                machine.expect(r"is no IPv4 address", 60)
            machine.type(f"10.71.{number}.1/24")
            machine.expect(r"IPv6 address/length", 60)
            machine.type(f"fd71:{number}::1/64")
            for _ in (4, 6):
                machine.expect(r"default gateway", 60)
                machine.type("")
        machine.expect(r"DNS servers", 60)
        machine.type("")
        machine.expect(r"Serve API", 60)
        machine.type("10.71.1.1")
        for question in (r"Password of root: ", r"once more: "):
            machine.expect(question, 60)
            machine.type(PASSWORD)
        machine.expect(r"Is this right", 60)
        machine.type("y")
        machine.login(PASSWORD, 240)
        self.claim("the answers hold", machine.run("hostname") == "asked")
        self.serves()
        self.relays()

    def update(self, device, tries):
        """Writes an update into the other slot; the machine then restarts by itself."""
        self.say(self.machine.run(f"gateway-update --no-reboot --tries {tries} {device}", 600).replace("\n", "; "))
        self.machine.type("reboot")
        self.restart()

    def spoilt(self):
        """A new slot that does not get ready is left."""
        self.update("/dev/vdc", 1)
        found = self.machine.expect(r"slot b is not healthy: .*", 2 * self.options.boot_limit)
        self.claim("the spoilt slot finds itself not healthy", True)
        self.say(found.group(0))
        self.restart()
        machine = self.machine
        found = machine.expect(r"slot b \(\S+\) was not healthy .*", 2 * self.options.boot_limit)
        self.claim("slot a is back, and says so", "slot a (" in found.group(0), found.group(0))
        self.say(found.group(0))
        machine.login(PASSWORD, self.options.boot_limit)
        slots = machine.run("gateway-slots")
        self.claim("slot b was given up", re.search(r"^\* a\s+good .*\n\s+b\s+failed ", slots, re.M), slots)
        self.serves()
        self.order()
        self.relays()
        self.held()

    def good(self):
        """A new slot that gets ready stays."""
        before = self.machine.run("cat /etc/machine-id")
        self.update("/dev/vdd", 3)
        machine = self.machine
        machine.expect(r"slot b \(\S+\) is healthy", 2 * self.options.boot_limit)
        machine.login(PASSWORD, self.options.boot_limit)
        wait_for(lambda: re.search(r"^\* b\s+good ", machine.run("gateway-slots"), re.M), 10, "slot b to be good")
        self.claim("slot b runs and is good", True)
        self.claim("the machine is the same", machine.run("cat /etc/machine-id") == before)
        self.serves()
        self.relays()
        self.held()
        machine.run("gateway-slots use a")
        self.claim("slot a can be chosen again", machine.run("ls /boot/loader/entries/gatewayd-a.conf") != "")

    def recover(self):
        """What is left when nobody can log in, or the machine's own settings keep it from working."""
        self.machine.run("bootctl set-oneshot recover-b.conf")
        self.machine.type("reboot")
        self.restart()
        machine = self.machine
        machine.expect(r"started to be repaired; nothing is kept", 2 * self.options.boot_limit)
        machine.expect(r"Press Enter for maintenance", self.options.boot_limit)
        machine.type("")
        machine.shell()
        forwards = machine.run("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding").split()
        self.claim("nothing is forwarded", forwards == ["0", "0"], forwards)
        self.claim("the machine's own files are there to be mended",
                   "asked" in machine.run("cat /data/image/etc/hostname; ls /data/gatewayd"))
        self.claim("/etc is that of the image", machine.run("cat /etc/hostname") == "gatewayd")
        machine.type("systemctl poweroff")
        machine.ended(300)

    def run(self):
        """All of it; returns whether everything held."""
        self.prepare()
        try:
            self.first_start()
            self.questions()
            self.spoilt()
            self.good()
            self.recover()
        except (Failed, subprocess.TimeoutExpired) as error:
            self.claim("the run came to its end", False, error)
        finally:
            if self.machine:
                self.machine.kill()
        return not self.faults


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev image --test", description=__doc__.split("\n")[0])
    parser.add_argument("--kvm", action="store_true", help="use /dev/kvm instead of software emulation")
    parser.add_argument("--boot-limit", type=float, default=420, metavar="SECONDS", help="how long one start may take (420)")
    return parser.parse_args()


def main():
    """Makes the room, runs, and tells."""
    options = arguments()
    if not (IMAGE / "gatewayd.qcow2").exists():
        sys.exit("image: there is no build/image/gatewayd.qcow2; ./dev image makes it")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    with Room() as room:
        check = Check(room, options)
        print(f"image: version {check.version}; consoles in {WORK}/console-*.log", flush=True)
        whole = check.run()
    print(f"image: {'all held' if whole else str(len(check.faults)) + ' failed'},"
          f" {time.monotonic() - check.started:.0f} s", flush=True)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
