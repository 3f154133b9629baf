"""Adds up the results of ./dev check and prints its last line.

Each part of the check leaves NAME.status ("ok" or "failed") and, if it ran
tests, NAME.xml in JUnit form. A part without tests counts as one check; a part
that failed although none of its tests did (it crashed, it collected nothing)
counts as one failure.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count_junit(path):
    """(passed, failed, skipped, names of the failed) in one JUnit file."""
    passed = failed = skipped = 0
    names = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            names.append(f"{case.get('classname', '')}::{case.get('name')}")
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped, names


def count_part(status_file):
    """The same four values for one part of the check."""
    ok = status_file.read_text().strip() == "ok"
    report = status_file.with_suffix(".xml")
    if not report.exists():
        return (1, 0, 0, []) if ok else (0, 1, 0, [status_file.stem])
    passed, failed, skipped, names = count_junit(report)
    if not ok and not failed:
        failed, names = 1, [f"{status_file.stem} (ended badly)"]
    return passed, failed, skipped, names


def main(directory):
    """Prints one line for each part, the failed tests, and the sum; 0 if all is well."""
    total = [0, 0, 0]
    failures = []
    for status_file in sorted(Path(directory).glob("*.status"), key=lambda f: f.stat().st_mtime):
        *counts, names = count_part(status_file)
        total = [a + b for a, b in zip(total, counts)]
        failures += names
        print(f"{status_file.stem:14} {counts[0]:4} passed {counts[1]:4} failed {counts[2]:4} skipped")
    for name in failures:
        print(f"failed: {name}")
    line = f"{total[0]} passed, {total[1]} failed"
    print(line + (f", {total[2]} skipped" if total[2] else ""))
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
