"""What the package says, held against what it must be: the unit's exposure, the scripts' shell."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).resolve().parents[2] / "packaging" / "debian"
EXPOSURE_MAX = 3.0


def exposure(unit):
    """systemd's figure for how much a unit may do."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
                            capture_output=True, text=True, timeout=60)
    return float(re.search(r"exposure level for \S+: ([0-9.]+)", result.stdout).group(1))


def test_exposure_of_the_daemon():
    """The daemon's unit leaves no more open than we promise."""
    assert exposure(DEBIAN / "gatewayd.service") <= EXPOSURE_MAX


def test_exposure_of_the_rules_before_it():
    """What runs once at boot may do less still."""
    assert exposure(DEBIAN / "gatewayd.gatewayd-early.service") <= 2.0


def test_exposure_is_measured(tmp_path):
    """Without one line of the unit the figure is too high."""
    unit = tmp_path / "gatewayd.service"
    text = (DEBIAN / "gatewayd.service").read_text()
    unit.write_text(text.replace("SystemCallFilter=@system-service bpf seccomp\n", ""))
    assert exposure(unit) > EXPOSURE_MAX


def test_upgrade_leaves_the_relay_alone():
    """Only the daemon is stopped, and what the relay is found by stays."""
    unit = (DEBIAN / "gatewayd.service").read_text()
    for line in ("KillMode=process", "RuntimeDirectoryPreserve=yes", "OOMPolicy=continue"):
        assert f"\n{line}\n" in unit


@pytest.mark.parametrize("name", ["gatewayd.prerm", "gatewayd.postrm", "tests/smoke"])
def test_scripts_are_shell(name):
    """Each script can at least be read by the shell that runs it."""
    subprocess.run(["sh", "-n", DEBIAN / name], check=True)
