"""The OpenAPI document that gwgen makes: read by a linter of the public kind, and held against the table of routes."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / os.environ.get("LAB_BUILD", "dev")


@pytest.fixture(scope="module")
def linter(tmp_path_factory):
    """The linter's program, installed from the pinned versions; SKIP where that is impossible."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    place = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / name, place)
    made = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=place,
                          capture_output=True, text=True, timeout=300)
    if made.returncode:
        pytest.skip("npm cannot install the linter here: " + made.stderr.strip().split("\n")[-1][:200])
    return place / "node_modules" / ".bin" / "redocly"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The document as the daemon answers it."""
    gwgen = BUILD / "schema" / "gwgen"
    if not gwgen.exists():
        pytest.skip(f"{gwgen} is not built")
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    subprocess.run([gwgen, "write", "openapi", path], check=True)
    return path


def resources():
    """(path, whether it has a single row) of each resource that has a path."""
    rows = re.findall(r'^RESOURCE\(\w+, \w+, "\w+", (?:"([a-z-]+)"|NULL), \w+, ([^,]+),', (ROOT / "schema/resources.def").read_text(), re.M)
    return [(path, "RESOURCE_IS_SINGLE" in flags) for path, flags in rows if path]


# The files of the web UI, at any path that nothing else has: no template can say so.
UI = ("GET", "/{asset}")


def routes():
    """(METHOD, path) of each row of webapi/routes.def, {resource} and {single} expanded, parameters without names."""
    rows = re.findall(r'^ROUTE\((\w+), "([^"]+)"', (ROOT / "webapi/routes.def").read_text(), re.M)
    found = set()
    for method, pattern in rows:
        word = next((word for word in ("{resource}", "{single}") if word in pattern), None)
        for path, single in resources():
            if word is None or single == (word == "{single}"):
                found.add((method, pattern.replace(word or "/", path if word else "/")))
    return {(method, unnamed(path)) for method, path in found - {UI}}


def unnamed(path):
    """A template whose parameters have no names."""
    return re.sub(r"\{\w+\}", "{}", path)


def operations(document):
    """(METHOD, path) of each operation, parameters without names."""
    methods = ("get", "put", "post", "patch", "delete")
    return {(method.upper(), unnamed(path)) for path, item in document["paths"].items() for method in item if method in methods}


def test_routes_are_described(document):
    """Each route has an operation, each operation a route."""
    described, served = operations(json.loads(document.read_text())), routes()
    assert len(served) > 80
    assert sorted(served - described) == [], "routes that the document does not have"
    assert sorted(described - served) == [], "operations that nothing answers"


def lint(linter, path):
    """Faults and warnings, as (severity, rule, place)."""
    result = subprocess.run([linter, "lint", "--format=json", path], capture_output=True, text=True,
                            env={**os.environ, "REDOCLY_TELEMETRY": "off"})
    found = json.loads(result.stdout[result.stdout.index("{"):])
    return [(p["severity"], p["ruleId"], p["location"][0].get("pointer")) for p in found["problems"]]


def test_document_is_clean(linter, document):
    """No fault and no warning by the recommended rules, the validity of every example among them."""
    assert lint(linter, document) == []


def test_linter_finds_faults(linter, document, tmp_path):
    """The same document with an example that breaks its schema is refused."""
    broken = json.loads(document.read_text())
    broken["paths"]["/api/v1/listeners"]["post"]["requestBody"]["content"]["application/json"]["example"] = {"ports": 1}
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    assert any(rule == "no-invalid-media-type-examples" for _, rule, _ in lint(linter, path))
