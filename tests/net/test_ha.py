"""Two gateways beside each other: equal configurations by `gatewayctl replicate`, and keepalived with the shipped file."""

import datetime
import os
import re
import shutil
import subprocess
import threading
import time

import pytest

from lab.gateway import ROOT
from lab.netns import run
from lab.pair import Pair
from lab.process import SANITIZER, wait_for
from lab.servers import Peer

OK, REFUSED, USAGE, UNREACHABLE, ATTENTION = range(5)
CONF = ROOT / "packaging" / "keepalived" / "keepalived.conf"
PORT = 7900
NAMES = ("a", "b")
OTHER = {"a": "b", "b": "a"}
CLIENTS = [f"10.71.1.{last}" for last in range(100, 124)] + [f"fd71:1::{last}" for last in range(100, 124)]
POOL = {"name": "pool", "algorithm": "source_hash",
        "targets": [{"address": f"{net}{last}", "port": PORT} for net in ("10.71.2.", "fd71:2::") for last in (2, 3, 4, 5)]}
LISTENER = {"name": "web", "destinations": ["10.71.2.0/24", "fd71:2::/64"], "ports": [str(PORT)], "upstream": "pool"}


class Two:
    """The network and both gateways."""

    def __init__(self, net):
        self.net = net
        self.gateways = {name: net.gateway_on(name) for name in NAMES}
        self.tokens = {}
        for name, gateway in self.gateways.items():
            self.tokens[name] = net.directory / f"token-{name}"
            self.tokens[name].write_text(gateway.token())

    def line(self, name, *words):
        """The command line of `replicate` on one of the two, to the other."""
        gateway, other = self.gateways[name], OTHER[name]
        return self.net.sides[name].command(gateway.binaries / "gatewayctl", "replicate", "--socket", gateway.socket, "--url",
                                            self.net.url(other), "--token-file", self.tokens[other], "--insecure", *words)

    def replicate(self, name, *words, code=OK):
        """Once; returns what it said. A machine that is slow with TLS gets time."""
        def ask():
            done = subprocess.run(self.line(name, "--once", *words), capture_output=True, text=True, timeout=60, check=False)
            assert not SANITIZER.search(done.stderr), done.stderr
            return done if done.returncode == code or done.returncode != UNREACHABLE else None
        done = wait_for(ask, 60, "an answer of the other gateway")
        assert done.returncode == code, done
        return done.stdout + done.stderr

    def configs(self):
        """Both configurations, as they are told."""
        return [self.gateways[name].api("GET", "config").body for name in NAMES]

    def close(self):
        """Ends both."""
        for gateway in self.gateways.values():
            gateway.close()


@pytest.fixture(scope="module")
def two():
    """One pair for this file; b has its configuration from a. Each test leaves both equal."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    with Pair() as net:
        made = Two(net)
        try:
            made.gateways["a"].must("PUT", "config", {"upstreams": [POOL], "listeners": [LISTENER]})
            assert "is revision 1 of" in made.replicate("b")
            yield made
        finally:
            made.close()


def second(revisions):
    """When the newest of a list of revisions was made, as seconds since 1970."""
    return datetime.datetime.fromisoformat(revisions["items"][0]["created_at"]).timestamp()


def test_whoever_is_ahead(two):
    """A change on either side comes to the other, whoever asks; what is equal is left alone; and so is a way back."""
    a, b = (two.gateways[name] for name in NAMES)
    assert two.configs()[0] == two.configs()[1] and b.must("GET", "upstreams")["total"] == 1
    assert two.replicate("a") == ""
    b.must("PATCH", "listeners/web", {"comment": "new"})
    two.replicate("a")
    assert two.configs()[0] == two.configs()[1] and a.must("GET", "listeners/web")["comment"] == "new"
    # Taken back on one side: both have had what the other has, and the later counts.
    before = second(a.must("GET", "revisions?limit=1"))
    wait_for(lambda: time.time() >= before + 1, 5, "the next second, which is how exact the history is")
    b.must("POST", f"revisions/{b.status()['revision'] - 1}/rollback")
    two.replicate("a")
    assert a.must("GET", "listeners/web")["comment"] == ""
    assert two.configs()[0] == two.configs()[1]


def test_both_changed(two):
    """Nothing is lost: it is refused with words, until somebody says which is right; tokens are not touched."""
    a, b = (two.gateways[name] for name in NAMES)
    a.must("PATCH", "listeners/web", {"comment": "of a"})
    b.must("PATCH", "listeners/web", {"comment": "of b"})
    before = two.configs()
    for name in NAMES:
        words = two.replicate(name, code=ATTENTION)
        assert "both gateways were changed" in words and "--force" in words and "by uid 0" in words
    assert two.configs() == before
    tokens = b.must("GET", "tokens")
    two.replicate("a", "--force")
    assert two.configs() == [before[0]] * 2
    assert b.must("GET", "tokens") == tokens
    assert b.must("GET", f"revisions/{b.status()['revision'] - 1}")["config_hash"], "what it had is in its history"


def test_what_waits_and_what_is_wrong(two):
    """An unconfirmed change stays where it is; a gateway that is away, a wrong token and wrong use are told."""
    a = two.gateways["a"]
    a.must("PATCH", "listeners/web?confirm_within=60", {"comment": "perhaps"})
    before = two.configs()
    assert "waits to be confirmed" in two.replicate("a", code=ATTENTION)
    assert "waits to be confirmed" in two.replicate("b", code=ATTENTION)
    assert two.configs() == before
    a.must("POST", f"revisions/{a.status()['revision']}/confirm")
    two.replicate("b")
    assert two.configs() == [before[0]] * 2
    assert "(401)" in two.replicate("a", "--token", "wrong", "--token-file", two.tokens["a"], code=REFUSED)
    assert "no answer" in two.replicate("a", "--url", "https://10.71.1.77:8443", "--interval", "1", code=UNREACHABLE)
    done = subprocess.run([a.binaries / "gatewayctl", "replicate", "--socket", a.socket], capture_output=True, text=True,
                          timeout=30, check=False)
    assert done.returncode == USAGE and "--url" in done.stderr


def banned(gateway):
    """{address: reason} of a gateway's bans."""
    return {ban["address"]: ban["reason"] for ban in gateway.must("GET", "bans")["items"]}


def test_bans(two):
    """Those of each are the other's too, with their time, until they are lifted where they were made."""
    a, b = (two.gateways[name] for name in NAMES)
    a.must("POST", "bans", {"address": "192.0.2.7", "ban_s": 600, "reason": "noise"})
    b.must("POST", "bans", {"address": "2001:db8::/48", "reason": "ä" * 127})  # as a copy too long by half a character
    for name in ("a", "b", "a"):
        two.replicate(name)
    assert banned(a) == {"192.0.2.7": "noise", "2001:db8::/48": "replicated: " + "ä" * 121}
    assert banned(b) == {"192.0.2.7": "replicated: noise", "2001:db8::/48": "ä" * 127}
    assert b.must("GET", "bans/192.0.2.7")["expires_at"] and not a.must("GET", "bans/2001:db8::/48")["expires_at"]
    a.must("DELETE", "bans?address=192.0.2.7")
    b.must("DELETE", "bans?address=2001:db8::/48")
    two.replicate("b")
    assert banned(a) == banned(b) == {}


def test_all_the_time(two):
    """The service's form follows both sides by itself, also through a restart of a gateway."""
    a, b = (two.gateways[name] for name in NAMES)
    process = two.net.start(None, "replicate", *two.line("a", "--interval", "1"))
    a.must("PATCH", "listeners/web", {"comment": "one"})
    wait_for(lambda: b.must("GET", "listeners/web")["comment"] == "one", 20, "the change on the other side")
    b.stop()
    wait_for(lambda: "no answer" in process.output(), 20, "word of the gateway that is away")
    a.must("PATCH", "listeners/web", {"comment": "two"})
    b.start()
    wait_for(lambda: b.must("GET", "listeners/web")["comment"] == "two", 30, "the change on the other side")
    assert process.running()
    process.stop()


# ---- keepalived ----

def shipped_conf(directory, name, ready):
    """The shipped file with this network's interfaces and addresses; sanitizers make the script slow, nothing else."""
    text = CONF.read_text()
    for old, new in (("eth0", "in0"), ("eth1", "out0"), ("192.0.2.1/", "10.71.1.1/"), ("198.51.100.1/", "10.71.2.1/"),
                     ("timeout 2", "timeout 20"), ("2001:db8:1::1/", "fd71:1::1/"), ("2001:db8:2::1/", "fd71:2::1/"),
                     ("/usr/libexec/gatewayd/ready", str(ready))):
        assert old in text
        text = text.replace(old, new)
    path = directory / f"keepalived-{name}.conf"
    path.write_text(text)
    return path


def start_keepalived(two, name):
    """keepalived on one of the two, with the shipped script asking the gateway beside it."""
    net, gateway = two.net, two.gateways[name]
    ready = net.directory / f"ready-{name}"
    ready.write_text((ROOT / "packaging/keepalived/ready").read_text().replace(
        "gatewayctl", f"env GATEWAYCTL_SOCKET={gateway.socket} {gateway.binaries}/gatewayctl"))
    ready.chmod(0o755)
    files = [net.directory / f"keepalived-{name}.{kind}" for kind in ("pid", "vrrp")]
    return net.start(net.sides[name], f"keepalived-{name}", "/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp",
                     "--log-detail", "--pid", files[0], "--vrrp_pid", files[1], "--use-file",
                     shipped_conf(net.directory, name, ready))


def masters(two):
    """Who has the routers' addresses, all four of them."""
    wanted = {"10.71.1.1/24", "10.71.2.1/24", "fd71:1::1/64", "fd71:2::1/64"}
    def addresses(name):
        shown = two.net.sides[name].run("ip", "-o", "addr").stdout
        return set(re.findall(r"inet6? (\S+)", shown))
    return [name for name in NAMES if wanted <= addresses(name)]


def choice(two, client):
    """Which target a client is led to."""
    family = 4 if "." in client else 6
    def bind(made):
        made.bind((client, 0))
    with two.net.client.connect("10.71.2.99" if family == 4 else "fd71:2::99", PORT, timeout=10, before=bind) as connection:
        return connection.recv(100).decode()


class Knocks(threading.Thread):
    """A new connection every moment; `gaps` are the times without one."""

    def __init__(self, two):
        super().__init__(daemon=True)
        self.two, self.over, self.good = two, threading.Event(), []
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            try:
                with self.two.net.client.connect("10.71.2.99", PORT, timeout=0.5) as connection:
                    if connection.recv(100):
                        self.good.append(time.monotonic())
            except OSError:
                pass

    def longest_gap(self):
        """The longest time between two good ones."""
        return max(later - earlier for earlier, later in zip(self.good, self.good[1:]))

    def good_after(self, moment):
        """Whether there was a good one after the moment."""
        return bool(self.good) and self.good[-1] > moment

    def end(self):
        """No more of them."""
        self.over.set()
        self.join(10)


@pytest.fixture
def named_servers(two):
    """Servers that say which they are."""
    def name(connection, _peer):
        with connection:
            connection.sendall(connection.getsockname()[0].encode())
            connection.settimeout(60)
            connection.recv(1)
    peers = [Peer(two.net.server, target["address"], PORT, name) for target in POOL["targets"]]
    for client in CLIENTS:
        two.net.client.run("ip", "addr", "add", f"{client}/{24 if '.' in client else 64}", "dev", "up0", "nodad"
                           if ":" in client else "noprefixroute")
    yield peers
    for peer in peers:
        peer.close()


def test_a_dead_gateway_is_noticed_in_time():
    """By the numbers of the shipped file: three advertisements and the skew."""
    text = CONF.read_text()
    intervals = {float(value) for value in re.findall(r"advert_int ([0-9.]+)", text)}
    priorities = {int(value) for value in re.findall(r"priority (\d+)", text)}
    assert len(intervals) == len(priorities) == 1, "equal priorities, or who comes back takes the addresses away again"
    interval, priority = intervals.pop(), priorities.pop()
    assert 3 * interval + (256 - priority) / 256 * interval < 2


@pytest.mark.timeout(180)
def test_failover(two, named_servers, figure):
    """The master loses its cables: the other serves, with the same choices; it comes back and waits, until that one's
    relay fails."""
    if not shutil.which("keepalived"):
        pytest.skip("keepalived is not installed")
    for name in NAMES:
        start_keepalived(two, name)
    logs = [two.net.directory / f"keepalived-{name}.log" for name in NAMES]
    wait_for(lambda: all("VRRP_Script(gatewayd) succeeded" in log.read_text() for log in logs), 60, "two ready gateways")
    first = wait_for(lambda: len(masters(two)) == 1 and masters(two), 20, "a master")[0]
    second = OTHER[first]
    before = wait_for(lambda: [choice(two, client) for client in CLIENTS], 20, "all choices")
    assert len(set(before)) == len(POOL["targets"])
    assert masters(two) == [first], "one of them only"
    old = two.net.client.connect("10.71.2.99", PORT, timeout=20)
    assert old.recv(100)
    knocks = Knocks(two)
    wait_for(lambda: knocks.good, 30, "a connection")
    two.net.cables(first, "down")
    wait_for(lambda: second in masters(two), 30, "the other's addresses")
    moment = time.monotonic()
    wait_for(lambda: knocks.good_after(moment), 30, "a connection through the other")
    figure("without a gateway, s", round(knocks.longest_gap(), 2))
    assert [choice(two, client) for client in CLIENTS] == before, "Maglev: the same choices"
    with pytest.raises(ConnectionResetError):  # a flow of the dead gateway ends at once, and clients try again
        old.sendall(b"x")
        old.recv(1)
        old.recv(1)
    old.close()
    check_the_way_back(two, knocks, first, second)
    knocks.end()


def check_the_way_back(two, knocks, first, second):
    """Who comes back does not take the addresses away, but has them when the other is unready."""
    log = two.net.directory / f"keepalived-{first}.log"
    before = log.read_text().count("Entering BACKUP STATE")
    two.net.cables(first, "up")
    wait_for(lambda: log.read_text().count("Entering BACKUP STATE") >= before + 4, 30, "it to be back")
    moment = time.monotonic()
    wait_for(lambda: knocks.good_after(moment), 20, "connections all the while")
    assert masters(two) == [second]
    two.gateways[second].break_relay()
    wait_for(lambda: masters(two) == [first], 60, "the addresses with the ready one")
    moment = time.monotonic()
    wait_for(lambda: knocks.good_after(moment), 30, "a connection through it")
    two.gateways[second].mend_relay()
