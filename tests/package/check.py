"""./dev deb --test: the packages through their life, in a Debian 12 of their own that is the gateway of the lab.

Install and first configuration, relaying, an upgrade under load, a refused downgrade and the way that is offered,
remove, purge, and the package's own autopkgtest. Each line of the result is a claim that held; the first that does not
ends everything.
"""

import glob
import json
import re
import sys

from lab import Lab
from lab.process import wait_for
from package.load import ADDRESSES, PORT, TRANSFERS, Knocks, Load
from package.machine import WORK, Failed, Machine, make_base

KNOCKS_PORT = 9301
LISTENER = {"name": "all", "destinations": ["10.71.2.0/24", "fd71:2::/64"], "ports": [f"{PORT}-{KNOCKS_PORT}"]}
ROUTE_TABLE = "26487"
# What the daemon's unit and the relay may have at most, as masks of the kernel.
NET_BIND_SERVICE, NET_RAW = 1 << 10, 1 << 13
RELAY_CAPABILITIES = NET_BIND_SERVICE | NET_RAW
EXPOSURE_MAX = 3.0
UNITS = "gatewayd.service gatewayd-early.service gatewayd-provision.service gatewayd-replicate.service"
# Not the packages' doing: what this test has put there, logs, and apt's own.
ELSEWHERE = ("/proc", "/sys", "/older", "/newer", "/source", "/var/log", "/var/cache/apt", "/var/lib/apt", "/tmp")


def must(condition, words):
    """A line of the result; ends everything if it is not so."""
    if not condition:
        raise Failed(f"FAILED: {words}")
    print(f"-- ok: {words}", flush=True)


def changes(*listeners):
    """The listeners as a list of changes."""
    return [{"method": "POST", "path": "/listeners", "body": listener} for listener in listeners]


def check_install(machine):
    """The service runs by its unit alone, with the rights that it names; a faulty first configuration stops nothing."""
    machine.provision({"listeners": [{**LISTENER, "ports": ["70000"]}]})
    machine.install("older")
    shown = machine.shown("gatewayd", "ActiveState", "Type", "WatchdogUSec")
    must(shown == ["active", "notify", "1min"],
         f"installed; the service is active, has told so, and is watched {shown}")
    faults = machine.sh(f"systemd-analyze --man=no verify {UNITS} 2>&1").strip()
    must(not faults, f"systemd finds no fault in the units {faults[:500]}")
    found = re.search(r"exposure level for gatewayd.service: ([0-9.]+)",
                      machine.sh("systemd-analyze --no-pager security gatewayd.service"))
    must(found and float(found.group(1)) <= EXPOSURE_MAX, f"its exposure is {found and found.group(1)}")
    daemon = machine.rights(machine.shown("gatewayd", "MainPID")[0])
    must((daemon["NoNewPrivs"], daemon["Seccomp"]) == ("1", "2"), "the daemon gets no new rights, and is filtered")
    status = machine.status()
    relay = machine.rights(status["relay"]["pid"])
    must(relay["Uid"].split()[0] == machine.sh("id -u gateway-relay").strip(), "the relay has its own user")
    must(int(relay["CapBnd"], 16) == int(relay["CapEff"], 16) == RELAY_CAPABILITIES and relay["Seccomp"] == "2",
         "the relay has two capabilities and a filter")
    check_enclosed(machine, status["relay"])
    must(machine.sh("stat -c %G:%a /run/gatewayd/api.sock").strip() == "gatewayd:660", "the API's socket is the group's")


def check_enclosed(machine, relay):
    """What the relay sees of the machine: what its daemon's unit does, and of that it can open nothing."""
    proc = f"/proc/{relay['pid']}"
    must(machine.sh(f"readlink {proc}/ns/mnt") != machine.sh("readlink /proc/1/ns/mnt"), "the relay's mounts are the unit's")
    mounts = {fields[4]: fields[5] for fields in map(str.split, machine.sh(f"cat {proc}/mountinfo").splitlines())}
    must(mounts["/"].startswith("ro") and mounts["/proc/sys"].startswith("ro") and {"/tmp", "/var/tmp", "/dev", "/home"} <= set(mounts),
         "the root is read-only, and /tmp, /dev and /home are not the machine's")
    must(not machine.call(f"test -e {proc}/root/dev/kmsg").returncode == 0, "there are no devices")
    told = relay["enclosed"] or ""
    must(told.startswith("landlock ") or "no Landlock" in told or "switched off" in told, f"files are refused by {told}")


def check_provision(machine):
    """The file is applied once, whole or not at all, and never over a configuration that is there."""
    def again(document=None):
        if document is not None:
            machine.provision(document)
        machine.call("systemctl restart gatewayd-provision")
        return machine.journal("gatewayd-provision")
    must("/listeners/0/ports" in machine.journal("gatewayd-provision"), "the fault of a first configuration is told")
    must("provision.json:1:" in again('{"listeners": [}'), "where it is no JSON, too")
    must("/1/body/upstream" in again(changes(LISTENER, {"name": "no", "ports": ["1"], "upstream": "nowhere"})),
         "and what is wrong in a list")
    must(machine.status()["revision"] == 0, "of none of them anything was applied")
    must("provision.json was applied" in again(changes(LISTENER)), "a sound one is applied")
    must('"all"' in machine.sh("gatewayctl get listeners -o json"), "and in force")
    revision = machine.status()["revision"]
    again(changes({**LISTENER, "name": "other", "ports": ["1"]}))
    must(machine.status()["revision"] == revision, "but once")
    machine.sh("rm /var/lib/gatewayd/provisioned")
    must("has a configuration already" in again() and machine.status()["revision"] == revision,
         "and not over a configuration that is there")


def check_bpf(lab, machine):
    """What must be pinned can be, under the unit: the sockmap is on, and a prefilter in force."""
    def tried():
        found = machine.status()["relay"]["movers"]["sockmap"]
        return found if found["state"] != "testing" else None
    found = wait_for(tried, 120, "the trial of the sockmap", interval=0.5)
    must(found["state"] == "on", f"the sockmap mover is on {found}")
    prefilter = {"interface": "in0", "mode": "generic", "deny": ["192.0.2.99"]}
    (machine.directory / "root/prefilter.json").write_text(
        json.dumps([{"method": "POST", "path": "/prefilters", "body": prefilter}]))
    machine.sh("gatewayctl apply --yes -f /root/prefilter.json && rm /root/prefilter.json")
    must("xdp" in lab.gateway.run("ip", "link", "show", "in0").stdout, "a prefilter is in force")


def check_relay(lab, machine):
    """Connections go through the relay, both families, and the server sees the client."""
    before = machine.status()["relay"]["counters"]["flows_opened"]
    knocks = Knocks(lab, KNOCKS_PORT)
    wait_for(lambda: knocks.made >= 20, 60, "twenty connections")
    faults = knocks.end()
    must(not faults and machine.status()["relay"]["counters"]["flows_opened"] >= before + 20,
         f"connections are relayed, and the server sees the client {faults[:3]}")


def check_early(lab, machine):
    """The unit that comes before the network puts the rules in place, all by itself."""
    machine.sh("systemctl stop gatewayd && gatewayd --config /etc/gatewayd/gatewayd.conf --cleanup && systemctl restart gatewayd-early")
    must(any("table inet gatewayd" in line for line in in_kernel(lab, machine)), "gatewayd-early puts the rules in place")
    found = machine.call("journalctl -u gatewayd-early SYSLOG_IDENTIFIER=gatewayd -o cat --no-pager").stdout
    must("are in place until gatewayd serves" in found, "and says so in the journal")
    machine.sh("systemctl start gatewayd")


def check_networkd(lab, machine):
    """systemd-networkd leaves our routing rules alone when it takes an interface over, also while there is no daemon that
    would put them back."""
    def rules():
        return lab.gateway.run("ip", "rule").stdout + lab.gateway.run("ip", "-6", "rule").stdout
    before = rules()
    machine.sh("printf '[Match]\\nName=managed\\n[Network]\\nAddress=192.0.2.1/32\\nConfigureWithoutCarrier=yes\\n'"
               " >/etc/systemd/network/managed.network && systemctl stop gatewayd && systemctl start systemd-networkd")
    lab.gateway.run("ip", "link", "add", "managed", "type", "veth", "peer", "name", "other-end")
    wait_for(lambda: "192.0.2.1" in lab.gateway.run("ip", "address", "show", "managed").stdout, 30, "an interface of networkd's")
    must(ROUTE_TABLE in before and rules() == before, "systemd-networkd leaves our routing rules alone")
    machine.sh("systemctl stop systemd-networkd systemd-networkd.socket && rm /etc/systemd/network/managed.network"
               " && systemctl start gatewayd")
    lab.gateway.run("ip", "link", "del", "managed")


def relayed(machine):
    """How many flows the relay has."""
    return len(json.loads(machine.sh("gatewayctl flows --limit 1000 -o json"))["items"])


def check_upgrade(lab, machine):
    """Transfers live through an upgrade that replaces daemon and relay, and new connections are taken all the time."""
    load, knocks = Load(lab), Knocks(lab, KNOCKS_PORT)
    wait_for(lambda: relayed(machine) >= TRANSFERS, 120, "all transfers in the relay", interval=0.5)
    before = machine.status()["relay"]["pid"]
    machine.install("newer")
    wait_for(lambda: machine.status()["relay"]["pid"] not in (0, before), 60, "a new relay", interval=0.2)
    must(machine.sh("dpkg-query -W -f '${Version}' gatewayd") == machine.sh("gatewayd --version").split()[-1],
         "upgraded; the program is that of the new package")
    wait_for(lambda: not machine.alive(before), 120, "the end of the old relay", interval=0.2)
    left, made, faults = load.under_way(), knocks.made, knocks.end()
    must(left == TRANSFERS, f"all {TRANSFERS} transfers were under way all the time ({left})")
    must(made and not faults, f"{made} connections that were made meanwhile were all taken {faults[:3]}")
    broken = load.end()
    must(not broken, f"of {TRANSFERS} transfers none is broken {broken[:3]}")
    must("all" in machine.sh("gatewayctl get listeners -o json"), "the configuration is there")


def check_downgrade(lab, machine):
    """An older package is refused with words and changes nothing; the way that the words offer works."""
    relay = machine.status()["relay"]["pid"]
    done = machine.call("apt-get -qq install -y --no-install-recommends --allow-downgrades /older/*.deb")
    must(done.returncode and "is older than" in done.stderr + done.stdout, "a downgrade is refused with words")
    # dpkg has the installed version set itself right again, which restarts the daemon.
    wait_for(lambda: machine.call("gatewayctl get /readyz").returncode == 0, 30, "readiness", interval=0.2)
    must(machine.status()["relay"]["pid"] == relay, "and the relay goes on")
    machine.sh("apt-get -qq install -y --no-install-recommends --allow-downgrades /newer/*.deb")
    must(not machine.sh("dpkg --audit").strip(), "and no package is left half installed")
    config = machine.sh("gatewayctl get")
    machine.sh("gatewayctl get >/root/config.json && apt-get -qq remove -y gatewayd && mv /var/lib/gatewayd /var/lib/gatewayd.newer"
               " && apt-get -qq install -y --no-install-recommends --allow-downgrades /older/*.deb && gatewayctl apply --yes -f /root/config.json")
    must(machine.sh("gatewayctl get") == config, "the way back that the words offer works")
    check_relay(lab, machine)
    machine.install("newer")
    machine.sh("rm -r /var/lib/gatewayd.newer /root/config.json")


def in_kernel(lab, machine):
    """What of ours is in the kernel."""
    found = lab.gateway.run("nft", "list", "tables").stdout
    for family in ("-4", "-6"):
        found += lab.gateway.run("ip", family, "rule").stdout
        routes = lab.gateway.run("ip", family, "route", "show", "table", ROUTE_TABLE, check=False).stdout
        found += "".join(f"gatewayd's route {line}\n" for line in routes.splitlines())
    found += machine.sh("find /sys/fs/bpf -mindepth 1")
    found += "".join(f"gatewayd's {line}\n" for line in lab.gateway.run("ip", "link").stdout.splitlines() if "xdp" in line)
    return [line for line in found.splitlines() if "gatewayd" in line or ROUTE_TABLE in line or "goto" in line]


def check_removal(lab, machine):
    """Remove leaves data, purge nothing."""
    relay = machine.status()["relay"]["pid"]
    kinds = "table inet gatewayd", "gatewayd's route", "/sys/fs/bpf/gatewayd", "xdp"
    there = in_kernel(lab, machine)
    must(all(any(kind in line for line in there) for kind in kinds), f"the gateway is in the kernel, with {', '.join(kinds)}")
    machine.sh("apt-get -qq remove -y gatewayd")
    must(not in_kernel(lab, machine), f"removed: nothing is left in the kernel {in_kernel(lab, machine)}")
    must(not machine.alive(relay), "and no relay")
    must("gateway.db" in machine.sh("ls /var/lib/gatewayd"), "the database is left")
    machine.install("newer")
    must("all" in machine.sh("gatewayctl get listeners -o json"), "installed again, the configuration is there")
    machine.sh("apt-get -qq purge -y gatewayd gatewayctl")
    check_purged(lab, machine)


def check_purged(lab, machine):
    """Neither on disk nor in the kernel; of users only what Debian leaves."""
    pruned = " -o ".join(f"-path {path}" for path in ELSEWHERE)
    found = machine.sh(f"find / \\( {pruned} \\) -prune -o -iname '*gatewayd*' -print -o -iname '*gateway-relay*' -print"
                       " -o -iname '*gatewayctl*' -print").split()
    must(not found, f"purged: nothing is left on disk or in /run {found}")
    must(not in_kernel(lab, machine), "and nothing in the kernel")
    must(not machine.call("cat /proc/[0-9]*/comm | grep gateway").stdout, "and no process")


def check_autopkgtest(machine):
    """The package's own test, as Debian would run it."""
    machine.put_source()
    machine.sh("apt-get -qq install -y --no-install-recommends autopkgtest dpkg-dev")
    done = machine.call(f"autopkgtest --no-built-binaries /newer/*.deb /source -- null", timeout=1200)
    (WORK / "autopkgtest.log").write_text(done.stdout + done.stderr)
    results = re.findall(r"^(\S+) +(PASS|FAIL|SKIP)\b", done.stdout + done.stderr, re.M)
    must(done.returncode == 0 and ("smoke", "PASS") in results,
         f"autopkgtest says {results}: {done.returncode} {'' if done.returncode == 0 else done.stderr[-3000:]}")


def packages_of(name):
    """The packages of one build, without those of symbols."""
    return [path for path in glob.glob(str(WORK / name / "*.deb")) if "-dbgsym_" not in path]


def main():
    """All of it, in the order of a package's life."""
    make_base()
    with Lab() as lab:
        machine = Machine(lab, {"older": packages_of("older"), "newer": packages_of("first")})
        machine.boot()
        check_install(machine)
        check_provision(machine)
        check_bpf(lab, machine)
        check_relay(lab, machine)
        check_early(lab, machine)
        check_networkd(lab, machine)
        check_upgrade(lab, machine)
        check_downgrade(lab, machine)
        check_removal(lab, machine)
        check_autopkgtest(machine)
        machine.halt()
    print("-- done", flush=True)


if __name__ == "__main__":
    sys.exit(main())
