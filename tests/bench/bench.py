"""./dev bench: what a gateway costs, side by side with plain forwarding, HAProxy and nginx.

Each contender has a lab of its own, so that nothing is reconfigured between
measurements; only one is under load at a time, and they take turns in every
round. Client, gateway and server share this machine's processors: read the
ratios, not the absolute figures. docs/bench.md explains the rows.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import report
from contenders import NotSupported, make
from lab.netns import CommandFailed
from pool import ROWS as POOL_ROWS
from rows import ALL as TRAFFIC_ROWS, Failure

ALL = [*TRAFFIC_ROWS, *POOL_ROWS]
BY_NAME = {row.name: row for row in ALL}
QUICK = {"rounds": 2, "seconds": 1.0}
USUAL = {"rounds": 5, "seconds": 3.0}


def say(text):
    """Progress, beside the figures."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The contenders of one run, and what was measured."""

    def __init__(self, names, rows, seconds, family):
        self.rows, self.seconds = rows, seconds
        self.contenders, self.missing = [], {}
        self.figures = {row.name: {name: [] for name in names} for row in rows}
        self.refused = {row.name: {} for row in rows}
        self.failed = {row.name: {} for row in rows}
        kinds = {row.kind for row in rows}
        for name in names:
            try:
                contender = make(name, family)
            except NotSupported as reason:
                self.missing[name] = reason
                continue
            self.contenders.append(contender)
            if not kinds & set(contender.kinds):
                contender.close()
                self.contenders.remove(contender)

    def round(self, number):
        """One measurement of each row for each contender, another one first in each round: the first pays for cold caches."""
        shift = number % max(1, len(self.contenders))
        for row in self.rows:
            for contender in self.contenders[shift:] + self.contenders[:shift]:
                self.measure(number, row, contender)

    def measure(self, number, row, contender):
        """One measurement, if the contender can do that kind at all."""
        if row.kind not in contender.kinds:
            return
        try:
            contender.prove(row.kind)
        except NotSupported as reason:
            self.refused[row.name][contender.name] = str(reason)
            return
        before, started = contender.processor_seconds(), time.monotonic()
        try:
            measured = row.measure(contender, self.seconds)
        except (Failure, CommandFailed, subprocess.TimeoutExpired) as failure:
            self.failed[row.name][contender.name] = str(failure)
            say(f"round {number + 1}: {row.name:12} {contender.name:16} FAILED: {failure}")
            return
        # A row that starts the program anew has no processor time to compare.
        used = 0.0 if row.fresh else (contender.processor_seconds() - before) / (time.monotonic() - started)
        self.figures[row.name][contender.name].append(measured | {"processors": used})
        say(f"round {number + 1}: {row.name:12} {contender.name:16} {measured['figure']:12.2f} {row.unit}")

    def summary(self):
        """See report.summarise."""
        for row in self.rows:
            for name, reason in self.missing.items():
                if name == row.rival or name.startswith("gatewayd"):
                    self.refused[row.name][name] = str(reason)
        return report.summarise(self.rows, self.figures, self.refused, self.failed)

    def close(self):
        """Ends all contenders."""
        for contender in self.contenders:
            contender.close()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, help=f"how often each figure is taken (default {USUAL['rounds']})")
    parser.add_argument("--seconds", type=float, help=f"length of one measurement (default {USUAL['seconds']:g})")
    parser.add_argument("--quick", action="store_true",
                        help=f"{QUICK['rounds']} rounds of {QUICK['seconds']:g} s: whether it works, not what it costs")
    parser.add_argument("--rows", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="ROW",
                        help=f"of {', '.join(BY_NAME)} (default all)")
    parser.add_argument("--contenders", nargs="+", default=["forwarding", "haproxy", "nginx", "gatewayd"],
                        help="forwarding, haproxy, nginx (UDP), gatewayd, gatewayd-MOVER; -ebpf behind it: with that engine (default the first four)")
    parser.add_argument("--ipv6", action="store_true", help="over IPv6 instead of IPv4")
    parser.add_argument("--json", default="bench-result.json", help="where the figures go (default bench-result.json)")
    options = parser.parse_args()
    for key, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be greater than 0")
    return options


def main():
    """Measures, prints the table, writes the file."""
    options = arguments()
    about = report.environment()
    bench = Bench(options.contenders, [row for row in ALL if row.name in options.rows], options.seconds,
                  6 if options.ipv6 else 4)
    try:
        for number in range(options.rounds):
            bench.round(number)
    finally:
        bench.close()
    summary = bench.summary()
    print(f"\nkernel {about['kernel']}, {about['processors']} processors ({about['processor']}) for client, gateway and server")
    print(f"HAProxy {about['haproxy']}, nginx {about['nginx']}, commit {about['commit']}")
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s; load before it began: {about['load_before']:.2f} "
          "(other work makes figures worthless)")
    print(f"command: {about['command']}")
    print("f: forwarding, h: haproxy or for UDP nginx; added: 1/rate less that of f; CPUs: used by the gateway's own "
          "processes\n")
    print(report.table(summary))
    about |= {"rounds": options.rounds, "seconds": options.seconds, "family": 6 if options.ipv6 else 4}
    Path(options.json).write_text(json.dumps({"environment": about, "rows": summary}, indent=2) + "\n")
    print("%d requirements reached, %d not reached, %d not judged" % report.verdicts(summary))
    print(f"written: {options.json}")
    sys.exit(1 if any(bench.failed.values()) else 0)


if __name__ == "__main__":
    main()
