"""./dev bench --control: what the control plane costs with many listeners, and what it costs the traffic.

Figures that are times are taken on this machine while nothing else of the
bench runs; comparisons (connection rates, relay throughput) are taken in
turns in one run, in labs of their own: read their ratios.
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

import checks
import seeing
from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.netns import CommandFailed
from lab.process import rss_kib
from lab.servers import Nginx, wait_listening

GWLOAD = ROOT / "build/release/tests/gwload"
HTTP_PORT = 8000
SINK_PORT = 5001
PROXY_PORT = 9999
FIRST_PORT = 10000


def say(text):
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)


def percentile(values, share):
    """The value below which so many per cent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def listeners(count):
    """So many that differ in destination and port, as a hosting network would have them, and the one that is used."""
    many = [{"name": f"l{n}", "destinations": [f"198.{18 + n // 25600 % 2}.{n // 100 % 256}.{n % 100 + 1}"],
             "ports": [str(FIRST_PORT + n % 7)]} for n in range(count - 1)]
    return many + [{"name": "used", "ports": [str(HTTP_PORT), str(SINK_PORT)]}]


class Contender:
    """A lab with servers, and a gateway with so many listeners or rules in it."""

    def __init__(self, name):
        self.name, self.lab = name, Lab()
        self.nginx = Nginx(self.lab, self.lab.server, ports=(HTTP_PORT,), logging=False)
        self.lab.start(self.lab.server, "sink", GWLOAD, "sink", SINK_PORT)
        wait_listening(self.lab.server, SINK_PORT)
        self.gateway = None

    def load(self, mode, seconds):
        """The load generator's result."""
        more = [SINK_PORT, 4, seconds] if mode == "bulk" else [HTTP_PORT, "/tiny", 32, seconds, 1]
        return json.loads(self.lab.client.run(GWLOAD, mode, self.lab.server.v4, *more, timeout=seconds + 60).stdout)

    def connections(self, seconds):
        """Connections a second."""
        result = self.load("conn", seconds)
        failed = sum(result[k] for k in ("refused", "reset", "broken", "timed_out"))
        if failed > result["done"] / 1000:
            raise SystemExit(f"bench: {self.name}: {failed} failures beside {result['done']} answers")
        return result["per_second"]

    def close(self):
        """Ends everything."""
        if self.gateway:
            self.gateway.close()
        self.lab.close()


def gatewayd(name, count):
    """gatewayd with so many listeners, put in one document; also the seconds that took."""
    contender = Contender(name)
    contender.gateway = Gateway(contender.lab, build="release", bpf=True)
    document = contender.gateway.must("GET", "config") | {"listeners": listeners(count)}
    started = time.monotonic()
    contender.gateway.must("PUT", "config", document, timeout=300)
    contender.put_seconds = time.monotonic() - started
    return contender


def iptables(name, count, program):
    """The same count of TPROXY rules of iptables in front of the one relay listener that is used; None if not here."""
    if not shutil.which(program):
        say(f"bench: no {program} here (apt-get install iptables)")
        return None
    contender = gatewayd(name, 1)
    rules = "".join(f"-A PREROUTING -d {l['destinations'][0]} -p tcp --dport {l['ports'][0]} -j TPROXY --on-port {PROXY_PORT} "
                    "--tproxy-mark 0x1/0x1\n" for l in listeners(count)[:-1])
    started = time.monotonic()
    try:
        contender.lab.gateway.run(f"{program}-restore", input=f"*mangle\n{rules}COMMIT\n", timeout=300)
    except CommandFailed as error:
        say(f"bench: {program} does not work on this kernel: {str(error)[-300:]}")
        contender.close()
        return None
    contender.put_seconds = time.monotonic() - started
    return contender


# ---- one figure each ----

def one_more(contender, count):
    """Milliseconds from curl's first byte to its answer for one more listener, and for its deletion."""
    gateway, times = contender.gateway, []
    body = json.dumps({"destinations": ["203.0.113.7"], "ports": ["443"]})
    for number in range(count):
        url = f"http://localhost/api/v1/listeners/more{number % 2}"
        method = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", body] if number % 4 < 2 else ["-X", "DELETE"]
        if number % 4 == 1:
            method[-1] = body.replace("443", "444")
        out = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_pretransfer} %{time_total}", "--unix-socket",
                              gateway.socket, url, *method], capture_output=True, text=True, check=True).stdout
        code, begun, total = out.split()
        if code not in ("200", "201", "204"):
            raise SystemExit(f"bench: {method} {url}: {code}")
        times.append((float(total) - float(begun)) * 1000)
        if number % 25 == 0:
            check_kernel(contender, number % 4 < 3)
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "max_ms": max(times), "n": count}


def check_kernel(contender, there):
    """When the answer is there, nft has it."""
    text = contender.lab.gateway.run("nft", "list", "table", "inet", "gatewayd").stdout
    if ("203.0.113.7" in text) != there:
        raise SystemExit("bench: the kernel does not have what was answered")


def start_seconds(contender, rounds):
    """Seconds from exec to ready, with everything in the kernel already, and on an empty kernel."""
    gateway, warm, cold = contender.gateway, [], []
    for _ in range(rounds):
        gateway.stop()
        started = time.monotonic()
        gateway.start()
        warm.append(time.monotonic() - started)
    for _ in range(rounds):
        gateway.stop()
        contender.lab.gateway.run("nft", "flush", "ruleset")
        started = time.monotonic()
        gateway.start()
        cold.append(time.monotonic() - started)
    return {"adopting_s": statistics.median(warm), "empty_kernel_s": statistics.median(cold)}


def address_set(contender, entries, used=False):
    """Seconds to load a large set and milliseconds for one entry more, also of a set that a listener uses."""
    gateway = contender.gateway
    text = "".join(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}\n" for n in range(entries)).encode()
    gateway.must("PUT", "address-sets/big", {"name": "big", "entries": []})
    if used:
        gateway.must("PUT", "listeners/uses-big", {"destinations": ["@big"], "ports": ["443"]})
    started = time.monotonic()
    answer = gateway.api("PUT", "address-sets/big/entries", text, {"Content-Type": "text/plain"}, timeout=300)
    seconds = time.monotonic() - started
    if answer.status >= 300:
        say(f"bench: no bulk entries yet: {answer.status}")
        return address_set_by_document(gateway, entries)
    times = []
    for number in range(100):
        started = time.monotonic()
        more = gateway.api("POST", "address-sets/big/entries", f"192.0.2.{number}\n".encode(), {"Content-Type": "text/plain"})
        times.append((time.monotonic() - started) * 1000)
        if more.status >= 300:
            raise SystemExit(f"bench: one entry more: {more}")
    return {"load_s": seconds, "one_more_p50_ms": percentile(times, 50), "one_more_p99_ms": percentile(times, 99),
            "how": "entries"}


def address_set_by_document(gateway, entries):
    """The same through the set's own document."""
    items = [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(entries)]
    started = time.monotonic()
    answer = gateway.api("PUT", "address-sets/big", {"name": "big", "entries": items}, timeout=300)
    seconds = time.monotonic() - started
    if answer.status >= 300:
        return {"refused": answer.status, "detail": answer.text[:200], "how": "document"}
    return {"load_s": seconds, "how": "document"}


def processor_seconds(pid):
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Readers:
    """32 clients that ask the API, or a peer that answers the same bytes from memory, over connections that stay. One
    compiled program, so that what it takes of the processors is the same for both and little."""

    CLIENTS, PEER_PORT, API_PORT = 32, 8081, 8080
    PATH = "/api/v1/listeners/used"

    def __init__(self, contender, where, seconds, rate):
        gateway = contender.gateway
        port = self.API_PORT if where == "api" else self.PEER_PORT
        environment = os.environ | {"GWLOAD_RATE": str(rate), "GWLOAD_HEADER": f"Authorization: Bearer {gateway.token()}"}
        self.process = subprocess.Popen(contender.lab.gateway.command(GWLOAD, "http", "127.0.0.1", port, self.PATH,
                                                                      self.CLIENTS, seconds, 1),
                                        stdout=subprocess.PIPE, text=True, env=environment)

    def result(self):
        """Answers a second and their p99."""
        out = self.process.communicate(timeout=120)[0]
        if self.process.returncode:
            raise SystemExit("bench: the reader of the API failed")
        found = json.loads(out)
        if not found["done"] or found["broken"] or found["refused"]:
            raise SystemExit(f"bench: the reader's answers are not good: {found}")
        return found

    @classmethod
    def peer(cls, contender):
        """nginx beside gatewayd, with an answer of the same size."""
        body = contender.gateway.api("GET", "listeners/used").body.decode()
        return StaticPeer(contender.lab, cls.PEER_PORT, cls.PATH, body)


class StaticPeer:
    """nginx on the gateway's loopback with one answer in its configuration."""

    def __init__(self, lab, port, path, body):
        folder = lab.directory / "static-peer"
        folder.mkdir(exist_ok=True)
        (folder / "body").write_text(body)
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; keepalive_requests 100000000; open_file_cache max=10;\n"
            f" server {{ listen 127.0.0.1:{port}; location = {path} {{ default_type application/json; alias {folder}/body; }} }} }}\n")
        self.process = lab.start(lab.gateway, "static-peer", "nginx", "-c", folder / "nginx.conf", "-p", folder)
        wait_listening(lab.gateway, port)

    def close(self):
        """Ends it."""
        self.process.stop()


def gets_while_relaying(contender, rounds, seconds, rate):
    """Relay throughput alone, beside readers of the API, and beside the same readers of nginx, in turns. What is lost to
    us is the difference between the last two: the readers' own processor time is in both."""
    moved, readers = {"alone": [], "api": [], "nginx": []}, {"api": [], "nginx": []}
    used, pid, peer = [], contender.gateway.process.pid, Readers.peer(contender)
    try:
        for number in range(rounds):
            order = ["alone", "api", "nginx"]
            for where in order[number % 3:] + order[:number % 3]:
                asking = Readers(contender, where, seconds + 0.6, rate) if where != "alone" else None
                time.sleep(0.3)
                before = processor_seconds(pid)
                moved[where].append(contender.load("bulk", seconds)["gbit_per_second"])
                if where == "api":
                    used.append((processor_seconds(pid) - before) / seconds)
                if asking:
                    readers[where].append(asking.result())
    finally:
        peer.close()
    middle = {where: statistics.median(values) for where, values in moved.items()}
    pairs = [1 - a / n for a, n in zip(moved["api"], moved["nginx"])]
    return {"daemon_processors": statistics.median(used),
            "gets_per_s": statistics.median(r["per_second"] for r in readers["api"]),
            "p99_ms": statistics.median(r["p99_us"] for r in readers["api"]) / 1000,
            "nginx_gets_per_s": statistics.median(r["per_second"] for r in readers["nginx"]),
            "relay_gbit_s": middle, "all": moved, "loss_beside_nginx": statistics.median(pairs),
            "loss_beside_alone": 1 - middle["api"] / middle["alone"]}


def rates(contenders, rounds, seconds):
    """Connections a second of all, taking turns: {name: {median, all, to the first}}."""
    found = {c.name: [] for c in contenders}
    for number in range(rounds):
        order = contenders[number % len(contenders):] + contenders[:number % len(contenders)]
        for contender in order:
            found[contender.name].append(contender.connections(seconds))
            say(f"round {number + 1}: {contender.name:28} {found[contender.name][-1]:10.0f} connections/s")
    base = statistics.median(found[contenders[0].name])
    return {name: {"median": statistics.median(v), "all": v, "to_one_listener": statistics.median(v) / base}
            for name, v in found.items()}


# ---- the whole ----

def measure(options, opened):
    """All figures as one document."""
    count = options.listeners
    many = gatewayd(f"gatewayd, {count} listeners", count)
    opened.append(many)
    pid = many.gateway.process.pid
    result = {"listeners": count, "put_config_s": many.put_seconds, "rss_after_put_mib": rss_kib(pid) / 1024}
    say(f"PUT /config: {many.put_seconds:.2f} s")
    started = time.monotonic()
    changed = many.gateway.must("GET", "config")
    changed["listeners"][0]["ports"] = ["4242"]
    many.gateway.must("PUT", "config", changed, timeout=300)
    result["put_config_one_changed_s"] = time.monotonic() - started
    result["one_more"] = one_more(many, options.writes)
    result["start"] = start_seconds(many, 3)
    result["rss_after_start_mib"] = rss_kib(many.gateway.process.pid) / 1024
    say(json.dumps(result))
    result["gets_full"] = gets_while_relaying(many, options.rounds, options.seconds, 0)
    result["gets_2000"] = gets_while_relaying(many, options.rounds, options.seconds, 2000)
    result["connections"] = measure_rates(many, options, opened)
    result["address_set"] = address_set(many, options.entries)
    result["address_set_used"] = address_set(many, options.entries, used=True)
    result["rss_with_set_mib"] = rss_kib(many.gateway.process.pid) / 1024
    result["seeing"] = seeing.measure(many, GWLOAD, HTTP_PORT, options.rounds, options.seconds)
    result["checks"] = checks.measure(options.rounds, options.seconds)
    return result


def measure_only(options, opened):
    """One kind of figure."""
    if options.only == "checks":
        return {"checks": checks.measure(options.rounds, options.seconds)}
    opened.append(gatewayd(f"gatewayd, {options.listeners} listeners", options.listeners))
    if options.only == "seeing":
        return {"seeing": seeing.measure(opened[0], GWLOAD, HTTP_PORT, options.rounds, options.seconds)}
    if options.only == "gets":
        return {"gets_2000": gets_while_relaying(opened[0], options.rounds, options.seconds, 2000)}
    if options.only == "set":
        return {"unused": address_set(opened[0], options.entries), "used": address_set(opened[0], options.entries, used=True)}
    return {"connections": measure_rates(opened[0], options, opened)}


def measure_rates(many, options, opened):
    """Connection rates with one listener, with many, and with as many rules of iptables."""
    contenders = [gatewayd("gatewayd, 1 listener", 1), many]
    opened.append(contenders[0])
    for program in ("iptables-nft", "iptables-legacy"):
        made = iptables(f"{program}, {options.listeners} rules", options.listeners, program)
        if made:
            opened.append(made)
            contenders.append(made)
    return rates(contenders, options.rounds, options.seconds)


def table(result):
    """The figures with their targets, as text."""
    more, start = result["one_more"], result["start"]
    rows = [("PUT /config", f"{result['put_config_s']:.2f} s", "< 3 s"),
            ("PUT /config, one listener changed", f"{result['put_config_one_changed_s']:.2f} s", ""),
            ("one more listener, p50 / p99", f"{more['p50_ms']:.1f} / {more['p99_ms']:.1f} ms", "p99 <= 10 ms"),
            ("start, adopting what is in the kernel", f"{start['adopting_s']:.2f} s", "< 2 s"),
            ("start on an empty kernel", f"{start['empty_kernel_s']:.2f} s", "< 2 s"),
            ("RSS of the daemon after PUT / start", f"{result['rss_after_put_mib']:.0f} / {result['rss_after_start_mib']:.0f} MiB",
             "<= 64 MiB")]
    for key, title in (("gets_full", "GETs, 32 clients, as fast as they can"), ("gets_2000", "GETs, 32 clients, 2000/s asked for")):
        gets = result[key]
        rows += [(title, f"{gets['gets_per_s']:.0f} /s, p99 {gets['p99_ms']:.0f} ms", ">= 2000 /s"),
                 ("   relay alone / with GETs / with GETs of nginx", " / ".join(f"{v:.2f}" for v in gets["relay_gbit_s"].values()) + " Gbit/s",
                  f"loss to nginx {gets['loss_beside_nginx'] * 100:.1f} % (<= 1 %), to alone {gets['loss_beside_alone'] * 100:.1f} %"),
                 ("   processors used by the daemon", f"{gets['daemon_processors']:.2f}", "")]
    for name, rate in result["connections"].items():
        rows.append((f"connections: {name}", f"{rate['median']:.0f} /s", f"ratio {rate['to_one_listener']:.3f}"))
    for key, title in (("address_set", "address set"), ("address_set_used", "address set that a listener uses")):
        sets = result[key]
        rows.append((f"{title}, by {sets['how']}", json.dumps({k: round(v, 3) if isinstance(v, float) else v
                                                                  for k, v in sets.items() if k != "how"}), "load < 3 s, p99 <= 10 ms"))
    rows += seeing.rows(result["seeing"])
    for kind, found in result["checks"].items():
        rows.append((f"{checks.TARGETS} health checks a second, {kind}",
                     " / ".join(f"{found[place]['processor'] * 100:.1f}" for place in ("as_it_is", "targets_elsewhere")) +
                     " % of a processor", "<= 5 %; with / without the targets' kernel"))
    return "\n".join(f"{title:46} {value:34} {target}" for title, value, target in rows)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench --control", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--listeners", type=int, default=10000)
    parser.add_argument("--writes", type=int, default=400, help="single writes measured (default 400)")
    parser.add_argument("--entries", type=int, default=100000, help="entries of the address set (default 100000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default 3)")
    parser.add_argument("--only", choices=("gets", "connections", "set", "checks", "seeing"), help="only these figures")
    parser.add_argument("--json", default="bench-control.json", help="where the figures go (default bench-control.json)")
    return parser.parse_args()


def main():
    """Measures, prints the table, writes the file."""
    options, opened = arguments(), []
    try:
        result = measure_only(options, opened) if options.only else measure(options, opened)
    finally:
        for contender in opened:
            contender.close()
    result["environment"] = {"kernel": os.uname().release, "processors": os.cpu_count(), "load": os.getloadavg()[0]}
    print(f"\nkernel {os.uname().release}, {os.cpu_count()} processors shared by everything, load {os.getloadavg()[0]:.1f}\n")
    print(json.dumps(result, indent=1) if options.only else table(result))
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten: {options.json}")


if __name__ == "__main__":
    main()
