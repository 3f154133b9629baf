"""The scripts of the appliance image, on files instead of a machine: slots, updates, the console's questions, the drive."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

IMAGE = Path(__file__).resolve().parents[2] / "packaging/image"
TREE = IMAGE / "root"
LIB = TREE / "usr/lib/gatewayd-image"
SCRIPTS = sorted(p for p in TREE.rglob("*") if p.is_file() and (p.suffix == ".sh" or p.read_bytes().startswith(b"#!/bin/sh")))
COUNTED = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_shell(script):
    """Each script can be read by the shell that runs it, and is executable unless it is sourced."""
    subprocess.run(["sh", "-n", script], check=True)
    assert os.access(script, os.X_OK) == (script.suffix != ".sh")


def test_the_build_is_shell():
    """So can the build."""
    subprocess.run(["bash", "-n", IMAGE / "build.sh"], check=True)


def test_units_start_what_is_there():
    """Whatever a unit runs of ours lies in the tree."""
    for unit in (TREE / "usr/lib/systemd/system").rglob("*.*"):
        if unit.is_file():
            for path in re.findall(r"^Exec\w+=[-+]*(/usr/(?:lib/gatewayd-image|sbin/gateway)\S+)", unit.read_text(), re.M):
                assert (TREE / path[1:]).exists(), f"{unit.name}: {path}"


class Appliance:
    """The files that an appliance's scripts see."""

    def __init__(self, path):
        self.path = path
        self.entries = path / "boot/loader/entries"
        self.efi = path / "efi"
        self.etc = path / "etc/gatewayd-image"
        for folder in (self.entries, self.efi, self.etc, path / "parts", path / "etc/gatewayd", path / "scratch"):
            folder.mkdir(parents=True)
        for slot in "ab":
            (path / f"parts/gatewayd-root-{slot}").write_bytes(bytes(8192))
        (path / "boot/loader/gatewayd.options").write_text("console=ttyS0\n")
        self.runs("a")
        self.shell("write_entries a 1.0 0")

    def runs(self, slot):
        """The system is that of this slot."""
        (self.path / "cmdline").write_text(f"quiet gatewayd.slot={slot} panic=10\n")

    def environment(self):
        """What makes the scripts look here."""
        there = {"BOOT": "boot", "PARTITIONS": "parts", "CMDLINE": "cmdline", "EFI_VARIABLES": "efi", "SCRATCH": "scratch",
                 "IMAGE_ETC": "etc/gatewayd-image", "ROOT": "", "INTERFACES": "net"}
        return {**os.environ, **{f"GATEWAYD_{k}": str(self.path / v) for k, v in there.items()}, "GATEWAYD_IMAGE_LIB": str(LIB)}

    def call(self, name, *arguments, ok=True, **more):
        """Runs one of the programs; returns what it says."""
        done = subprocess.run([TREE / "usr/sbin" / name, *map(str, arguments)], env={**self.environment(), **more.pop("env", {})},
                              capture_output=True, text=True, timeout=30, **more)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def shell(self, text):
        """Runs a function of slots.sh."""
        return subprocess.run(["sh", "-euc", f". {LIB}/slots.sh; {text}"], env=self.environment(), check=True,
                              capture_output=True, text=True, timeout=30).stdout.strip()

    def names(self):
        """The entries that boot a slot."""
        return sorted(p.name for p in self.entries.iterdir() if p.name.startswith("gatewayd"))

    def update(self, version="2.0", root=b"new root" * 500, spoil=None, key=None):
        """An update as the build makes it; `spoil`: a member that is not what the manifest tells."""
        parts = {"vmlinuz": b"kernel" + version.encode(), "initrd": b"initrd", "root.squashfs": root}
        lines = ["gatewayd-image 1", f"version {version}"]
        lines += [f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}" for name, data in parts.items()]
        folder = self.path / f"update-{version}-{spoil}"
        folder.mkdir()
        (folder / "manifest").write_text("\n".join(lines) + "\n")
        members = ["manifest"]
        if key:
            subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", folder / "manifest", "-out",
                            folder / "manifest.sig"], check=True)
            members.append("manifest.sig")
        for name, data in parts.items():
            (folder / name).write_bytes(data[:-1] + b"?" if name == spoil else data)
        with tarfile.open(f"{folder}.update", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in [*members, *parts]:
                tar.add(folder / name, name)
        return f"{folder}.update"


@pytest.fixture
def appliance(tmp_path):
    """One that runs slot a, with nothing in slot b."""
    return Appliance(tmp_path)


def test_an_update_goes_into_the_other_slot(appliance):
    """It is on trial, newest, and there byte by byte; the running slot is as it was."""
    appliance.call("gateway-update", "--no-reboot", appliance.update())
    assert appliance.names() == ["gatewayd-a.conf", "gatewayd-b+3.conf"]
    assert (appliance.path / "parts/gatewayd-root-b").read_bytes() == (b"new root" * 500).ljust(8192, b"\0")
    assert (appliance.path / "boot/gatewayd-b/vmlinuz").read_bytes() == b"kernel2.0"
    entry = (appliance.entries / "gatewayd-b+3.conf").read_text()
    assert "\nversion 2\n" in entry and "root=PARTLABEL=gatewayd-root-b" in entry and "console=ttyS0" in entry
    assert "gatewayd.recover" in (appliance.entries / "recover-b.conf").read_text()
    assert re.search(r"^\* a  good    1\.0\n  b  trial   2\.0$", appliance.call("gateway-slots"), re.M)


@pytest.mark.parametrize("spoil", ["root.squashfs", "vmlinuz", "initrd"])
def test_a_damaged_update_boots_nowhere(appliance, spoil):
    """Also not what was in the slot before, half of which is written over."""
    appliance.call("gateway-update", "--no-reboot", appliance.update("1.5"))
    assert "did not arrive" in appliance.call("gateway-update", "--no-reboot", appliance.update(spoil=spoil), ok=False)
    assert appliance.names() == ["gatewayd-a.conf"]


def test_what_is_refused_leaves_the_slot_alone(appliance):
    """No update, too large a one, one while the running slot is on trial itself."""
    appliance.call("gateway-update", "--no-reboot", appliance.update("1.5"))
    before = appliance.names()
    (appliance.path / "noise").write_bytes(os.urandom(4096))
    assert "is no update" in appliance.call("gateway-update", appliance.path / "noise", ok=False)
    assert "only https" in appliance.call("gateway-update", "http://example.org/x", ok=False)
    appliance.runs("b")
    (appliance.efi / COUNTED).touch()
    assert "on trial itself" in appliance.call("gateway-update", appliance.update(), ok=False)
    assert appliance.names() == before
    assert "--tries wants" in appliance.call("gateway-update", "--tries", "0", "x", ok=False)


def test_too_large_an_update(appliance):
    """It is not cut off at the end of the slot."""
    assert "does not fit" in appliance.call("gateway-update", "--no-reboot", appliance.update(root=bytes(9000)), ok=False)
    assert (appliance.path / "parts/gatewayd-root-b").read_bytes() == bytes(8192)


def make_key(path):
    """A private key; its public half goes to `path`."""
    private = f"{path}.private"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", path], check=True)
    return private


def test_signatures(appliance):
    """With a key only what it has signed is taken."""
    ours, other = make_key(appliance.etc / "update.pem"), make_key(appliance.path / "other.pem")
    assert "not signed" in appliance.call("gateway-update", "--no-reboot", appliance.update("2.1"), ok=False)
    assert "not signed by" in appliance.call("gateway-update", "--no-reboot", appliance.update("2.2", key=other), ok=False)
    assert appliance.names() == ["gatewayd-a.conf"]
    appliance.call("gateway-update", "--no-reboot", appliance.update("2.3", key=ours))
    assert appliance.names() == ["gatewayd-a.conf", "gatewayd-b+3.conf"]


def test_automatic_updates(appliance):
    """Only signed ones, only newer ones, and none twice that was given up."""
    folder = appliance.path / "bin"
    folder.mkdir()
    (folder / "curl").write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp "$SERVED" "$2"\n')
    (folder / "curl").chmod(0o755)
    (appliance.etc / "update.conf").write_text("url = https://updates.example.org/gatewayd.update\n")

    def automatic(update, ok=True):
        return appliance.call("gateway-update", "--auto", "--no-reboot", ok=ok,
                              env={"PATH": f"{folder}:{os.environ['PATH']}", "SERVED": update})
    assert "must be signed" in automatic(appliance.update("1.1"), ok=False)
    key = make_key(appliance.etc / "update.pem")
    assert "is not newer" in automatic(appliance.update("0.9", key=key))
    assert appliance.names() == ["gatewayd-a.conf"]
    newer = appliance.update("1.2", key=key)
    automatic(newer)
    (appliance.entries / "gatewayd-b+3.conf").rename(appliance.entries / "gatewayd-b+0-3.conf")
    assert "was not healthy" in automatic(newer)
    assert appliance.names() == ["gatewayd-a.conf", "gatewayd-b+0-3.conf"]


def test_a_slot_given_up_is_told_and_not_chosen(appliance):
    """While its last try runs it is on trial; afterwards it has failed."""
    appliance.call("gateway-update", "--no-reboot", "--tries", "1", appliance.update())
    (appliance.entries / "gatewayd-b+1.conf").rename(appliance.entries / "gatewayd-b+0-1.conf")
    appliance.runs("b")
    assert appliance.shell("slot_state b") == "trial"
    assert appliance.call("gateway-slots", "report") == ""
    appliance.runs("a")
    assert "slot b (2.0) was not healthy (tries: 1) and was given up; slot a (1.0) serves" in appliance.call("gateway-slots", "report")
    assert "never found healthy" in appliance.call("gateway-slots", "use", "b", ok=False)


def test_somebody_chooses_the_slot_before(appliance):
    """It becomes the newest, without a trial."""
    appliance.call("gateway-update", "--no-reboot", appliance.update())
    (appliance.entries / "gatewayd-b+3.conf").rename(appliance.entries / "gatewayd-b.conf")
    appliance.runs("b")
    appliance.call("gateway-slots", "use", "a")
    assert appliance.names() == ["gatewayd-a.conf", "gatewayd-b.conf"]
    assert "\nversion 3\n" in (appliance.entries / "gatewayd-a.conf").read_text()


def add_interface(appliance, name, address):
    """A network card."""
    folder = appliance.path / "net" / name
    (folder / "device").mkdir(parents=True)
    (folder / "address").write_text(address + "\n")


@pytest.mark.skipif(not shutil.which("ip"), reason="no ip here")
def test_the_questions_of_the_console(appliance):
    """Wrong answers are asked again; the others become files."""
    add_interface(appliance, "eth0", "52:54:00:00:00:01")
    add_interface(appliance, "eth1", "52:54:00:00:00:02")
    (appliance.path / "net/lo").mkdir()
    (appliance.path / "etc/gatewayd/gatewayd.conf").write_text("threads = 2\nlisten = https://127.0.0.1:8443\n")
    answers = ["Bad Name", "gw-1", "192.0.2.300/24", "192.0.2.1", "192.0.2.1/24", "2001:db8::1/129", "2001:db8::1/64",
               "192.0.2.254/24", "192.0.2.254", "", "", "", "192.0.2.53 word", "192.0.2.53", "192.0.2.1 2001:db8::1", "y"]
    said = appliance.call("gateway-setup", input="\n".join(answers) + "\n")
    for fault in ("small letters", "192.0.2.300/24 is no IPv4", "an address with the length", "2001:db8::1/129 is no IPv6",
                  "without a length", "word is no address"):
        assert fault in said
    first = (appliance.path / "etc/systemd/network/10-eth0.network").read_text().split()
    for line in ("MACAddress=52:54:00:00:00:01", "Address=192.0.2.1/24", "Address=2001:db8::1/64", "Gateway=192.0.2.254",
                 "IPv6AcceptRA=no"):
        assert line in first
    second = (appliance.path / "etc/systemd/network/10-eth1.network").read_text().split()
    assert "DHCP=ipv4" in second and "IPv6AcceptRA=yes" in second
    assert (appliance.path / "etc/gatewayd/gatewayd.conf").read_text().split("\n")[:4] == [
        "threads = 2", "listen = https://127.0.0.1:8443", "listen = https://192.0.2.1:8443", "listen = https://[2001:db8::1]:8443"]
    assert (appliance.path / "etc/hostname").read_text() == "gw-1\n"
    assert "DNS=192.0.2.53" in (appliance.path / "etc/systemd/resolved.conf.d/gatewayd.conf").read_text()
    assert (appliance.etc / "configured").exists()


def test_questions_that_are_left(appliance):
    """Nothing is written before the last answer."""
    appliance.call("gateway-setup", input="gw-1\n", ok=False)
    assert not (appliance.etc / "configured").exists() and not (appliance.path / "etc/hostname").exists()


def test_the_drive(appliance):
    """What is known is taken, the rest is named."""
    drive = appliance.path / "drive"
    (drive / "network").mkdir(parents=True)
    for name, text in {"network/10-in.network": "[Match]\n", "network/x.sh": "", "hostname": "gw-2\r\n", "provision.json": "{}\n",
                       "gatewayd.conf": "threads = 1\n", "authorized_keys": "ssh-ed25519 AAAA\n", "password-hash": "plain\n",
                       "autorun.inf": ""}.items():
        (drive / name).write_text(text)
    done = subprocess.run([LIB / "from-drive"], env={**appliance.environment(), "GATEWAYD_DRIVE": str(drive)}, check=True,
                          capture_output=True, text=True, timeout=30)
    etc = appliance.path / "etc"
    assert (etc / "hostname").read_text() == "gw-2\n"
    assert (etc / "systemd/network/10-in.network").exists() and not (etc / "systemd/network/x.sh").exists()
    assert (etc / "gatewayd/provision.json").stat().st_mode & 0o777 == 0o600
    assert (etc / "ssh/authorized_keys.d/root").exists() and (etc / "gatewayd-image/configured").exists()
    for word in ("autorun.inf: not known", "x.sh is neither", "password-hash: not a hash"):
        assert word in done.stderr
