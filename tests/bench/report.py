"""From measurements to medians, ratios, added costs and verdicts; as text and as JSON."""

import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

from lab.gateway import ROOT
from lab.netns import run


def medians(measured):
    """{key: median} of a list of measurements of one kind."""
    return {key: statistics.median(m[key] for m in measured) for key in measured[0]}


def summarise(rows, figures, refused, failed):
    """What goes into the JSON file: for each row, each contender's medians, all figures, ratios, costs and verdict.

    figures: {row name: {contender name: [measurement]}}; refused, failed: {row name: {contender name: why}}."""
    return [summarise_row(row, figures[row.name], refused[row.name], failed[row.name]) for row in rows]


def summarise_row(row, measured, refused, failed):
    """The same for one row."""
    by_name = {name: medians(values) for name, values in measured.items() if values}
    forwarding, rival = by_name.get("forwarding"), by_name.get(row.rival)
    entries = {}
    for name, median in by_name.items():
        entry = {"median": median, "all": measured[name]}
        for label, base in (("to_forwarding", forwarding), ("to_rival", rival)):
            if base and base["figure"]:
                entry[label] = median["figure"] / base["figure"]
        if forwarding and name != "forwarding":
            entry["added_cost"] = row.cost(median["figure"], forwarding["figure"])
        if name.startswith("gatewayd"):
            verdict = row.judge(median, forwarding, rival)
            entry["verdict"], entry["reason"] = verdict.word(), verdict.text
            if name in failed:
                entry["verdict"], entry["reason"] = "NOT REACHED", f"failed: {failed[name]}"
            h = rival and forwarding and row.cost(rival["figure"], forwarding["figure"])
            entry["cost_to_rival"] = entry["added_cost"] / h if h and entry.get("added_cost") is not None else None
        entries[name] = entry
    return {"name": row.name, "title": row.title, "unit": row.unit, "cost_unit": row.cost_unit, "rival": row.rival,
            "contenders": entries, "not_supported": refused, "failed": failed}


def number(value, digits=2):
    """A figure as text, empty if there is none."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def table(summary):
    """The summary as text."""
    lines = []
    for row in summary:
        lines.append(f"{row['name']}: {row['title']} [{row['unit']}]")
        cost = f"added {row['cost_unit']}" if row["cost_unit"] else ""
        lines.append(f"  {'':16} {'median':>9} {'lowest':>9} {'highest':>9} {'to f':>6} {'to h':>6} {cost:>20} {'cost to h':>9} "
                     f"{'CPUs':>5}  beside")
        for name, entry in row["contenders"].items():
            lines.append(contender_line(name, entry))
        for name, why in row["not_supported"].items():
            lines.append(f"  {name:16} not supported: {why}")
        lines += [f"  {name:16} FAILED: {why}" for name, why in row["failed"].items()]
        lines += [f"  {name}: {entry['verdict']}: {entry['reason']}" for name, entry in row["contenders"].items()
                  if "verdict" in entry]
        lines.append("")
    return "\n".join(lines)


def contender_line(name, entry):
    """One line of the table."""
    all_figures = [m["figure"] for m in entry["all"]]
    more = ", ".join(f"{key} {number(value)}" for key, value in entry["median"].items() if key not in ("figure", "processors"))
    return (f"  {name:16} {number(entry['median']['figure']):>9} {number(min(all_figures)):>9} {number(max(all_figures)):>9} "
            f"{number(entry.get('to_forwarding')):>6} {number(entry.get('to_rival')):>6} {number(entry.get('added_cost')):>20} "
            f"{number(entry.get('cost_to_rival')):>9} {entry['median']['processors']:5.2f}  {more}")


def verdicts(summary):
    """(passed, not reached, not judged) of all rows."""
    words = [entry["verdict"] for row in summary for entry in row["contenders"].values() if "verdict" in entry]
    missing = sum(name.startswith("gatewayd") for row in summary for name in {**row["not_supported"], **row["failed"]}
                  if name not in row["contenders"])
    return words.count("PASS"), words.count("NOT REACHED"), words.count("-") + missing


def environment():
    """On what, with what and by what command this was measured."""
    commit = run("git", "-c", "safe.directory=*", "-C", ROOT, "describe", "--always", "--dirty", check=False).stdout.strip()
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {"kernel": platform.release(), "machine": platform.machine(), "processor": cpus[0] if cpus else "",
            "processors": os.cpu_count(), "memory_kib": int(memory.group(1)) if memory else 0,
            "load_before": os.getloadavg()[0], "commit": commit, "haproxy": version("/usr/sbin/haproxy", "-v"),
            "nginx": version("/usr/sbin/nginx", "-v"), "command": "./dev bench " + " ".join(sys.argv[1:]),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def version(*command):
    """The first version number that a program says; empty if it is not there."""
    try:
        done = run(*command, check=False)
    except OSError:
        return ""
    found = re.search(r"\d+\.\d+[.\w]*", done.stdout + done.stderr)
    return found.group(0) if found else ""
