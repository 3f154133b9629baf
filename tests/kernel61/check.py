"""./dev check-61: the release build under Debian 12's own kernel, emulated.

Host side: fetches Debian's kernel package (never installs it), makes a small
initramfs from busybox and the package's modules, and boots it in qemu. Inside,
the root is this machine's file system, read-only over 9p, below a tmpfs that is
gone with the machine: the userland is exactly the one that `./dev setup` made. The
release build and the tests are copies. What runs inside is guest.sh; results come
back through a directory of their own.
"""

import argparse
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/check-61"
KERNEL = WORK / "kernel"
PROJECT = WORK / "project"
RESULTS = WORK / "results"
GUEST = Path(__file__).resolve().parent / "guest.sh"
META_PACKAGE = "linux-image-amd64"
SERIES = "6.1."
# What the initramfs needs to find its root; everything else is loaded on demand, as on a real machine.
BOOT_MODULES = ("virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay")
MEMORY_MIB = 3072
PROCESSORS = 2
# What the kernel decides: its behaviour, the movers, and the BPF programs that its verifier has to take.
TESTS = ("tests/platform", "tests/kernel61", "tests/net/test_udp_shortcut.py", "tests/net/test_stitch.py", "tests/net/test_enclosed.py",
         "tests/net/test_syn_cookies.py::test_only_what_would_be_relayed_is_answered",
         "tests/net/test_prefilter_others.py::test_their_filter_is_left_whole",
         "tests/net/test_prefilter_others.py::test_a_dispatcher_that_changes_is_named_anew")
SYSTEM = "/usr/bin/qemu-system-x86_64"
BUSYBOX = "/bin/busybox"

MOUNT_9P = "trans=virtio,version=9p2000.L,msize=512000"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module || echo "check-61: $module does not load"; done
mount -t 9p -o ro,{how},cache=loose root /host
mount -t 9p -o ro,{how},cache=loose kernel /kernel
mount -t 9p -o ro,{how},cache=loose project /project
mount -t tmpfs -o size=60% tmpfs /scratch
mkdir /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/project:/kernel:/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /root
mkdir -p /root{results}
mount -t 9p -o {how},cache=none results /root{results}
umount /sys /proc
exec switch_root /root /bin/bash {guest} {root} {results} {arguments}
"""


class Failed(Exception):
    """The check could not be made; the message says why."""


def run(*command, **options):
    """A command's output; Failed if it ends badly."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def kernel_package():
    """Name of the package that holds the kernel: the one that Debian 12's meta package depends on."""
    found = re.findall(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", "--important", META_PACKAGE))
    if not found or not found[0].startswith(f"linux-image-{SERIES}"):
        raise Failed(f"{META_PACKAGE} of this machine's package sources is {found or 'not there'}, not kernel {SERIES}x")
    return found[0]


def fetch_kernel():
    """The kernel's release; its image and modules lie below KERNEL, from an earlier run or freshly downloaded."""
    name = kernel_package()
    release = name.removeprefix("linux-image-")
    if (KERNEL / "boot" / f"vmlinuz-{release}").exists():
        return release
    shutil.rmtree(KERNEL, ignore_errors=True)
    fresh = WORK / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run("apt-get", "-qq", "download", name, cwd=fresh)
    run("dpkg-deb", "-x", next(fresh.glob("*.deb")), fresh)
    # /lib is a link to /usr/lib on Debian; as a directory it would hide the link in the guest's root.
    (fresh / "usr/lib").mkdir(parents=True, exist_ok=True)
    (fresh / "lib/modules").rename(fresh / "usr/lib/modules")
    (fresh / "lib").rmdir()
    run("/sbin/depmod", "-b", fresh / "usr", release)
    for deb in fresh.glob("*.deb"):
        deb.unlink()
    fresh.rename(KERNEL)
    return release


def copy_project():
    """The release build and the tests as they are now, so that nobody's work changes them under the running machine."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    there = PROJECT / ROOT.relative_to("/")
    shutil.copytree(ROOT / "tests", there / "tests", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for path in ("pytest.ini", "build/release/bin/gatewayd", "build/release/bin/gateway-relay", "build/release/tests/gwload"):
        (there / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, there / path)


def boot_modules(release):
    """Paths of BOOT_MODULES and of what they need, in the order of loading. What is built in has no file."""
    modules = KERNEL / "usr/lib/modules" / release
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = (path, rest.split())
    order = []
    for name in BOOT_MODULES:
        if name in needs:
            path, before = needs[name]
            order += [p for p in [*reversed(before), path] if p not in order]
    return [modules / p for p in order]


def cpio(entries):
    """An archive in the form that the kernel unpacks ("newc"); entries are (path, mode, content)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def make_initramfs(path, release, arguments):
    """The small root that finds the large one."""
    modules = boot_modules(release)
    init = INIT.format(modules=" ".join(m.name for m in modules), how=MOUNT_9P, guest=GUEST, root=ROOT, results=RESULTS,
                       arguments=shlex.join(arguments))
    folders = ("bin", "proc", "sys", "dev", "host", "kernel", "project", "scratch", "root", "modules")
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [("bin/busybox", 0o100755, Path(BUSYBOX).read_bytes()), ("init", 0o100755, init.encode())]
    entries += [(f"modules/{m.name}", 0o100644, m.read_bytes()) for m in modules]
    path.write_bytes(cpio(entries))


def boot(release, initramfs, limit_s, accelerator):
    """Runs the machine until it ends by itself or the time is up; returns whether it ended by itself."""
    def share(tag, path, readonly):
        return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap"
                + (",readonly=on" if readonly else "")]
    command = [SYSTEM, "-accel", accelerator, "-cpu", "max", "-smp", str(PROCESSORS),
               "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
               "-device", "virtio-rng-pci", "-kernel", str(KERNEL / "boot" / f"vmlinuz-{release}"),
               "-initrd", str(initramfs), "-append", "console=ttyS0 panic=-1 loglevel=3",
               *share("root", "/", True), *share("kernel", KERNEL, True), *share("project", PROJECT, True),
               *share("results", RESULTS, False)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as machine:
        watch = threading.Timer(limit_s, machine.kill)
        watch.start()
        try:
            with open(WORK / "console.log", "wb") as log:
                while piece := machine.stdout.read1(65536):
                    log.write(piece)
                    log.flush()
                    sys.stdout.buffer.write(piece.replace(b"\r", b""))
                    sys.stdout.flush()
        finally:
            watch.cancel()
            machine.kill()
    return (RESULTS / "ended").exists()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev check-61", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=45, help="limit of the whole run (default 45)")
    parser.add_argument("--kvm", action="store_true", help="use /dev/kvm instead of software emulation")
    parser.add_argument("tests", nargs=argparse.REMAINDER, metavar="PYTEST...",
                        help=f"arguments for pytest, a path first (default: {' '.join(TESTS)})")
    return parser.parse_args()


def main():
    """Boots, and leaves what summary.py adds up."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the machine would go on without us
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    started = time.monotonic()
    release = fetch_kernel()
    copy_project()
    initramfs = WORK / "initramfs"
    make_initramfs(initramfs, release, options.tests or TESTS)
    print(f"check-61: kernel {release}, boots; console also in {WORK / 'console.log'}", flush=True)
    ended = boot(release, initramfs, options.minutes * 60, "kvm" if options.kvm else "tcg,thread=multi")
    if not ended:
        print(f"check-61: the machine did not end by itself within {options.minutes:g} minutes", file=sys.stderr)
    (RESULTS / "kernel-6.1.status").write_text("ok" if ended and not failures() else "failed")
    print(f"check-61: {time.monotonic() - started:.0f} s", flush=True)
    sys.exit(subprocess.run([sys.executable, ROOT / "tests/summary.py", RESULTS], check=False).returncode)


def failures():
    """What pytest said at its end inside."""
    code = RESULTS / "exit-code"
    return not code.exists() or code.read_text().strip() != "0"


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"check-61: {error}")
