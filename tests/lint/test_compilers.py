"""The sources are clean for the other compiler, too: fuzzing is built with it."""

import json
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

from lab.gateway import ROOT

# Of clang's warnings the set of gcc's names, as for all builds; what only gcc knows is passed over.
MORE = ["-fsyntax-only", "-Wno-unknown-warning-option"]


def check(entry):
    """What clang says of one source."""
    words = shlex.split(entry["command"])
    words = words[next(i for i, word in enumerate(words) if word.startswith("-D") or word.startswith("-I")):]
    for option in ("-o", "-MF", "-MT"):
        if option in words:
            at = words.index(option)
            del words[at:at + 2]
    words = [word for word in words if word not in ("-c", "-MD")]
    done = subprocess.run(["clang", *words, *MORE], cwd=entry["directory"], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_clang():
    """Every C source of the tree."""
    with open(ROOT / "build/dev/compile_commands.json", encoding="utf-8") as file:
        entries = [entry for entry in json.load(file) if "/build/" not in os.path.relpath(entry["file"], ROOT.parent)]
    assert len(entries) > 200
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = [fault for fault in pool.map(check, entries) if fault]
    assert not faults, "\n".join(faults)[:8000]
