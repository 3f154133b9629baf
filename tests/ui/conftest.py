"""Fixtures of the UI tests: one browser and one gateway in the lab for all of them, for both take their time to start."""

import shutil
import subprocess

import pytest

from lab import Gateway
from lab.gateway import ROOT
from lab.proxy import LoopbackProxy
from ui.browser import Browser


class Ui:
    """A gateway and a browser that has logged in."""

    def __init__(self, lab, gateway, proxy, browser):
        self.lab, self.gateway, self.proxy, self.browser = lab, gateway, proxy, browser

    def request(self, port, path="/tiny", server=None):
        """One request of the lab's client through the gateway."""
        return self.lab.client.run("curl", "-sS", "-m", 10, f"http://{server or self.lab.server.v4}:{port}{path}", check=False).stdout

    def revision(self):
        """The newest revision."""
        return self.gateway.status()["revision"]


@pytest.fixture(scope="session")
def running(lab, nginx):
    """Everything that is slow to start."""
    if not shutil.which("chromedriver"):
        pytest.skip("chromium-driver is not installed")
    gateway = Gateway(lab)
    proxy = LoopbackProxy(lab.gateway, 8080, outside=0)
    try:
        browser = Browser(lab.directory / "chromium", proxy.url)
        try:
            yield Ui(lab, gateway, proxy, browser)
        finally:
            browser.close()
    finally:
        proxy.close()
        gateway.close()


@pytest.fixture
def ui(running):
    """Logged in, on the overview, with nothing configured; afterwards nothing that the browser complains about."""
    for name in ("listeners", "upstreams", "rate_limits", "address_sets", "prefilters"):
        assert name in running.gateway.must("GET", "config"), name
    empty = {key: value if key == "settings" else [] for key, value in running.gateway.must("GET", "config").items()}
    running.gateway.must("PUT", "config", empty)
    running.browser.complaints = []
    running.browser.size(1280, 900)
    running.browser.load("#/settings")
    if running.browser.wait(lambda: running.browser.one("dialog input[type=password], main h1"), "a page").tag_name == "input":
        running.browser.login(running.gateway.token())
    running.browser.wait(lambda: running.browser.one("main h1"), "a page")
    running.browser.run("localStorage.setItem('gatewayd.confirm', '60'); sessionStorage.setItem('gatewayd.started', '1')")
    yield running
    assert running.browser.logs() == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core in the pinned version; SKIP where npm cannot install it."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    place = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "ui" / name, place)
    made = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=place, capture_output=True,
                          text=True, timeout=300)
    if made.returncode:
        pytest.skip("npm cannot install axe-core here: " + made.stderr.strip().split("\n")[-1][:200])
    return (place / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
