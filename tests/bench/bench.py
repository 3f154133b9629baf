"""./dev bench: what a gateway costs, side by side with plain forwarding and HAProxy.

Each contender has a lab of its own, so that nothing is reconfigured between
measurements; only one is under load at a time, and they take turns in every
round. Client, gateway and server share this machine's processors: read the
ratios, not the absolute figures.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.netns import run
from lab.process import wait_for
from lab.servers import Nginx, wait_listening

SINK_PORT = 5001
HTTP_PORT = 8000
PROXY_PORT = 9999
MARK = 1
GWLOAD = ROOT / "build/release/tests/gwload"

# Row -> (what is printed, unit of the figure, the load generator's arguments after its mode and address).
ROWS = {
    "bulk1": ("bulk, 1 stream", "Gbit/s", lambda s: ["bulk", SINK_PORT, 1, s]),
    "bulk8": ("bulk, 8 streams", "Gbit/s", lambda s: ["bulk", SINK_PORT, 8, s]),
    "single": ("requests, 1 kept-alive connection", "1/s", lambda s: ["http", HTTP_PORT, "/tiny", 1, s, 1]),
    "keepalive": ("requests, 32 kept-alive connections", "1/s", lambda s: ["http", HTTP_PORT, "/tiny", 32, s, 1]),
    "connections": ("connections, one request each", "1/s", lambda s: ["conn", HTTP_PORT, "/tiny", 32, s, 1]),
}

HAPROXY = """
global
    maxconn 4000
    nbthread {threads}
    log 127.0.0.1 local0 emerg
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
HAPROXY_PORT = """
listen port{port}
    bind 0.0.0.0:{listen} transparent
    source 0.0.0.0 usesrc clientip
    server own {address}:{port}
"""
TPROXY = """
table ip bench {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        tcp flags & (syn | ack) != syn meta l4proto {{ tcp, icmp }} socket transparent 1 socket wildcard 0 meta mark set {mark} accept
        iifname "in0" tcp dport {port_a} tproxy ip to :{listen_a} meta mark set {mark} accept
        iifname "in0" tcp dport {port_b} tproxy ip to :{listen_b} meta mark set {mark} accept
    }}
}}
"""


class Contender:
    """One way from client to server: its lab with servers in it, and what it needs on the gateway."""

    def __init__(self, name):
        self.name = name
        self.lab = Lab()
        self.nginx = Nginx(self.lab, self.lab.server, ports=(HTTP_PORT,), logging=False)
        self.lab.start(self.lab.server, "sink", GWLOAD, "sink", SINK_PORT)
        wait_listening(self.lab.server, SINK_PORT)

    def measure(self, row, seconds):
        """One figure of one row."""
        mode, port, *rest = ROWS[row][2](seconds)
        out = self.lab.client.run(GWLOAD, mode, self.lab.server.v4, port, *rest, timeout=seconds + 60).stdout
        result = json.loads(out)
        if mode == "bulk":
            return result["gbit_per_second"]
        failed = sum(result[k] for k in ("refused", "reset", "broken", "timed_out"))
        if failed > result["done"] / 1000:
            raise SystemExit(f"bench: {self.name}, {row}: {failed} failures beside {result['done']} answers: {result}")
        return result["per_second"]

    def processor_seconds(self):
        """Processor time spent so far by the contender's own program; 0 if there is none."""
        return sum(process_seconds(pid) for pid in self.pids())

    def pids(self):
        """Process ids of the program that relays."""
        return []

    def close(self):
        """Ends everything."""
        self.lab.close()


class Forwarding(Contender):
    """No gateway program at all: the kernel forwards."""


class Haproxy(Contender):
    """Debian's HAProxy in TCP mode, splicing, with the clients' addresses, its tproxy rules made by hand."""

    def __init__(self, name):
        super().__init__(name)
        gateway = self.lab.gateway
        listen_a, listen_b = PROXY_PORT, PROXY_PORT + 1
        gateway.nft(TPROXY.format(mark=MARK, port_a=HTTP_PORT, listen_a=listen_a, port_b=SINK_PORT, listen_b=listen_b))
        gateway.run("ip", "rule", "add", "fwmark", MARK, "lookup", 100)
        gateway.run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", 100)
        config = self.lab.directory / "haproxy.cfg"
        text = HAPROXY.format(threads=os.cpu_count())
        for port, listen in ((HTTP_PORT, listen_a), (SINK_PORT, listen_b)):
            text += HAPROXY_PORT.format(port=port, listen=listen, address=self.lab.server.v4)
        config.write_text(text)
        self.process = self.lab.start(gateway, "haproxy", "/usr/sbin/haproxy", "-db", "-f", config)
        wait_listening(gateway, listen_b)
        check_transparent(self)

    def pids(self):
        return [self.process.pid]


class Gatewayd(Contender):
    """This project, release build."""

    def __init__(self, name, mover=None):
        super().__init__(name)
        self.gateway = Gateway(self.lab, build="release", mover=mover, bpf=mover in (None, "sockmap"))
        state, why = self.gateway.sockmap()
        if mover == "sockmap" and state != "on":
            raise SystemExit(f"bench: no sockmap here: {state}, {why}")
        self.gateway.listener("bench", ports=[str(HTTP_PORT), str(SINK_PORT)])
        check_transparent(self)
        check_relayed(self)

    def pids(self):
        return [self.gateway.relay_pid()]

    def close(self):
        self.gateway.close()
        super().close()


CONTENDERS = {
    "forwarding": Forwarding,
    "haproxy": Haproxy,
    "gatewayd": Gatewayd,
    "gatewayd-copy": lambda name: Gatewayd(name, "copy"),
    "gatewayd-splice": lambda name: Gatewayd(name, "splice"),
    "gatewayd-sockmap": lambda name: Gatewayd(name, "sockmap"),
}


def process_seconds(pid):
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_transparent(contender):
    """The server must see the client's own address, or the comparison is none."""
    def seen():
        return contender.lab.client.run("curl", "-sS", "-m", 5, f"http://{contender.lab.server.v4}:{HTTP_PORT}/whoami",
                                        check=False).stdout
    text = wait_for(seen, 10, f"an answer through {contender.name}")
    if f"sees {contender.lab.client.v4}" not in text:
        raise SystemExit(f"bench: {contender.name} is not transparent: {text!r}")


def check_relayed(contender):
    """And the connections must really go through the gateway's relay."""
    with contender.lab.client.connect(contender.lab.server.v4, HTTP_PORT):
        sockets = contender.lab.gateway.run("ss", "-Htn", f"dport = :{HTTP_PORT}").stdout
    if contender.lab.client.v4 not in sockets:
        raise SystemExit(f"bench: {contender.name} does not relay: {sockets!r}")


def measure_all(contenders, rows, rounds, seconds):
    """{row: {contender: [(figure, processor share of the contender)]}}, contenders taking turns."""
    figures = {row: {c.name: [] for c in contenders} for row in rows}
    for number in range(rounds):
        for row in rows:
            # Whoever comes first pays for cold caches: each round begins with another.
            order = contenders[number % len(contenders):] + contenders[:number % len(contenders)]
            for contender in order:
                before, started = contender.processor_seconds(), time.monotonic()
                figure = contender.measure(row, seconds)
                used = (contender.processor_seconds() - before) / (time.monotonic() - started)
                figures[row][contender.name].append((figure, used))
                print(f"round {number + 1}: {row:12} {contender.name:16} {figure:12.2f} {ROWS[row][1]}", file=sys.stderr)
    return figures


def summarise(figures):
    """Medians, spreads and ratios of the figures, as they go into the JSON file."""
    rows = {}
    for row, by_name in figures.items():
        medians = {name: statistics.median(f for f, _ in values) for name, values in by_name.items()}
        rows[row] = {"title": ROWS[row][0], "unit": ROWS[row][1], "contenders": {}}
        for name, values in by_name.items():
            entry = {"median": medians[name], "all": [f for f, _ in values],
                     "processors": statistics.median(u for _, u in values)}
            for base in ("forwarding", "haproxy"):
                if base in medians:
                    entry[f"to_{base}"] = medians[name] / medians[base]
            rows[row]["contenders"][name] = entry
    return rows


def ratio(entry, base):
    """A ratio as text, empty if there is nothing to compare with."""
    return f"{entry[base]:.2f}" if base in entry else ""


def table(rows):
    """The text table."""
    lines = [f"{'':36} {'':16} {'median':>12} {'lowest':>10} {'highest':>10} {'to plain':>9} {'to HAProxy':>11} {'CPUs':>6}"]
    for row in rows.values():
        for name, entry in row["contenders"].items():
            lines.append(f"{row['title']:36} {name:16} {entry['median']:12.2f} {min(entry['all']):10.2f} "
                         f"{max(entry['all']):10.2f} {ratio(entry, 'to_forwarding'):>9} {ratio(entry, 'to_haproxy'):>11} "
                         f"{entry['processors']:6.2f}  {row['unit']}")
        lines.append("")
    return "\n".join(lines)


def environment():
    """On what this was measured."""
    version = run("/usr/sbin/haproxy", "-v").stdout
    commit = run("git", "-c", "safe.directory=*", "-C", ROOT, "rev-parse", "--short", "HEAD", check=False).stdout.strip()
    return {"kernel": platform.release(), "processors": os.cpu_count(), "commit": commit,
            "haproxy": re.search(r"version (\S+)", version).group(1), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (default 3)")
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default 3)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["forwarding", "haproxy", "gatewayd"])
    parser.add_argument("--json", default="bench-result.json", help="where the figures go (default bench-result.json)")
    return parser.parse_args()


def main():
    """Measures, prints the table, writes the file."""
    options = arguments()
    contenders = []
    try:
        for name in options.contenders:
            contenders.append(CONTENDERS[name](name))
        rows = summarise(measure_all(contenders, options.rows, options.rounds, options.seconds))
    finally:
        for contender in contenders:
            contender.close()
    about = environment()
    print(f"\nkernel {about['kernel']}, {about['processors']} processors shared by client, gateway and server, "
          f"HAProxy {about['haproxy']}, {options.rounds} rounds of {options.seconds:g} s\n")
    print(table(rows))
    Path(options.json).write_text(json.dumps({"environment": about, "rows": rows}, indent=2) + "\n")
    print(f"written: {options.json}")


if __name__ == "__main__":
    main()
