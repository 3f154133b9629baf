"""The dashboard and the alert rules in packaging: of metrics and labels that there are, and sound by Prometheus' own tool."""

import json
import re
import shutil
import subprocess

import pytest

from lab import promlint
from lab.gateway import ROOT

pytestmark = pytest.mark.shared_gateway

RULES = ROOT / "packaging" / "prometheus" / "gatewayd.rules.yml"
RULES_TEST = ROOT / "packaging" / "prometheus" / "gatewayd.rules-test.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "gatewayd.json"
METRIC = re.compile(r"\bgateway_[a-z_]+")
LABELS = {"instance", "le", "job", "__name__"}  # those that Prometheus has beside ours


def expressions():
    """(where it stands, text) of everything that asks for metrics."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for block in RULES.read_text().split("- alert: ")[1:]:
        words = "".join(f' by ({label}) ' for label in re.findall(r"\$labels\.(\w+)", block))
        yield block.split("\n")[0], block.split("expr:")[1].split("for:")[0].split("labels:")[0] + words


@pytest.fixture
def exported(make_gateway):
    """{metric: its labels} of a gateway that has one of everything."""
    gateway = make_gateway(bpf=True)
    gateway.upstream("pool", [("10.71.2.2", 7000)], health={"type": "tcp"})
    gateway.must("PUT", "rate-limits/slow", {"name": "slow", "rate": 100})
    gateway.listener("web", ports=["7000"], upstream="pool", rate_limits=["slow"])
    answer = gateway.api("PUT", "prefilters/in0", {"interface": "in0", "deny": ["192.0.2.0/24"]})
    if answer.status == 422 and "no right" in answer.text:
        pytest.skip(answer.text)
    found = {}
    for line in gateway.api("GET", "/metrics").text.split("\n"):
        if match := promlint.SAMPLE.fullmatch(line):
            found.setdefault(match.group(1), set()).update(name for name, _ in promlint.parse_labels(match.group(2) or ""))
    return found


def test_names(exported):
    """Every metric that is asked for is exported, with the labels that it is grouped by or chosen by."""
    faults = []
    for where, text in expressions():
        names = [name for name in METRIC.findall(text) if not text[text.index(name) + len(name):].startswith(".*")]
        faults += [f"{where}: no metric {name}" for name in names if name not in exported]
        wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\"", text))
        wanted |= {word.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for word in group.split(",")}
        having = set().union(*(exported.get(name, set()) for name in names)) | LABELS
        faults += [f"{where}: no label {label}" for label in wanted - having]
    assert faults == []
    assert len(list(expressions())) > 30


def test_dashboard():
    """Panels have numbers of their own and do not lie on each other."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("words", [["check", "rules", RULES], ["test", "rules", RULES_TEST]])
def test_rules(words):
    """Prometheus' own tool: the rules are well formed, and alert when they are to."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (package prometheus)")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
