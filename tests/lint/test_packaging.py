"""What the package says, held against what it must be: the unit's exposure, the scripts' shell."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).resolve().parents[2] / "packaging" / "debian"
EXPOSURE_MAX = 3.0
RELAY_EXPOSURE_MAX = 2.0


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


@pytest.mark.parametrize("name", ["early", "provision", "replicate"])
def test_exposure_of_what_is_beside_it(name):
    """What only has the rules put in place, or asks the API, may do less still."""
    assert exposure(DEBIAN / f"gatewayd.gatewayd-{name}.service") <= 2.0


def test_exposure_of_the_relay():
    """What holds the relay, as lines of a unit; net/test_enclosed.py says whether they are true."""
    assert exposure(DEBIAN.parents[1] / "tests" / "package" / "gateway-relay.service") <= RELAY_EXPOSURE_MAX


def test_apparmor_profiles():
    """The parser takes them; of a profile with a fault it would not."""
    if not shutil.which("apparmor_parser"):
        pytest.skip("apparmor_parser is not installed")
    profile = (DEBIAN.parent / "apparmor" / "usr.sbin.gatewayd").read_text()

    def parse(text):
        return subprocess.run(["apparmor_parser", "-QK"], input=text, capture_output=True, text=True, timeout=60)
    assert parse(profile).returncode == 0, parse(profile).stderr
    assert parse(profile.replace("network netlink raw,", "network netlink sometimes,")).returncode


def test_exposure_is_measured(tmp_path):
    """Without one line of the unit the figure is too high."""
    unit = tmp_path / "gatewayd.service"
    text = (DEBIAN / "gatewayd.service").read_text()
    unit.write_text(re.sub(r"SystemCallFilter=@system-service.*\n", "", text))
    assert exposure(unit) > EXPOSURE_MAX


def test_upgrade_leaves_the_relay_alone():
    """Only the daemon is stopped, and what the relay is found by stays."""
    unit = (DEBIAN / "gatewayd.service").read_text()
    for line in ("KillMode=process", "RuntimeDirectoryPreserve=yes", "OOMPolicy=continue"):
        assert f"\n{line}\n" in unit


@pytest.mark.parametrize("name", ["gatewayd.preinst", "gatewayd.prerm", "gatewayd.postrm", "tests/smoke", "../systemd/provision", "../keepalived/ready"])
def test_scripts_are_shell(name):
    """Each script can at least be read by the shell that runs it."""
    subprocess.run(["sh", "-n", DEBIAN / name], check=True)
