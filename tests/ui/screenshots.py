"""./dev screenshots: a picture of every page at two widths and in both themes, with traffic of the lab on them."""

import argparse
import os
import sys
import threading
from pathlib import Path

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.proxy import LoopbackProxy
from lab.servers import Nginx
from ui.browser import Browser

PORT = 8000
PAGES = {"overview": "", "start": "start", "listeners": "listeners", "listener": "listeners/web", "upstreams": "upstreams",
         "upstream": "upstreams/pool", "rate-limits": "rate-limits", "rate-limit": "rate-limits/slow", "address-sets": "address-sets",
         "address-set": "address-sets/friends", "prefilters": "prefilters", "prefilter": "prefilters/in0", "flows": "flows",
         "bans": "bans", "events": "events", "explain": "explain", "trace": "trace", "doctor": "doctor", "ruleset": "ruleset",
         "revisions": "revisions", "revision": "revisions/5", "audit": "audit", "tokens": "tokens", "settings": "settings"}


def furnish(gateway, lab):
    """A small site: two pools, some listeners, a limit, a set, a token."""
    gateway.upstream("pool", [(lab.server.v4, PORT), ("10.71.2.3", PORT), {"address": "10.71.2.4", "port": PORT, "admin_state": "drain"}],
                     health={"type": "tcp"}, comment="web servers in rack 4")
    gateway.upstream("mirror", [("fd71:2::3", 0)], algorithm="least_conn")
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "comment": "offices", "entries": [f"10.{i}.0.0/16" for i in range(40)] + ["2001:db8::/32"]})
    gateway.must("PUT", "rate-limits/slow", {"name": "slow", "rate": 100, "mode": "shadow", "comment": "to see who would be hit"})
    gateway.must("PUT", "prefilters/in0", {"interface": "in0", "enabled": False, "deny": ["192.0.2.0/24"], "drop_bogons": True})
    gateway.listener("web", ports=[str(PORT)], upstream="pool", comment="the shop")
    gateway.listener("files", ports=["8001"], destinations=["10.71.2.0/24", "fd71:2::/64"])
    gateway.listener("mirror", ports=["8002"], upstream="mirror", interfaces=["eth9"])
    gateway.listener("telnet", ports=["23"], action="reject", comment="nobody needs this")
    gateway.must("POST", "tokens", {"name": "grafana", "role": "viewer"})


class Traffic:
    """Requests until told to stop, and some flows that stay."""

    def __init__(self, lab):
        self.lab, self.over = lab, threading.Event()
        self.held = []
        for i in range(12):
            connection = lab.client.connect(lab.server.v4, PORT + i % 2)
            connection.sendall(b"GET /64k HTTP/1.1\r\nHost: a\r\n\r\n")
            self.held.append(connection)
        self.thread = threading.Thread(target=self._turn, daemon=True)
        self.thread.start()

    def _turn(self):
        while not self.over.wait(0.3):
            for port, path in ((PORT, "/big"), (PORT + 1, "/64k")):
                self.lab.client.run("curl", "-s", "-m", "5", "-o", "/dev/null", f"http://{self.lab.server.v4}:{port}{path}", check=False)

    def stop(self):
        """Ends all of it."""
        self.over.set()
        self.thread.join(10)
        for connection in self.held:
            connection.close()


def shoot(browser, directory, widths, schemes):
    """All pages; returns how many pictures were made."""
    made = 0
    for scheme in schemes:
        browser.scheme(scheme)
        for width in widths:
            browser.size(width, 800 if width < 800 else 1080)
            for name, path in PAGES.items():
                browser.go(path)
                browser.wait(lambda: not browser.one(".vt-wait"), "the rows")
                browser.run("return new Promise((done) => setTimeout(done, arguments[0]))", 2500 if name == "overview" else 250)
                browser.picture(directory / f"{name}-{width}-{scheme}.png")
                made += 1
            browser.go("listeners/web")
            browser.fill("comment", "the new shop")
            browser.click("Review and apply")
            browser.see("Changed:", "dialog")
            browser.driver.save_screenshot(str(directory / f"dialog-{width}-{scheme}.png"))
            browser.click("Cancel", "dialog button")
            made += 1
    return made


def main():
    """The lab, traffic, pictures."""
    parser = argparse.ArgumentParser(prog="./dev screenshots", description="Pictures of every page of the web UI.")
    parser.add_argument("--build", default="release", help="CMake preset whose programs run (default release)")
    parser.add_argument("--width", type=int, nargs="*", default=[360, 1920])
    parser.add_argument("--scheme", nargs="*", default=["light", "dark"])
    options = parser.parse_args()
    directory = ROOT / "build" / "screenshots"
    directory.mkdir(parents=True, exist_ok=True)
    with Lab() as lab:
        nginx = Nginx(lab, lab.server)
        with Gateway(lab, build=options.build) as gateway:
            proxy = LoopbackProxy(lab.gateway, 8080, outside=0)
            furnish(gateway, lab)
            traffic = Traffic(lab)
            browser = Browser(lab.directory / "chromium", proxy.url)
            try:
                browser.size(1280, 900)
                browser.load("")
                for scheme in options.scheme:
                    browser.scheme(scheme)
                    browser.wait(lambda: browser.one("dialog input[type=password]"), "the log-in")
                    browser.driver.save_screenshot(str(directory / f"login-{scheme}.png"))
                browser.login(gateway.token())
                made = len(options.scheme) + shoot(browser, directory, options.width, options.scheme)
            finally:
                browser.close()
                traffic.stop()
                proxy.close()
            assert nginx.lines(), "no traffic came through"
    print(f"{made} pictures in {Path(directory).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    os.chdir("/")
    sys.exit(main())
