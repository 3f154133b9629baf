"""Every page at every width and in both themes: there, without a word from axe, nothing wider than the window; and what
strangers can name is text wherever it is shown."""

import contextlib
import socket
import ssl

import pytest

PAGES = ["", "listeners", "listeners?new=1", "listeners/web", "upstreams", "upstreams/pool", "rate-limits", "rate-limits/slow",
         "address-sets", "address-sets/friends", "prefilters", "prefilters/in0", "tokens", "tokens?new=1", "flows", "bans", "events",
         "explain", "trace", "doctor", "ruleset", "revisions", "revisions/1", "audit", "settings", "start"]
HOSTILE = "<img src=x onerror=\"window.hurt=1\">'\"><script>window.hurt=1</script>\u202egnp.\u200b"
PORT = 8000


def furnish(gateway):
    """Something on every page."""
    gateway.upstream("pool", [("10.71.2.2", PORT), {"address": "fd71:2::3", "port": 0, "backup": True}], health={"type": "tcp"}, comment=HOSTILE)
    gateway.must("PUT", "rate-limits/slow", {"name": "slow", "rate": 100, "mode": "shadow", "comment": HOSTILE})
    gateway.must("PUT", "address-sets/friends", {"name": "friends", "comment": HOSTILE, "entries": ["10.0.0.0/8", "fd00::/8"]})
    gateway.must("PUT", "prefilters/in0", {"interface": "in0", "enabled": False, "deny": ["192.0.2.0/24"], "comment": HOSTILE})
    gateway.listener("web", ports=[str(PORT)], upstream="pool", comment=HOSTILE, routes=[{"sni": ["a.example"], "action": "reject"}])
    gateway.listener("guarded", ports=["8443"], sources=["@friends"], interfaces=["not-there"], action="reject")


@pytest.fixture
def furnished(ui):
    """The gateway with something on every page."""
    furnish(ui.gateway)
    return ui


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(furnished, axe, scheme):
    """axe finds nothing serious on any page."""
    page, found = furnished.browser, {}
    page.scheme(scheme)
    page.load("")
    for path in PAGES:
        page.go(path)
        page.wait(lambda: not page.one(".vt-wait") and page.text(), "the page")
        if faults := page.axe(axe):
            found[path] = faults
    page.scheme("light")
    assert found == {}


def test_dialogs_accessible(furnished, axe):
    """The same of the dialogs, and they are left by keyboard."""
    page = furnished.browser
    page.go("listeners/web")
    page.fill("comment", "new words")
    page.click("Review and apply")
    page.see("Changed: /listeners/web", "dialog")
    assert page.axe(axe) == []
    page.driver.switch_to.active_element.send_keys("\ue00c")
    page.wait(lambda: not page.one("dialog"), "the dialog's end")
    assert page.run("return document.activeElement.textContent") == "Review and apply"


def test_axe_finds_faults(furnished, axe):
    """A page that is broken on purpose is found out."""
    page = furnished.browser
    page.run("const i = document.createElement('input'); document.querySelector('main').append(i)")
    assert any("label" in line for line in page.axe(axe))


@pytest.mark.parametrize("width", [360, 1920])
def test_widths(furnished, width):
    """No page is wider than the window; on a small one the menu opens and leads somewhere."""
    page = furnished.browser
    page.size(width, 800)
    wide = {}
    for path in PAGES:
        page.go(path)
        size = page.wait(lambda: page.run("return document.documentElement.scrollWidth"), "a width")
        if size > width:
            wide[path] = size
    assert wide == {}
    if width < 800:
        page.click("Menu")
        page.click("Flows", "nav a")
        page.see("Flows", "main h1")
        assert not page.one("nav")


CROSSED = """
    const cards = [...document.querySelectorAll('.picture li .card')].map((card) => card.getBoundingClientRect());
    const box = document.querySelector('.picture .lines').getBoundingClientRect();
    const inside = (x, y) => cards.filter((c) => x > c.left + 1 && x < c.right - 1 && y > c.top + 1 && y < c.bottom - 1).length;
    return [...document.querySelectorAll('.picture .link')].filter((line) => {
        for (let at = 0; at <= line.getTotalLength(); at += 2) {
            const point = line.getPointAtLength(at);
            if (inside(point.x + box.left, point.y + box.top)) return true;
        }
        return false;
    }).length"""


@pytest.mark.parametrize("width", [400, 700, 1280])
def test_lines_go_around_cards(ui, width):
    """No line of the overview's picture leads through a card, however the columns stand; a target that takes the packet's
    own port is not drawn with port 0."""
    page = ui.browser
    for name in ("one", "two", "three"):
        ui.gateway.upstream(name, [("10.71.2.2", 0), ("10.71.2.3", 8001)])
    for n, name in enumerate(("one", "two", "three", "one", "two")):
        ui.gateway.listener(f"l{n}", ports=[str(8100 + n)], upstream=name)
    page.size(width, 800)
    page.go("")
    page.wait(lambda: page.run("return document.querySelectorAll('.picture .link').length") == 11, "the lines")
    assert page.run(CROSSED) == 0
    text = page.run("return document.querySelector('.picture').innerText")
    assert ":0" not in text and "10.71.2.2, same port" in text and "10.71.2.3:8001" in text


def test_hostile_names(furnished):
    """Comments, server names and answers with markup, quotes and marks that turn the direction: shown, never obeyed."""
    page, lab = furnished.browser, furnished.lab
    sni = "script-alert.example"
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(lab.client.connect(lab.server.v4, PORT))
        hello = client_hello(sni)
        plain.sendall(hello)
        for path in PAGES:
            page.go(path)
        page.go("upstreams")
        page.see("<img src=x onerror", ".vt-row")
        page.see("\\u202e", ".vt-row")
        page.go("flows?group=sni")
        page.go("upstreams/pool")
        page.wait(lambda: page.field("comment").get_attribute("value") == HOSTILE, "the comment as it is")
        page.go("revisions/1")
        page.run("document.title = arguments[0]", "x")
    assert page.run("return window.hurt === undefined && !document.querySelector('main img, main script')")


def test_hostile_everywhere(furnished):
    """What the server might ever say, said by a server of ours: every string of every answer is hostile."""
    page = furnished.browser
    page.run("""
        const hostile = arguments[0], real = window.fetch;
        const poison = (v) => typeof v === 'string' ? hostile : Array.isArray(v) ? v.map(poison)
            : v && typeof v === 'object' ? Object.fromEntries(Object.entries(v).map(([k, x]) => [k, poison(x)])) : v;
        window.fetch = async (url, options) => {
            const answer = await real(url, options);
            if (!/json/.test(answer.headers.get('Content-Type') || '') || /schema|session/.test(url)) return answer;
            return new Response(JSON.stringify(poison(await answer.json())), {status: answer.status, headers: answer.headers});
        };""", HOSTILE)
    for path in PAGES:
        page.run("location.hash = arguments[0]", "#/" + path)
        page.wait(lambda: page.run("return document.readyState") == "complete", "the page")
        page.run("return new Promise((done) => setTimeout(done, 150))")
        assert page.run("return window.hurt === undefined && !document.querySelector('main img, main script, main iframe')"), path
    page.load("")


ANSWERS = {
    "explain": {"verdict": "relay", "stages": [
        {"stage": "prefilter", "verdict": "pass", "why": "there is none on in0"},
        {"stage": "listener", "verdict": "drop", "why": HOSTILE, "listener": "web"}]},
    "doctor": {"checks": [{"name": "ip_forward", "ok": False, "detail": "forwarding is off", "fix": "sysctl -w net.ipv4.ip_forward=1"},
                          {"name": "clock", "ok": True, "detail": "fine"}]},
    "bans": {"items": [{"address": "192.0.2.7", "reason": HOSTILE, "actor": "token admin", "rate_limit": None,
                        "created_at": "2030-01-01T00:00:00Z", "expires_at": None}], "next": None, "total": 1},
}


def test_contract_pages(furnished, axe):
    """Explain, doctor and bans with answers as the contract has them; and what they say when the path is not there."""
    page = furnished.browser
    for path in ("explain", "doctor", "bans"):
        page.load("")
        page.see("Overview", "main h1")
        page.run(STUB, path, 404, {"title": "Not found", "status": 404})
        page.go(path)
        if path == "explain":
            page.click("Explain", "main button")
        page.see("404", "main .note")
        page.load("")
        page.see("Overview", "main h1")
        page.run(STUB, path, 200, ANSWERS[path])
        page.go(path)
        if path == "explain":
            page.fill("Source address", "10.71.1.2")
            page.click("Explain", "main button")
        page.see({"explain": "<img src=x", "doctor": "sysctl -w", "bans": "<img src=x"}[path], "main")
        assert page.axe(axe) == [], path
    page.load("")


STUB = """
const [path, status, told] = arguments, real = window.fetch;
window.fetch = async (url, options) => new RegExp(`/api/v1/${path}([?]|$)`).test(url)
    ? new Response(JSON.stringify(told), {status, headers: {'Content-Type': 'application/json'}}) : real(url, options);"""


def test_policy(ui):
    """The page may load nothing from elsewhere and run nothing inline: the browser is told so, and obeys."""
    headers = ui.gateway.api("GET", "/").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "require-trusted-types-for 'script'" in policy
    page = ui.browser
    with pytest.raises(Exception, match="TrustedHTML"):
        page.run("document.querySelector('main').innerHTML = '<b>x</b>'")
    page.complaints, _ = [], page.logs()


def test_keyboard(furnished):
    """The first tab stop skips the navigation; a list is scrolled and its links are reached without a mouse."""
    page = furnished.browser
    page.load("#/listeners")
    page.see("guarded", ".vt-row")
    page.run("document.body.focus()")
    page.driver.switch_to.active_element.send_keys("\ue004")
    assert page.run("return document.activeElement.className") == "skip"
    page.driver.switch_to.active_element.send_keys("\n")
    assert page.run("return document.activeElement.id") == "content"
    for _ in range(12):
        page.driver.switch_to.active_element.send_keys("\ue004")
        if page.run("return document.activeElement.textContent") == "guarded":
            break
    page.driver.switch_to.active_element.send_keys("\n")
    page.see("guarded", "main h1")


def test_viewer(ui):
    """A token that may only look sees no buttons that it may not press."""
    page = ui.browser
    furnish(ui.gateway)
    token = ui.gateway.must("POST", "tokens", {"name": "looker", "role": "viewer"})["token"]
    page.click("Log out")
    page.see("not logged in", "#live")
    assert not page.one("#live .dot")
    page.login(token)
    page.see("live", "#live")
    page.go("listeners")
    page.see("guarded", ".vt-row")
    assert not page.one("a", "New listener")
    page.go("listeners/web")
    page.see("may look, not change", "main")
    assert not page.one("button", "Review and apply")
    page.click("Log out")
    page.login(ui.gateway.token())


def client_hello(name):
    """A TLS ClientHello that asks for this server name."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def test_trace_page(ui):
    """A packet of the lab, seen with the rules it met and the listener they belong to; what cannot be traced is told at
    its field."""
    page, lab = ui.browser, ui.lab
    ui.gateway.listener("dns", protocol="udp", ports=["5300"])
    page.go("trace")
    page.fill("Protocol", "udp")
    page.fill("Source address", "nowhere")
    page.fill("Destination address", lab.server.v6)
    page.fill("Destination port", "5300")
    page.click("Trace", "main button")
    page.see("numeric", "main .error")
    page.fill("Source address", lab.client.v6)
    page.fill("Packets", "1")
    page.click("Trace", "main button")
    page.see("Waiting for packets", "main")
    with lab.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", (lab.server.v6, 5300))
    page.see("listener dns", "main .stage")
    page.see("As many packets as wanted", "main")
    page.run("document.querySelector('main details').open = true")
    page.see("tproxy", "main .stage code")
