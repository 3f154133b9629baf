"""./dev bench --shield: what the prefilter spends on a packet, drops in a second, and keeps alive in a flood.

Four parts, none of which leaves this machine: `packets` runs programs on single packets (BPF_PROG_TEST_RUN), `entries`
changes its lists, `drops` counts what is dropped a second beside nft and iptables, `goodput` measures requests and
connections through the relay while SYNs from sources that do not exist come in at another interface. docs/bench.md says how
to read them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.seen import grow_old
from lab.segments import set_gro, set_queues
from lab.servers import Nginx

PROGRAMS = ROOT / "build/release/tests"
GWLOAD, GWFLOOD, BENCH_PREFILTER = (PROGRAMS / name for name in ("gwload", "gwflood", "bench_prefilter"))
HTTP_PORT = 8000
FLOOD_SOURCES = 10000
FLOOD = {4: ("198.18.0.0/15", "198.18.0.1"), 6: ("fd99::/64", "fd99::1")}
SERVER = {4: "10.71.2.2", 6: "fd71:2::2"}
ALONE, PREROUTING = "generator alone", "nft prerouting"
PARTS = ("packets", "entries", "drops", "goodput")
ENTRIES = (100_000, 1_000_000)
CHANGES = 100
PLACES = {"map": "the BPF map", "daemon": "the daemon, without the commit", "commit": "the commit, with its fsync", "api": "by the API"}
SETTLE_S, WARM_UP = 3, 3
NFT_INGRESS = """table netdev bench {{
    chain drops {{ type filter hook ingress device "in1" priority 0; {family} saddr {prefix} counter drop; }}
}}"""
NFT_PREROUTING = """table inet bench {{
    chain drops {{ type filter hook prerouting priority raw; {family} saddr {prefix} counter drop; }}
}}"""


def say(text):
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)


class Flood:
    """The second client sends without end, for the time of a with block: as many as asked for a second (0: as go). way:
    from which interface, and which one swallows what comes in. At a rate it comes to all processors, as from a card with a
    queue for each; else to one."""

    GATEWAY, VOID, NOWHERE = ("up0", "up0"), ("void0", "void1"), ("up0", "-")

    def __init__(self, lab, kind, way, options, seconds, rate=0):  # pylint: disable=too-many-arguments,too-many-positional-arguments
        router = lab.gateway.run("cat", "/sys/class/net/in1/address").stdout.strip()
        line = [GWFLOOD, kind, *way, router, FLOOD[options.family][1], FLOOD_SOURCES, SERVER[options.family], HTTP_PORT,
                rate, seconds, os.cpu_count() if rate else 1]
        self.process = subprocess.Popen(lab.client2.command(*line), stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit("bench: gwflood does not run here")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.result = json.loads(self.process.stdout.readline())
        self.process.wait()


def make_lab(family):
    """A network in which the sources that do not exist lie behind the second client."""
    lab = Lab(client2=True)
    v = f"-{family}"
    address = lab.client2.v4 if family == 4 else lab.client2.v6
    hardware = lab.client2.run("cat", "/sys/class/net/up0/address").stdout.strip()
    lab.gateway.run("ip", v, "neigh", "replace", address, "lladdr", hardware, "dev", "in1", "nud", "permanent")
    lab.gateway.run("ip", v, "route", "add", FLOOD[family][0], "via", address)
    # Frames from a program at the other end need a receiver that takes frames.
    set_gro(lab.gateway, "in1", True)
    set_queues(lab.gateway, "in1", os.cpu_count())
    set_queues(lab.client2, "up0", os.cpu_count())
    # Where a flood goes that does not come here.
    lab.client2.run("ip", "link", "add", "void0", "type", "veth", "peer", "name", "void1")
    for end in Flood.VOID:
        lab.client2.run("ip", "link", "set", end, "up")
    set_gro(lab.client2, "void1", True)
    set_queues(lab.client2, "void1", os.cpu_count())
    return lab


# --- packets ---

def measure_packets(_options):
    """{program: {path: nanoseconds}}"""
    result = {"gatewayd": json.loads(subprocess.run([BENCH_PREFILTER], check=True, capture_output=True, text=True).stdout)}
    say("packets: gatewayd")
    result["xdp-filter"] = xdp_filter() if shutil.which("xdp-filter") else {"not installed": None}
    return result


def xdp_filter():
    """Debian's xdp-filter with one address denied, as it matches no prefixes, in a namespace of its own."""
    with Lab() as lab:
        gateway = lab.gateway
        try:
            gateway.run("sh", "-c", "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf")
            gateway.run("xdp-filter", "load", "-m", "skb", "in0")
            gateway.run("xdp-filter", "ip", "-m", "src", "192.0.2.1")
            link = json.loads(gateway.run("ip", "-j", "link", "show", "in0").stdout)[0]
            return json.loads(gateway.run(BENCH_PREFILTER, link["xdp"]["prog"]["id"]).stdout)
        except Exception as error:  # whatever it lacks here, the rest is measured
            return {f"failed: {str(error)[-200:]}": None}
        finally:
            gateway.run("xdp-filter", "unload", "in0", check=False)


# --- entries ---

def entry(number):
    """One of a list: every fourth is of IPv6."""
    if number % 4 == 0:
        return f"2001:db8:{number >> 16:x}:{number & 0xffff:x}::/64"
    return f"{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1"


def memory(gateway):
    """(of the kernel's slabs, of the daemon) in bytes."""
    slab = next(line for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if line.startswith("Slab:"))
    rss = next(line for line in Path(f"/proc/{gateway.process.popen.pid}/status").read_text(encoding="ascii").splitlines() if line.startswith("VmRSS:"))
    return [int(line.split()[1]) * 1024 for line in (slab, rss)]


def timing(answer):
    """{what: milliseconds} of a write, as its Server-Timing says."""
    return {part.split(";")[0].strip(): float(part.split("dur=")[1]) for part in answer.headers["Server-Timing"].split(",")}


def change_one(gateway, method, number):
    """{place: milliseconds} of one entry: in the BPF map, in the daemon but for the commit (the write to the database's
    log and its fsync), that commit, and by the API as its client sees it."""
    started = time.monotonic()
    answer = gateway.api(method, "address-sets/big/entries", [entry(number)], timeout=60)
    seconds = time.monotonic() - started
    if answer.status != 200:
        raise SystemExit(f"bench: {answer}")
    parts = timing(answer)
    return {"map": parts["xdp"], "daemon": parts["total"] - parts["commit"], "commit": parts["commit"], "api": seconds * 1000}


def settle(gateway):
    """The daemon has loaded its programs, which it does in its first second, and has saved the large configuration."""
    time.sleep(SETTLE_S)
    for number in range(WARM_UP):
        for method in ("DELETE", "POST"):
            change_one(gateway, method, number)


def change_entries(gateway, n):
    """A prefilter whose list is a set of so many: filling it, one entry less and one more, bytes for each."""
    text = "".join(entry(number) + "\n" for number in range(n)).encode()
    gateway.must("PUT", "address-sets/big", {"entries": []})
    gateway.must("PUT", "prefilters/in1", {"deny": ["@big"]})
    before, started = memory(gateway), time.monotonic()
    gateway.must("PUT", "address-sets/big/entries", text, headers={"Content-Type": "text/plain"}, timeout=300)
    seconds, after = time.monotonic() - started, memory(gateway)
    program = gateway.must("GET", "prefilters/in1")["observed"]["program"]
    settle(gateway)
    changes = [change_one(gateway, method, number) for number in range(CHANGES) for method in ("DELETE", "POST")]
    if gateway.must("GET", "prefilters/in1")["observed"]["program"] != program:
        raise SystemExit("bench: one entry was no change of the running program")
    gateway.must("DELETE", "prefilters/in1")
    one = {}
    for place in PLACES:
        times = sorted(change[place] for change in changes)
        one[place] = {"p50_ms": statistics.median(times), "p99_ms": times[len(times) * 99 // 100]}
    return {"load_s": seconds, "one": one, "kernel_bytes": (after[0] - before[0]) / n, "daemon_bytes": (after[1] - before[1]) / n}


def measure_entries(_options):
    """{entries: what they cost}"""
    result = {}
    for n in ENTRIES:
        with Lab(client2=True) as lab:
            gateway = Gateway(lab, build="release", bpf=True)
            try:
                result[str(n)] = change_entries(gateway, n)
                say(f"entries: {n}")
            finally:
                gateway.close()
    return result


# --- drops ---

def dropped_by_nft(lab):
    """What the bench's own table has counted."""
    listing = json.loads(lab.gateway.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    return sum(e["counter"]["packets"] for o in listing if o.get("rule", {}).get("table") == "bench"
               for e in o["rule"]["expr"] if "counter" in e)


def dropped_by_iptables(lab, tool):
    """What its first rule has counted."""
    return int(lab.gateway.run(tool, "-t", "raw", "-nvxL", "PREROUTING").stdout.splitlines()[2].split()[0])


def drop_rate(lab, options, count):
    """Packets dropped a second while as many come as the generator can make."""
    with Flood(lab, "udp", Flood.GATEWAY, options, options.seconds + 1):
        time.sleep(0.5)
        before, started = count(), time.monotonic()
        time.sleep(options.seconds)
        after, seconds = count(), time.monotonic() - started
    return (after - before) / seconds


def drops_none(lab, options):
    """What the generator makes and drops itself: what it costs is in all other figures."""
    with Flood(lab, "udp", Flood.NOWHERE, options, options.seconds) as flood:
        pass
    return flood.result["per_second"]


def drops_xdp(lab, options):
    """The prefilter in the driver."""
    gateway = Gateway(lab, build="release", bpf=True)
    try:
        gateway.must("PUT", "prefilters/in1", {"interface": "in1", "mode": "native", "deny": [FLOOD[options.family][0]]})
        return drop_rate(lab, options, lambda: gateway.must("GET", "stats")["prefilters"][0]["reasons"]["denied"]["packets"])
    finally:
        gateway.close()


def drops_nft(lab, options, text):
    """A rule of nft."""
    lab.gateway.nft(text.format(family="ip" if options.family == 4 else "ip6", prefix=FLOOD[options.family][0]))
    try:
        return drop_rate(lab, options, lambda: dropped_by_nft(lab))
    finally:
        lab.gateway.nft("flush ruleset")


def drops_iptables(lab, options):
    """A rule in iptables' raw table."""
    tool = "iptables" if options.family == 4 else "ip6tables"
    lab.gateway.run(tool, "-t", "raw", "-A", "PREROUTING", "-s", FLOOD[options.family][0], "-j", "DROP")
    try:
        return drop_rate(lab, options, lambda: dropped_by_iptables(lab, tool))
    finally:
        lab.gateway.run(tool, "-t", "raw", "-F")


def measure_drops(options):
    """{place: packets a second, by round}"""
    places = {ALONE: drops_none, "xdp native": drops_xdp, "nft ingress": lambda lab, o: drops_nft(lab, o, NFT_INGRESS),
              PREROUTING: lambda lab, o: drops_nft(lab, o, NFT_PREROUTING)}
    if shutil.which("iptables"):
        places["iptables raw"] = drops_iptables
    rounds = {place: [] for place in places}
    with make_lab(options.family) as lab:
        for number in range(options.rounds):
            for place, measure in places.items():
                rounds[place].append(measure(lab, options))
                say(f"round {number + 1}: drops, {place}: {rounds[place][-1] / 1e6:.2f} million a second")
    return rounds


# --- goodput ---

class Goodput:
    """A gateway with one listener, and the load that goes through it."""

    def __init__(self, options):
        self.options, self.lab = options, make_lab(options.family)
        self.nginx = Nginx(self.lab, self.lab.server, ports=(HTTP_PORT,), logging=False)
        self.gateway = Gateway(self.lab, build="release", bpf=True)
        self.gateway.listener("web", ports=[str(HTTP_PORT)])

    def load(self, mode):
        """Requests or connections a second, and how many failed."""
        seconds = self.options.seconds
        out = self.lab.client.run(GWLOAD, mode, SERVER[self.options.family], HTTP_PORT, "/tiny", 32, seconds, 1,
                                  timeout=seconds + 60).stdout
        result = json.loads(out)
        return {"per_second": result["per_second"],
                "failed": sum(result[kind] for kind in ("refused", "reset", "broken", "timed_out"))}

    def prefilter(self, on):
        """Puts the prefilter on the interface of the flood, or takes it off."""
        if on:
            self.gateway.must("PUT", "prefilters/in1", {"interface": "in1", "mode": "native", "syn_cookies": "auto"})
            row = next(one for one in self.gateway.status()["prefilters"] if one["interface"] == "in1")
            grow_old(row["program"])
        else:
            self.gateway.must("DELETE", "prefilters/in1")

    def arrived(self):
        """What has come in at the interface of the flood."""
        return int(self.lab.gateway.run("cat", "/sys/class/net/in1/statistics/rx_packets").stdout)

    def flooded(self, mode, way=Flood.GATEWAY):
        """The same load in a flood that has filled the queues. A veth holds few frames: while its receiver does not run,
        what is sent is lost on the way, so what has arrived is told beside what was sent."""
        with Flood(self.lab, "syn", way, self.options, self.options.seconds + 3, self.options.rate) as flood:
            time.sleep(1)
            before, started = self.arrived(), time.monotonic()
            result = self.load(mode)
            arrived = (self.arrived() - before) / (time.monotonic() - started)
        return result | {"flood_per_second": flood.result["per_second"], "arrived_per_second": arrived}

    def round(self, mode):
        """Quiet, beside a flood that goes elsewhere, in the flood without a prefilter, and with one."""
        result = {"quiet": self.load(mode), "elsewhere": self.flooded(mode, Flood.VOID), "without": self.flooded(mode)}
        self.prefilter(True)
        result["with"] = self.flooded(mode)
        counted = self.gateway.must("GET", "stats")["prefilters"][0]["reasons"]
        result["with"]["cookies"] = counted["syn_cookie_sent"]["packets"]
        self.prefilter(False)
        return result

    def close(self):
        """Ends everything."""
        self.gateway.close()
        self.lab.close()


def measure_goodput(options):
    """{load: [round]}"""
    rounds = {"http": [], "conn": []}
    goodput = Goodput(options)
    try:
        for number in range(options.rounds):
            for mode, results in rounds.items():
                results.append(goodput.round(mode))
                say(f"round {number + 1}: goodput, {mode}: " + ", ".join(
                    f"{case} {one['per_second']:.0f}/s" for case, one in results[-1].items()))
    finally:
        goodput.close()
    return rounds


# --- the tables ---

def packets_table(result):
    """Nanoseconds for each packet."""
    return [f"{program:12} {path:45} {'' if ns is None else f'{ns:8.1f} ns'}" for program, paths in result.items()
            for path, ns in paths.items()]


def entries_table(result):
    """For each size: what all cost, and what one more or less does, by where the time goes."""
    lines = []
    for n, size in result.items():
        lines.append(f"{int(n):>9,} entries  filled in {size['load_s']:6.2f} s   for each {size['kernel_bytes']:5.0f} bytes of "
                     f"the kernel's, {size['daemon_bytes']:5.0f} of the daemon's")
        lines += [f"{'':9} one more or less  {PLACES[place]:32} p50 {one['p50_ms']:8.3f} ms   p99 {one['p99_ms']:8.3f} ms"
                  for place, one in size["one"].items()]
    return lines


def drops_table(rounds):
    """Dropped a second, how many times as many as at nft's prerouting hook, and the same without what the generator costs."""
    medians = {place: statistics.median(values) for place, values in rounds.items()}
    cost = {place: 1e9 / median - 1e9 / medians[ALONE] for place, median in medians.items()}
    lines = [f"{ALONE:16} {medians.pop(ALONE) / 1e6:8.2f} million/s"]
    return lines + [
        f"{place:16} {median / 1e6:8.2f} million/s  {median / medians[PREROUTING]:6.2f} x nft prerouting   "
        f"without the generator {cost[place]:6.1f} ns a packet, {cost[PREROUTING] / cost[place]:6.2f} x"
        for place, median in medians.items()]


def goodput_table(rounds):
    """Medians, and shares of what goes through without a flood, and beside one that goes elsewhere."""
    lines = []
    for mode, results in rounds.items():
        quiet, elsewhere = (statistics.median(one[case]["per_second"] for one in results) for case in ("quiet", "elsewhere"))
        for case in ("quiet", "elsewhere", "without", "with"):
            median = statistics.median(one[case]["per_second"] for one in results)
            failed = sum(one[case]["failed"] for one in results)
            sent, arrived = (statistics.median(one[case].get(kind, 0) for one in results) / 1e3
                             for kind in ("flood_per_second", "arrived_per_second"))
            lines.append(f"{'requests' if mode == 'http' else 'connections':12} {case:9} {median:8.0f}/s  {median / quiet:5.2f} of quiet"
                         f"  {median / elsewhere:5.2f} of elsewhere  flood {sent:6.0f} thousand/s, {arrived:6.0f} arrive  failed {failed}")
    return lines


MEASURES = {"packets": (measure_packets, packets_table), "entries": (measure_entries, entries_table), "drops": (measure_drops, drops_table),
            "goodput": (measure_goodput, goodput_table)}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench --shield", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default 3)")
    parser.add_argument("--rate", type=int, default=400000, help="SYNs a second of the flood (default 400000; 0: as go)")
    parser.add_argument("--ipv6", dest="family", action="store_const", const=6, default=4)
    parser.add_argument("--json", default="bench-shield.json", help="where the figures go (default bench-shield.json)")
    return parser.parse_args()


def main():
    """Measures, prints the tables, writes the file."""
    options = arguments()
    result = {"command": " ".join(sys.argv), "environment": {
        "kernel": os.uname().release, "processors": os.cpu_count(), "load": os.getloadavg()[0]}}
    for part in options.only:
        measure, table = MEASURES[part]
        result[part] = measure(options)
        print("\n" + "\n".join(table(result[part])), flush=True)
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten: {options.json}")


if __name__ == "__main__":
    main()
