"""What `promtool check metrics` asks of a text, and the rules of the format itself, for machines without promtool."""

import re
import shutil
import subprocess

NAME = re.compile(r"[a-z_][a-z0-9_]*")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([0-9.eE+-]+|\+Inf|NaN)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
# Units that have a base unit, and short forms of units, as words of a name.
NOT_BASE = {"milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks", "kilobytes", "megabytes",
            "gigabytes", "bits", "percent", "fahrenheit", "kelvin", "inches", "feet", "pounds", "kilometers", "grams",
            "s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d", "pct"}


def parse_labels(text):
    """[(name, value)] of the text between braces; None if it is not well formed."""
    labels, position = [], 0
    while position < len(text):
        match = LABEL.match(text, position)
        if not match:
            return None
        labels.append(match.groups())
        position = match.end()
        if position < len(text):
            if text[position] != ",":
                return None
            position += 1
    return labels


class Family:
    """One metric: its HELP, TYPE and samples [(name, labels, value)]."""

    def __init__(self, name):
        self.name, self.help, self.type, self.samples = name, None, None, []

    def member(self, name):
        """Whether a sample of this name belongs here."""
        suffixes = ("_bucket", "_sum", "_count") if self.type == "histogram" else ("",)
        return name in [self.name + suffix for suffix in suffixes]

    def faults(self):
        """What is wrong with it."""
        words = self.name.split("_")
        if not self.help:
            yield "no help"
        if self.type not in TYPES:
            yield f"type {self.type}"
        if not NAME.fullmatch(self.name):
            yield "a name that is not lower case"
        if (self.type == "counter") != self.name.endswith("_total"):
            yield "counters end in _total, and nothing else does"
        if self.type != "histogram" and words[-1] in ("count", "sum", "bucket", "info") and words[-2:] != ["build", "info"]:
            yield "a reserved ending"
        if set(words) & set(TYPES):
            yield "the type is in the name"
        if set(words) & NOT_BASE:
            yield f"not a base unit: {set(words) & NOT_BASE}"
        if not self.samples:
            yield "no samples"
        keys = [(name, tuple(sorted(labels))) for name, labels, _ in self.samples]
        if len(set(keys)) != len(keys):
            yield "a series twice"
        if self.type == "histogram":
            yield from self.histogram_faults()
        elif any(label == "le" for _, labels, _ in self.samples for label, _ in labels):
            yield "le is for histograms"

    def histogram_faults(self):
        """Of each of its sets of labels."""
        series = {}
        for name, labels, value in self.samples:
            rest = tuple(label for label in labels if label[0] != "le")
            series.setdefault(rest, {}).setdefault(name.removeprefix(self.name), []).append((dict(labels).get("le"), float(value)))
        for rest, parts in series.items():
            if set(parts) != {"_bucket", "_sum", "_count"}:
                yield f"{rest}: it has {sorted(parts)}"
                continue
            bounds = [float(le) for le, _ in parts["_bucket"]]
            counts = [count for _, count in parts["_bucket"]]
            if bounds != sorted(set(bounds)) or bounds[-1] != float("inf"):
                yield f"{rest}: bounds {bounds}"
            if counts != sorted(counts) or counts[-1] != parts["_count"][0][1]:
                yield f"{rest}: counts {counts}"


def faults_of(text):
    """Everything that is wrong with a Prometheus text; an empty list if it is as it has to be."""
    faults, families, current = [], {}, None
    if not text.endswith("\n"):
        faults.append("the last line has no end")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(" ", 3)
        if line.startswith("# ") and words[1] in ("HELP", "TYPE") and len(words) == 4:
            if words[1] == "HELP":
                if words[2] in families:
                    faults.append(f"line {number}: {words[2]} begins twice")
                current = families[words[2]] = Family(words[2])
                current.help = words[3]
            elif current is None or current.name != words[2] or current.samples or current.type:
                faults.append(f"line {number}: TYPE is not right behind HELP")
            else:
                current.type = words[3]
            continue
        match = SAMPLE.fullmatch(line)
        labels = parse_labels(match[2] or "") if match else None
        if labels is None or current is None or not current.member(match[1]):
            faults.append(f"line {number}: {line[:100]}")
            continue
        current.samples.append((match[1], labels, match[3]))
    return faults + [f"{family.name}: {fault}" for family in families.values() for fault in family.faults()]


def promtool_faults(text):
    """What promtool says, or "" if it has nothing to say or is not installed."""
    if not shutil.which("promtool"):
        return ""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""
