"""The whole story as a person lives it: log in, make an upstream and a listener, see traffic, drain, change, be afraid,
be taken back, go back, end a flow; and what happens when the connection goes."""

import contextlib
import re
import subprocess

import pytest

from lab import datagrams
from lab.gateway import ROOT
from lab.process import amount, wait_for

PORT = 8000


def furnish(ui):
    """An upstream and a listener, made over the API."""
    ui.gateway.upstream("pool", [(ui.lab.server.v4, PORT), ("10.71.2.3", PORT)])
    ui.gateway.listener("web", ports=[str(PORT)], upstream="pool")


def test_login(ui):
    """A wrong token is told; the right one opens the door; logging out closes it, and the address stays."""
    page = ui.browser
    page.click("Log out")
    field = page.wait(lambda: page.one("dialog input[type=password]"), "the log-in")
    field.send_keys("wrong\n")
    page.see("This token is not taken.", "dialog")
    assert "admin.token" not in page.text()
    page.click("Where do I get a token?")
    page.see("admin.token", "dialog")
    field.clear()
    page.login(ui.gateway.token())
    page.see("Settings", "main h1")
    assert "gateway_session" not in page.run("return document.cookie")


def test_first_visit(ui):
    """Three steps, and the third one sees the traffic."""
    page = ui.browser
    page.go("start")
    page.fill("Name", "no name")
    page.click("Review and make the listener")
    page.see("/name", ".error")
    page.fill("Name", "first")
    page.fill("Ports", f"{PORT}")
    page.click("Review and make the listener")
    page.see("New: /listeners/first", "dialog")
    page.apply()
    page.see("No traffic for “first” so far", "main")
    assert "0123" in ui.request(PORT)
    page.see("traffic seen", "main")


def test_make_and_see_traffic(ui):
    """Upstream and listener by form, with the server's fault at its field; then traffic in picture, figures and chart."""
    page = ui.browser
    page.go("upstreams")
    page.click("New upstream")
    page.fill("name", "pool")
    page.click("Add target")
    page.fill("address", "server.example.com", ".children")
    page.click("Review and apply")
    fault = page.see("address", ".children .error")
    assert page.run("return document.activeElement.dataset.pointer") == "/address"
    assert page.run("return arguments[0].closest('.field').querySelector('input').getAttribute('aria-invalid')", fault) == "true"
    page.fill("address", ui.lab.server.v4, ".children")
    page.click("Review and apply")
    page.see("New: /upstreams/pool", "dialog")
    page.apply()
    page.see("Targets now", "main")
    page.see(f"{ui.lab.server.v4}, same port", "main tbody th")

    page.go("listeners?new=1")
    page.fill("name", "web")
    page.fill("ports", "80 00")
    page.fill("upstream", "pool")
    page.click("Review and apply")
    page.see("“80 00”", ".error")
    page.fill("ports", str(PORT))
    page.click("Review and apply")
    page.see("New: /listeners/web", "dialog")
    page.click("As nft text, what goes to the kernel", "dialog summary")
    page.see("inet gatewayd", "dialog pre")
    page.apply()
    page.see("web", "main h1")
    assert ui.gateway.must("GET", "listeners/web")["upstream"] == "pool"

    page.go("")
    for _ in range(20):
        assert ui.request(PORT, "/64k")
    page.see("pool", ".picture")
    page.wait(lambda: page.run("return [...document.querySelectorAll('.picture .link')].length") >= 2, "lines between the cards")
    words = "return document.querySelector('.plot').getAttribute('aria-label')"
    page.wait(lambda: re.search(r"to clients: now [^,]*, at most [1-9.]+\s[kM]bit/s", page.run(words)), "traffic in the chart", 40)
    assert page.run("return document.querySelector('.line.c1').getAttribute('d').length") > 10
    words = "return [...document.querySelectorAll('.plot')].map((e) => e.getAttribute('aria-label')).join('; ')"
    for title in ("Connect time", "First byte"):
        page.wait(lambda title=title: re.search(rf"{title} in the last hour. p50: now [^;]*, at most [1-9][0-9.]*\s(µs|ms|s); p95", page.run(words)), title, 40)
    for kind, name in (("listeners", "web"), ("upstreams", "pool")):
        page.go(kind)
        page.wait(lambda name=name: re.search(rf"\b{name}\b[^§]*\s(µs|ms|s)\b", page.run("return document.querySelector('.vt-body')?.innerText ?? ''")),
                  f"how long the first byte of {name} took", 20)


def test_drain(ui):
    """Two clicks; the flow that is there is counted down, and the API says what the page says."""
    page = ui.browser
    furnish(ui)
    target = f"{ui.lab.server.v4}:{PORT}"
    with ui.lab.client.connect(ui.lab.server.v4, PORT) as held:
        held.sendall(b"GET /tiny HTTP/1.1\r\nHost: a\r\n\r\n")
        held.recv(1000)
        port = held.getsockname()[1]  # others' flows may still be there
        flow = wait_for(lambda: [f for f in ui.gateway.must("GET", "flows")["items"] if f["client"]["port"] == port], 5,
                        "the flow")[0]
        target = f"{flow['target']['address']}:{PORT}"
        page.go("upstreams/pool")
        say(page, f"Drain: {target}")
        page.see("draining", "main tbody")
        page.see("1 flow left", "main tbody")
        states = {f"{t['address']}:{t['port']}": t["admin_state"] for t in ui.gateway.must("GET", "upstreams/pool/targets")["items"]}
        assert states[target] == "drain" and list(states.values()).count("drain") == 1
    page.see("drained: no flows left", "main tbody", 20)
    say(page, f"Put in service: {target}")
    page.wait(lambda: "drain" not in {t["admin_state"] for t in ui.gateway.must("GET", "upstreams/pool/targets")["items"]}, "the target's service")


def say(page, action):
    """Presses a button of a target and applies it, be it a change of the configuration or a word of the operator."""
    page.click(action)
    page.see("Apply", "dialog button")
    if page.one("dialog label", "When it is applied"):
        page.apply()
    else:
        page.click("Apply", "dialog button")
        page.wait(lambda: not page.one("dialog"), "the end of the dialog")


BROKEN = """
const real = window.fetch;
window.fetch = async (url, options) => {
    const answer = await real(url, options);
    if (!String(url).endsWith('/targets')) return answer;
    const told = await answer.json();
    for (const one of told.items) one.health = {state: one.address === '10.71.2.3' ? 'down' : 'up', reason: 'connection refused'};
    return new Response(JSON.stringify(told), {status: answer.status, headers: answer.headers});
};"""


def test_broken_target(ui):
    """A target that nobody answers at is red in the picture, and said in words with the way to it."""
    page = ui.browser
    ui.gateway.upstream("pool", [(ui.lab.server.v4, PORT), ("10.71.2.3", 9)], health={"type": "tcp", "interval_ms": 200, "timeout_ms": 100, "fall": 1})
    ui.gateway.listener("web", ports=[str(PORT)], upstream="pool")
    if "health" not in ui.gateway.must("GET", "upstreams/pool/targets")["items"][0]:
        page.run(BROKEN)  # this daemon does not probe: what the page makes of the answer can be seen all the same
    page.go("")
    page.see("10.71.2.3:9", ".picture .is-bad")
    page.see("failed", ".picture .is-bad .badge")
    page.see("Target 10.71.2.3:9 of pool is failed", ".wrongs")
    page.click("Open the upstream")
    page.see("pool", "main h1")
    page.see("failed", "main tbody .badge")


def test_confirm_and_revert(ui):
    """A change that waits counts down on every page, also after a reload; Keep keeps it, doing nothing takes it back."""
    page = ui.browser
    furnish(ui)
    page.go("listeners/web")
    page.fill("comment", "kept")
    page.click("Review and apply")
    page.see("kept", "dialog .is")
    page.apply("60")
    page.see("unless it is kept", "#pending")
    page.load("#/flows")
    page.see("unless it is kept", "#pending")
    page.click("Keep it")
    page.wait(lambda: not page.one("#pending"), "the end of the waiting")
    assert ui.gateway.must("GET", "listeners/web")["comment"] == "kept"
    assert ui.gateway.status()["pending"] is None

    ui.gateway.must("PATCH", "listeners/web?confirm_within=5", {"comment": "gone"})
    page.see("unless it is kept", "#pending")
    page.wait(lambda: not page.one("#pending"), "the change taken back", 20)
    assert ui.gateway.must("GET", "listeners/web")["comment"] == "kept"

    ui.gateway.must("PATCH", "listeners/web?confirm_within=600", {"comment": "gone"})
    page.click("Take it back now")
    page.click("Take it back", "dialog button")
    page.wait(lambda: not page.one("#pending"), "the change taken back at once")
    assert ui.gateway.must("GET", "listeners/web")["comment"] == "kept"


def test_roll_back(ui):
    """The history shows what a revision changed, and leads back to any of them."""
    page = ui.browser
    furnish(ui)
    before = ui.revision()
    ui.gateway.must("PATCH", "listeners/web", {"ports": ["8001"]})
    page.go(f"revisions/{before + 1}")
    page.see("8001", "main .is")
    page.go(f"revisions/{before}")
    page.click("Compare")
    page.see("8001", "main .is")
    page.click("Go back to this")
    page.see(str(PORT), "dialog .is")
    page.apply()
    page.see("Revisions", "main h1")
    page.see("now", "main .badge")
    assert ui.gateway.must("GET", "listeners/web")["ports"] == [str(PORT)]
    assert ui.revision() == before + 2


def test_two_people(ui):
    """What somebody else has changed meanwhile is not overwritten."""
    page = ui.browser
    furnish(ui)
    page.go("listeners/web")
    page.fill("comment", "mine")
    ui.gateway.must("PATCH", "listeners/web", {"comment": "theirs"})
    page.click("Review and apply")
    page.see("Somebody else changed this", ".error")
    assert ui.gateway.must("GET", "listeners/web")["comment"] == "theirs"


def test_kill_flow(ui):
    """A flow is seen, filtered for, and ended: its client gets a reset."""
    page = ui.browser
    furnish(ui)
    with ui.lab.client.connect(ui.lab.server.v4, PORT) as held:
        held.sendall(b"GET /tiny HTTP/1.1\r\nHost: a\r\n\r\n")
        held.recv(1000)
        page.go("flows")
        port = held.getsockname()[1]
        page.see(f"{ui.lab.client.v4}:{port}", ".vt-row")
        page.fill("Client or prefix", "192.0.2.0/24")
        page.wait(lambda: not page.one(".vt-row", str(port)), "a filtered list")
        page.fill("Client or prefix", ui.lab.client.v4)
        page.see(f"{ui.lab.client.v4}:{port}", ".vt-row")
        page.click(f"End the flow of {ui.lab.client.v4}:{port}")
        page.click("End it", "dialog button")
        with pytest.raises(ConnectionResetError):
            while held.recv(1000):
                pass
        page.see("The flow was ended.")
        page.wait(lambda: not page.one(".vt-row", str(port)), "its end in the list")


def test_address_set(ui):
    """Ten thousand lines are pasted, a bad one is named by its number, and the list is there to scroll."""
    page = ui.browser
    page.go("address-sets?new=1")
    page.fill("name", "many")
    page.click("Review and apply")
    page.apply()
    page.see("many", "main h1")
    lines = [f"10.{i >> 7 & 127}.{i & 127}.1" for i in range(10000)]
    page.fill("One address, prefix or range a line", "\n".join([*lines[:4], "nonsense", *lines[4:]]))
    page.click("Add these")
    page.see("5", ".error")
    page.fill("One address, prefix or range a line", "\n".join(lines))
    page.see("10.0\u00a0k lines", ".hint")
    page.click("Add these")
    page.see("Changed: /address-sets/many", "dialog", 30)
    page.apply()
    page.see("10000 added", "#toasts")
    assert len(ui.gateway.api("GET", "address-sets/many/entries", headers={"Accept": "text/plain"}).text.split()) == 10000
    page.see("10.0\u00a0k of 10.0\u00a0k", "main", 30)
    assert page.run("return document.querySelectorAll('.vt-body .vt-row').length") < 60


def test_a_page_that_is_opened_while_it_is_gone(ui):
    """It says why it is empty, and comes with the gateway, although its module could not be fetched."""
    page = ui.browser
    page.load("#/events")  # so that no other page's module has been fetched
    page.see("live", "#live")
    ui.proxy.break_off()
    page.see("connection to the gateway is gone", "#gone", 30)
    page.run("location.hash = '#/doctor'")
    page.see("as soon as the gateway answers again", "#content")
    ui.proxy.mend()
    page.see("net.ipv4.ip_forward is 1", "#content", 30)


def test_connection_gone(ui):
    """It says so, keeps what is there, comes back by itself, and has missed nothing."""
    page = ui.browser
    page.go("events")
    page.see("live", "#live")
    ui.proxy.break_off()
    page.see("connection to the gateway is gone", "#gone", 30)
    page.see("connection gone", "#live")
    ui.gateway.listener("meanwhile", ports=["9999"])
    ui.proxy.mend()
    page.wait(lambda: not page.one("#gone"), "the connection again", 30)
    page.see("listeners/meanwhile", ".vt-row", 30)


def test_session_lost(ui):
    """When the session ends, the log-in comes over the page, and what was typed is still there."""
    page = ui.browser
    furnish(ui)
    page.go("listeners/web")
    page.fill("comment", "typed")
    page.run("return fetch('/api/v1/session').then((r) => r.json()).then((s) => fetch('/api/v1/session', {method: 'DELETE', headers: {'X-CSRF-Token': s.csrf_token}}))")
    page.click("Review and apply")
    page.wait(lambda: page.one("dialog input[type=password]"), "the log-in").send_keys(ui.gateway.token() + "\n")
    page.see("typed", "dialog .is")
    page.apply()
    assert ui.gateway.must("GET", "listeners/web")["comment"] == "typed"


def test_ten_thousand(ui):
    """Ten thousand listeners: the first rows are there at once, the last ones when they are scrolled to."""
    page = ui.browser
    rows = [{"name": f"l-{i:05}", "enabled": False, "ports": [str(1024 + i)]} for i in range(10000)]
    ui.gateway.must("PUT", "config", {**ui.gateway.must("GET", "config"), "listeners": rows}, timeout=120)
    page.go("listeners")
    page.see("l-00000", ".vt-row", 30)
    page.see("10000 in all", "main")
    assert page.run("return document.querySelectorAll('.vt-body .vt-row').length") < 60
    page.run("const v = document.querySelector('.vt-view'); v.scrollTop = v.scrollHeight")
    page.see("l-09999", ".vt-row", 60)
    page.fill("Name begins with", "l-0500")
    page.see("10 in all", "main")
    page.see("l-05009", ".vt-row")


# Connections and UDP flows, of each family. The long run has more than 10,000, in which there are fewer connections: each
# takes two descriptors of the 20,000 that a relay may have here.
MANY = amount((2000, 100), (2500, 2600))


def many_flows(ui, stack):
    """Connections and UDP flows, all of them real."""
    (connections, datagrams_too), lab, gateway = MANY, ui.lab, ui.gateway
    gateway.listener("web", ports=["8000"])
    gateway.listener("asked", protocol="udp", ports=["7230"], idle_timeout_s=600)
    echo = datagrams.echo_server(lab, lab.server, tool("gwudp"), 7230)
    stack.callback(echo.stop)
    for address in (lab.server.v4, lab.server.v6):
        held = subprocess.Popen([str(word) for word in lab.client.command(tool("gwload"), "idle", address, 8000, "/tiny", connections)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(held.wait)
        stack.callback(held.kill)
        assert held.stdout.readline() == "ready\n"
        lab.client.run(tool("gwudp"), "many", address, 7230, datagrams_too, datagrams_too)


def tool(name):
    """Path of one of the lab's programs."""
    return next(path for preset in ("release", "dev") if (path := ROOT / "build" / preset / "tests" / name).exists())


ROWS = "return Number(document.querySelector('.vt-view').getAttribute('aria-rowcount')) - 1"


def test_many_flows(ui, figure):
    """Thousands of flows: a list that is as long as they are many, and stands still while somebody reads."""
    page = ui.browser
    with contextlib.ExitStack() as stack:
        many_flows(ui, stack)
        flows, six = (ui.gateway.must("GET", f"flows?sort=age&limit=1{words}")["total"] for words in ("", "&client=fd71:1::/64"))
        assert flows > six > MANY[0]
        page.go("flows")
        page.see(f"{flows} flows now", "main")
        page.see("web", ".vt-row")
        assert page.run(ROWS) == flows
        page.run("const row = document.querySelectorAll('.vt-body .vt-row')[12]; row.here = true; document.querySelector('.vt-view').scrollTop = 80")
        page.wait(lambda: page.run("return document.querySelector('.vt-body .vt-row').dataset.key && document.querySelector('.vt-view').scrollTop == 80"), "the scroll")
        assert page.run("return [...document.querySelectorAll('.vt-body .vt-row')].some((row) => row.here)"), "no row is made twice"
        page.run("const v = document.querySelector('.vt-view'); v.scrollTop = v.scrollHeight")
        page.wait(lambda: page.one(f".vt-row[aria-rowindex='{flows + 1}']") and not page.one(".vt-wait"), "the last row")
        assert page.run("return document.querySelectorAll('.vt-body .vt-row').length") < 60
        asked = page.run("return performance.getEntriesByType('resource').filter((r) => /flows[?]sort/.test(r.name)).map((r) => r.decodedBodySize)")
        figure("bytes of the answer that is asked for again and again", asked[0])
        assert asked[0] < 200_000
        page.run("document.querySelector('.vt-body .vt-row').here = true")
        page.run("return new Promise((done) => setTimeout(done, 3500))")
        assert page.run("return document.querySelector('.vt-body .vt-row').here"), "the list was read again under the reader's eyes"
        page.fill("Client or prefix", "fd71:1::/64")
        page.see(f"{six} of them as asked for", "main")
        assert page.run(ROWS) == six
        page.fill("Listener", "web")
        page.see(f"{MANY[0]} of them as asked for", "main")
        page.click("End", ".vt-row button")
        page.click("End it", "dialog button")
        page.see(f"{MANY[0] - 1} of them as asked for", "main")
        page.fill("Show", "listener")
        page.see("web", ".vt-row")
        assert page.run(ROWS) == 1


def test_quick(ui, figure):
    """The first load is small, asks no other host, and can be used soon."""
    page = ui.browser
    page.load("#/settings")
    page.load("#/")
    page.see("Overview", "main h1")
    page.see("The last hour")
    sizes = page.run("return performance.getEntriesByType('resource').filter((r) => !r.name.includes('/api/')).map((r) => [r.name, r.decodedBodySize])")
    assert all(name.startswith(ui.browser.url) for name, _ in sizes)
    total = sum(size for _, size in sizes)
    figure("bytes of the first load, as they are", total)
    assert 10000 < total < 300000


