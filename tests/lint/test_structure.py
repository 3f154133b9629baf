"""The rules of the house that a program can hold: layers, sizes, words, comments, format."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Folder -> what its files may include, besides the system's headers. Downward only.
LAYERS = {
    "gatewayd/base": ["gatewayd/base"],
    "gatewayd/relay": ["gatewayd/base", "gatewayd/relay"],
    "gatewayd/ctl": ["gatewayd/base", "gatewayd/ctl"],
    "schema": ["gatewayd/base", "schema"],
    "rules": ["gatewayd/base", "schema", "rules"],
    "webapi": ["gatewayd/base", "schema", "webapi"],
    "gatewayd": ["gatewayd/base", "schema", "rules", "webapi", "gatewayd"],
}

# Header of a library -> the files that may include it.
ONLY_IN = {
    "sqlite3.h": r"gatewayd/store[a-z_]*\.c",
    "microhttpd.h": r"webapi/http\.c",
    "nftables/libnftables.h": r"rules/kernel_nft\.c",
    "libmnl/libmnl.h": r"rules/kernel_((addresses|bulk|counters|dump|elements|filters|ledger|others|route|trace|watch)\.c|netlink\.[ch])|gatewayd/relay/route_ask\.c",
    "curl/": r"gatewayd/ctl/client\.c",
    "bpf/": r"rules/(kernel_(bpf|intercept|shortcut|tc|xdp|xdp_foreign|xdp_maps|xdp_trial)\.c|bpf/[a-z_]+\.(bpf\.c|h))",
    "systemd/": r"gatewayd/[a-z_]+\.[ch]",
}

FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 100
# Words of unfinished work. Written in halves, so that this file passes its own rule.
FORBIDDEN_WORDS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", "place" + "holder"]) + r")\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def tracked(*patterns):
    """Files of these patterns that are in git or about to be, as paths relative to the root."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted({Path(n) for n in names if n and (ROOT / n).is_file()})


def c_sources():
    """All C files of the product."""
    return [p for p in tracked("*.c", "*.h") if p.parts[0] in ("gatewayd", "schema", "rules", "webapi")]


def read(path):
    """The text of a file named relative to the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def layer_of(path):
    """The longest entry of LAYERS that holds the path, or None."""
    folder = path.parent.as_posix()
    fits = [name for name in LAYERS if folder == name or folder.startswith(name + "/")]
    return max(fits, key=len, default=None)


def strip_c(text):
    """C text with comments and the insides of literals blanked, line structure kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def report(faults):
    """Fails with one line for each fault."""
    assert not faults, "\n" + "\n".join(faults)


def test_includes_go_downward():
    """A layer includes only itself and those below it."""
    faults = []
    for path in c_sources():
        layer = layer_of(path)
        for kind, name in INCLUDE.findall(read(path)):
            folder = Path(name).parent
            if kind == "<" or folder == Path("."):
                continue
            target = layer_of(Path(name))
            if target and target not in LAYERS[layer]:
                faults.append(f"{path}: includes {name}, which lies above or beside {layer}")
    report(faults)


def test_each_library_is_included_in_one_place():
    """A third-party interface is known to one file."""
    faults = []
    for path in c_sources():
        for _, name in INCLUDE.findall(read(path)):
            for header, allowed in ONLY_IN.items():
                hit = name.startswith(header) if header.endswith("/") else name == header
                if hit and not re.fullmatch(allowed, path.as_posix()):
                    faults.append(f"{path}: includes {name}; only {allowed} may")
    report(faults)


def test_own_header_comes_first():
    """x.c includes x.h before anything else, so every header stands on its own."""
    faults = []
    for path in c_sources():
        if path.suffix != ".c" or not (ROOT / path.with_suffix(".h")).exists():
            continue
        includes = INCLUDE.findall(read(path))
        if not includes or includes[0][1] != path.with_suffix(".h").as_posix():
            faults.append(f"{path}: the first include is not {path.with_suffix('.h')}")
    report(faults)


def test_files_open_with_a_purpose():
    """Each file says at its head what it is for."""
    report([f"{p}: does not open with a comment" for p in c_sources() if not read(p).startswith("/*")])


def test_header_functions_have_comments():
    """Every function declared in a header has a comment above it, or above the group it stands in."""
    faults = []
    declaration = re.compile(r"^[a-z][\w \t*]*?\b(\w+)\([^;{}]*\)[^;{}]*;", re.M)
    for path in c_sources():
        if path.suffix != ".h":
            continue
        text = read(path)
        code = strip_c(text)
        for match in declaration.finditer(code):
            if match.group(0).startswith(("typedef", "static", "return")):
                continue
            if not has_comment(text, match.start()):
                faults.append(f"{path}: {match.group(1)} has no comment")
    report(faults)


def has_comment(text, position):
    """Whether the declaration's paragraph (no blank line between) contains a comment, or its line ends in one."""
    paragraph = text[:position].rsplit("\n\n", 1)[-1]
    line_end = text.find(";", position)
    trailing = text[line_end:text.find("\n", line_end)]
    return "*/" in paragraph or "//" in paragraph or "/*" in trailing


def test_no_file_is_too_long():
    """A long file has more than one subject."""
    sizes = [(read(p).count("\n"), p) for p in c_sources() + tracked("tests/*.py", "tests/*.c", "dev")]
    report([f"{p}: {n} lines, at most {FILE_LINES_MAX}" for n, p in sizes if n > FILE_LINES_MAX])


def functions(text):
    """(name, number of lines) of each function body in a C text formatted by the house style."""
    lines = strip_c(text).split("\n")
    start = name = None
    for number, line in enumerate(lines):
        if line == "{" and start is None:
            start = number
            name = function_name(lines, number)
        elif line.startswith("}") and start is not None:
            yield name, number - start - 1
            start = None


def function_name(lines, brace):
    """The name before the argument list that ends above this brace."""
    head = " ".join(lines[max(0, brace - 6):brace])
    names = re.findall(r"(\w+)\s*\(", head)
    return names[-1] if names else "?"


def test_no_function_is_too_long():
    """A function that does not fit a screen does more than one thing."""
    faults = []
    for path in c_sources() + tracked("tests/*.c"):
        if path.suffix == ".c":
            faults += [f"{path}: {name} has {n} lines, at most {FUNCTION_LINES_MAX}"
                       for name, n in functions(read(path)) if n > FUNCTION_LINES_MAX]
    report(faults)


def test_no_unfinished_work():
    """Nothing is left as a reminder in the tree."""
    faults = []
    for path in tracked("*.c", "*.h", "*.def", "*.py", "*.md", "*.txt", "*.js", "*.css", "dev", ".ci/run"):
        for number, line in enumerate(read(path).split("\n"), 1):
            if FORBIDDEN_WORDS.search(line) and "::placeholder" not in line and "placeholder=" not in line:
                faults.append(f"{path}:{number}: {line.strip()[:100]}")
    report(faults)


def test_clang_format():
    """The C sources are as clang-format leaves them."""
    files = [str(p) for p in tracked("*.c", "*.h")]
    result = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True)
    heads = [line for line in result.stderr.split("\n") if "error:" in line]
    report(heads[:20] if result.returncode else [])


@pytest.mark.parametrize("text, names", [
    ("int f(void)\n{\n\treturn 1;\n}\n", [("f", 1)]),
    ("static int\ng(int a,\n\tint b)\n{\n\tif (a) {\n\t\tb++;\n\t}\n\treturn b;\n}\n", [("g", 4)]),
])
def test_the_function_counter_itself(text, names):
    """The lint that measures functions finds them."""
    assert list(functions(text)) == names
