"""Debian's Chromium without a window: the switches with which it keeps to itself, and one page with it."""

import base64
import hashlib

from lab.netns import run
from lab.process import SLOWNESS

SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
            "--disable-dev-shm-usage", "--disable-extensions", "--no-proxy-server", "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--disable-features=Translate,OptimizationHints,MediaRouter"]


def key_hash(certificate):
    """The hash of a certificate's key, as --ignore-certificate-errors-spki-list takes it."""
    public = run("openssl", "x509", "-in", certificate, "-pubkey", "-noout").stdout
    lines = [line for line in public.splitlines() if not line.startswith("-")]
    return base64.b64encode(hashlib.sha256(base64.b64decode("".join(lines))).digest()).decode()


def page(lab, host, url, address, authority):
    """The page as it stands after its scripts, loaded on a host of the lab that finds every name at the address."""
    where = f"[{address}]" if ":" in address else address
    return host.run("chromium", *SWITCHES, f"--user-data-dir={lab.directory / 'chromium-page'}",
                    f"--host-resolver-rules=MAP * {where}", f"--ignore-certificate-errors-spki-list={key_hash(authority)}",
                    "--virtual-time-budget=20000", "--dump-dom", url, timeout=60 * SLOWNESS).stdout
