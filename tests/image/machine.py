"""One emulated machine that boots the appliance: its disks, its two network cards, its serial console.

The cards are tap devices that exist in two namespaces of the lab, so what the appliance sends arrives in the kernel of
client or server, and nothing of this machine's own network is in between.
"""

import fcntl
import os
import re
import struct
import subprocess
import threading
import time

SYSTEM = "/usr/bin/qemu-system-x86_64"
FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
FIRMWARE_STATE = "/usr/share/OVMF/OVMF_VARS_4M.fd"
MEMORY_MIB = 1024
PROCESSORS = 2
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\r")
CUT_OFF = re.compile(rb"(.*?)((?:\x1b[^A-Za-z]{0,20})?)", re.S)
PROMPT = "appliance# "


class Failed(Exception):
    """The machine did not do what it had to; the message says what was waited for."""


def tap(host, name):
    """A tap device in a namespace; returns the descriptor of the machine's end."""
    with host.entered():
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


class Machine:
    """A machine from the moment it is switched on until it restarts or is switched off: a restart ends the emulator, for
    its firmware does not survive many of them. `said` is what its console has shown so far, without escape sequences."""

    def __init__(self, disks, cards, firmware_state, log, accelerator):
        """`disks`: (path, format) in order; `cards`: (tap descriptor, hardware address)."""
        command = [SYSTEM, "-accel", accelerator, "-machine", "q35,smm=off", "-cpu", "max", "-smp", str(PROCESSORS),
                   "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-serial", "stdio",
                   "-device", "virtio-rng-pci",
                   "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}",
                   "-drive", f"if=pflash,format=raw,unit=1,file={firmware_state}"]
        for path, kind in disks:
            command += ["-drive", f"if=virtio,format={kind},file={path},cache=unsafe"]
        for number, (descriptor, address) in enumerate(cards):
            command += ["-netdev", f"tap,id=net{number},fd={descriptor}",
                        "-device", f"virtio-net-pci,netdev=net{number},mac={address},romfile="]
        self.said = ""
        self._seen = 0
        self._log = open(log, "wb")
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       pass_fds=[descriptor for descriptor, _ in cards])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        rest = b""
        while piece := self._popen.stdout.read1(65536):
            self._log.write(piece)
            self._log.flush()
            # A sequence that is cut off by the end of the piece waits for the next one.
            whole, rest = CUT_OFF.fullmatch(ESCAPES.sub(b"", rest + piece)).groups()
            self.said += whole.decode("utf-8", "replace")

    def expect(self, pattern, seconds):
        """Waits until the console has shown the pattern after what was expected before; returns the match."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.M).search(self.said, self._seen)
            if match:
                self._seen = match.end()
                return match
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the console did not show {pattern!r} within {seconds} s; its end:\n{self.said[-1500:]}")
            time.sleep(0.1)

    def type(self, text):
        """Types a line."""
        self._popen.stdin.write(text.encode() + b"\n")
        self._popen.stdin.flush()

    def login(self, password, seconds):
        """Logs in as root once the console asks."""
        self.expect(r"login: ", seconds)
        self.type("root")
        self.expect(r"Password: ", 60)
        self.type(password)
        self.shell()

    def shell(self):
        """Makes the prompt of the shell that comes one that cannot be mistaken."""
        self.expect(r"# ", 120)
        self.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1='appliance''# '; dmesg -n 1; systemctl log-level err")
        self.expect(PROMPT, 60)

    def run(self, command, seconds=60):
        """Runs a command in the console's shell; returns what it shows. It has failed if its code is not 0."""
        self.type(f"{command}; echo \"=$?=\"")
        match = self.expect(r"(?s)(.*?)=(\d+)=\n" + PROMPT, seconds)
        if match.group(2) != "0":
            raise Failed(f"on the appliance, {command}: {match.group(2)}\n{match.group(1)}")
        return match.group(1).strip()

    def ended(self, seconds):
        """Waits until the machine has restarted or switched itself off."""
        self._popen.wait(seconds)
        self._reader.join(10)

    def kill(self):
        """Pulls the plug."""
        self._popen.kill()
        self._popen.wait(10)
        self._reader.join(10)
        self._log.close()
