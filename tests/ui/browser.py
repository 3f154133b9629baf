"""A real Chromium without a window, driven through chromedriver; knows the pages as a person does: by what they say."""

import json
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lab.chromium import SWITCHES
from lab.process import SLOWNESS, Timeout

# What the browser itself notes of an answer that is no success; the pages show those in their own way.
ANSWERS = ("Failed to load resource", "net::ERR_")


class Browser:
    """One browser with a profile of its own, on the UI at `url`."""

    def __init__(self, directory, url):
        self.url = url
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for switch in [*SWITCHES, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={directory}"]:
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.driver.set_page_load_timeout(30 * SLOWNESS)
        self.driver.set_script_timeout(60 * SLOWNESS)
        self.complaints = []
        self.size(1280, 900)

    def close(self):
        """Ends the browser."""
        self.driver.quit()

    # --- what it is told to be ---

    def size(self, width, height):
        """The size of the page, in CSS pixels, exactly."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def scheme(self, name):
        """What the system prefers: "dark" or "light"."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": name}]})

    # --- where it goes ---

    def load(self, path=""):
        """Loads the page from the server, as after a reload."""
        self.driver.get("about:blank")  # else only the part behind # would change
        self.driver.get(self.url + path)

    def go(self, path):
        """Follows a link within the UI; path: "listeners/web"."""
        self.run("location.hash = arguments[0]", "#/" + path)
        self.wait(lambda: self.run("return document.title !== 'gatewayd' && !!document.querySelector('main h1')"), f"the page {path}")

    def login(self, token):
        """Types the token."""
        field = self.wait(lambda: self.one("dialog input[type=password]"), "the log-in")
        field.send_keys(token, Keys.ENTER)
        self.wait(lambda: not self.one("dialog") and self.one("main h1"), "the first page")

    # --- what it sees ---

    def run(self, script, *arguments):
        """The value of a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def one(self, css, text=None):
        """The first element that is displayed, with that text in it; None if there is none."""
        return self.run("return [...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility() && "
                        "(arguments[1] === null || e.innerText.includes(arguments[1]))) || null", css, text)

    def wait(self, condition, what, seconds=15):
        """Polls until the condition is true; elements that vanish meanwhile count as not yet."""
        deadline = time.monotonic() + seconds * SLOWNESS
        while True:
            try:
                value = condition()
                if value:
                    return value
            except Exception as error:
                if type(error).__name__ not in ("StaleElementReferenceException", "JavascriptException"):
                    raise
            if time.monotonic() > deadline:
                raise Timeout(f"{what}: not within {seconds} s; the page says:\n{self.text()[:3000]}\n{self.logs()}")
            time.sleep(0.05)

    def see(self, text, css="body", seconds=15):
        """Waits until an element says this; returns it."""
        return self.wait(lambda: self.one(css, text), f"{text!r} in {css}", seconds)

    def text(self):
        """All that the page says."""
        return self.run("return document.body.innerText")

    # --- what it does ---

    def click(self, text, css="button, a, summary", seconds=15):
        """Presses what has this text."""
        def press():
            found = self.run(
                "const found = [...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility() && "
                "(e.innerText.trim() === arguments[1] || e.getAttribute('aria-label') === arguments[1]));"
                "found?.scrollIntoView({block: 'center'}); return found || null", css, text)
            if not found:
                return False
            try:
                found.click()
            except Exception as error:
                if type(error).__name__ not in ("ElementClickInterceptedException", "StaleElementReferenceException",
                                                "ElementNotInteractableException"):
                    raise
                return False
            return True
        self.wait(press, f"something to press that says {text!r}", seconds)

    def field(self, label, within="body"):
        """The control with this label."""
        return self.wait(lambda: self.run(
            "const wanted = arguments[0], root = document.querySelector(arguments[1]);"
            "const label = [...root.querySelectorAll('label')].find((l) => l.textContent.trim().replace(/ required$/, '') === wanted);"
            "return label && document.getElementById(label.htmlFor)", label, within), f"a field {label!r}")

    def fill(self, label, value, within="body"):
        """Puts a value into the field with this label, as if it was typed."""
        field = self.field(label, within)
        if field.tag_name == "select" or len(value) > 200:
            self.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
                     "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))", field, value)
        else:
            field.clear()
            field.send_keys(value)

    def apply(self, confirm="0"):
        """Applies what the dialog shows; confirm: seconds after which it is taken back, as text."""
        self.fill("When it is applied", confirm, "dialog")
        self.click("Apply", "dialog button")
        self.wait(lambda: not self.one("dialog"), "the end of the dialog")

    def picture(self, path):
        """A picture of the whole page."""
        height = min(6000, self.run("return document.documentElement.scrollHeight"))
        width = self.run("return window.innerWidth")
        was = self.run("return window.innerHeight")
        self.size(width, max(height, was))
        time.sleep(0.15)
        self.driver.save_screenshot(str(path))
        self.size(width, was)

    # --- what is wrong ---

    def logs(self):
        """What the browser complains about, and the pages' own exceptions; HTTP answers that are no success are no such thing."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING") and not any(word in entry["message"] for word in ANSWERS):
                self.complaints.append(entry["message"])
        return self.complaints

    def axe(self, source):
        """Serious and critical findings of axe-core on what is shown, as readable lines."""
        if not self.run("return typeof axe === 'object'"):
            self.run(source + "\nwindow.axe = axe;")
        found = json.loads(self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run(document, {resultTypes: ['violations']}).then((r) => done(JSON.stringify(r.violations)), (e) => done(JSON.stringify([{impact: 'critical', id: 'axe', nodes: [], help: String(e)}])))"))
        return [f"{one['impact']} {one['id']}: {one['help']}: {[n['html'][:160] + ' ' + (n.get('failureSummary') or '')[:200] for n in one['nodes'][:3]]}"
                for one in found if one["impact"] in ("serious", "critical")]
