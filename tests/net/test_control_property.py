"""Random sequences of changes of listeners, rate limits and address sets through the API: the kernel's state reached by
differences is that of a fresh daemon that gets the same document at once; and ties are refused with both names, as a
plain reference in here says."""

import ipaddress
import json
import os
import random
import re

import pytest

from lab import kernel
from lab.gateway import ROOT
from lab.process import amount
from net.control import difference, expect_kernel_as_desired, expect_sound

ROUNDS = int(os.environ.get("PROPERTY_ROUNDS", amount(8, 20)))
CHANGES = 20
NAMES = 30
V4 = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.7", "10.1.1.0-10.1.1.200", "10.1.0.200-10.1.2.5", "192.0.2.0/24"]
V6 = ["fd00::/8", "fd00:1::/32", "fd00:1::1", "fd00:1::-fd00:1::ff"]
PORTS = ["80", "443", "80-89", "85-95", "80-8000", "1-65535", "443-444"]
INTERFACES = ["eth0", "in0", "wg.1"]
SETS = {"small": ["10.1.1.0/24", "fd00:1::/32"], "wide": ["10.0.0.0/8"]}
CONTENTS = [SETS["small"], SETS["wide"], ["10.1.1.0/24", "10.1.1.7", "fd00:1::1"], ["192.0.2.0/24", "fd00::/8"],
            ["10.1.1.0-10.1.1.200", "fd00:1::-fd00:1::ff"], [f"10.1.{n}.0/24" for n in range(60)] + ["fd00:1::1"]]
LIMITS = ["few", "many", "net", "shut"]
WORDS = re.compile(r'"([a-z0-9-]+)"')


def some(source, items, chance=0.5, most=2):
    """A few of them, or none."""
    return source.sample(items, source.randrange(1, most + 1)) if source.random() < chance else []


def random_listener(source, name):
    """One that overlaps with others in every way, through address sets too."""
    addresses = V4 + V6 + ["@small", "@wide"]
    protocol = source.choice(["tcp", "tcp", "udp"])
    actions = ["reject", "drop", "bypass", "relay"]
    return {"name": name, "protocol": protocol, "interfaces": some(source, INTERFACES, 0.3),
            "sources": some(source, addresses, 0.4), "destinations": some(source, addresses, 0.7),
            "ports": some(source, PORTS, 0.9), "action": source.choice(actions),
            "on_worker_down": source.choice(["drop", "direct"]), "enabled": source.random() > 0.1,
            "priority": source.choice([100, 100, 10]), "rate_limits": some(source, LIMITS, 0.3, 3)}


def random_limit(source):
    """One of every kind that nft enforces."""
    metric = source.choice(["new_connections", "new_connections", "concurrent_connections", "packets", "bytes"])
    limit = {"key": source.choice(["source", "source_prefix", "listener"]), "metric": metric,
             "rate": source.randrange(5000, 9000), "per": source.choice(["second", "minute"]),
             "mode": source.choice(["enforce", "enforce", "shadow"]), "prefix_v4": source.choice([16, 24]),
             "action": source.choice(["drop", "ban"] + ["reject"] * (metric in ("new_connections", "concurrent_connections")))}
    if metric == "concurrent_connections":
        limit["rate"] //= 100
    return limit


def change_limit(gateway, source):
    """Another rate, key, metric or action under the same name."""
    answer = gateway.api("PUT", f"rate-limits/{source.choice(LIMITS)}", random_limit(source))
    assert answer.status == 200, answer
    return "limit"


def prefixes(items, sets):
    """The exact prefixes that a list stands for, by family; None for any."""
    out = set()
    for item in items:
        for text in sets[item[1:]] if item.startswith("@") else [item]:
            if "-" in text:
                first, last = map(ipaddress.ip_address, text.split("-"))
                out |= set(ipaddress.summarize_address_range(first, last))
            else:
                out.add(ipaddress.ip_network(text))
    return out


def keys(listener, sets):
    """Everything that can tie: one key for each combination, of equal precedence and equal match."""
    if not listener["enabled"]:
        return set()
    found = set()
    destinations, sources = prefixes(listener["destinations"], sets), prefixes(listener["sources"], sets)
    for family in (4, 6):
        dst = {p for p in destinations if p.version == family} if destinations else {None}
        src = {p for p in sources if p.version == family} if sources else {None}
        for d in dst:
            for s in src:
                for interface in listener["interfaces"] or [None]:
                    for ports in listener["ports"] or ["0-65535"]:
                        lo, _, hi = ports.partition("-")
                        found.add((listener["protocol"], family, d, s, interface, int(lo), int(hi or lo),
                                   listener["priority"]))
    return found


def impossible(listener, sets):
    """Whether no packet can match: sources and destinations of different families."""
    destinations, sources = prefixes(listener["destinations"], sets), prefixes(listener["sources"], sets)
    return bool(destinations and sources) and not {p.version for p in destinations} & {p.version for p in sources}


class Reference:
    """The plain reference: which listeners tie with one."""

    def __init__(self):
        self.listeners, self.sets = {}, dict(SETS)

    def ties(self, listener):
        """Names of the others with a key in common."""
        own = keys(listener, self.sets)
        return {name for name, other in self.listeners.items()
                if name != listener["name"] and own & keys(other, self.sets)}

    def ties_with(self, sets):
        """Whether any two would tie if the address sets were these."""
        met = set()
        for listener in self.listeners.values():
            own = keys(listener, sets)
            if met & own:
                return True
            met |= own
        return False


def change_set(gateway, reference, source):
    """Other entries under the same name, as a whole or by adding and removing; refused if listeners tie then."""
    name, entries = source.choice(sorted(SETS)), source.choice(CONTENTS)
    ties = reference.ties_with({**reference.sets, name: entries})
    if source.random() < 0.5:
        answer = gateway.api("PUT", f"address-sets/{name}", {"entries": entries})
    else:
        answer = gateway.api("PUT", f"address-sets/{name}/entries", "\n".join(entries).encode(),
                             {"Content-Type": "text/plain"})
    assert answer.status == (409 if ties else 200), f"{name} {entries}: {answer}"
    if not ties:
        reference.sets[name] = entries
    return "set refused" if ties else "set"


def change(gateway, reference, source):
    """One random change; what the API says must be what the reference says. Returns what happened."""
    name = f"l{source.randrange(NAMES)}"
    if source.random() < 0.2:
        return change_limit(gateway, source) if source.random() < 0.5 else change_set(gateway, reference, source)
    if source.random() < 0.25 and reference.listeners:
        name = source.choice(sorted(reference.listeners))
        assert gateway.api("DELETE", f"listeners/{name}").status == 204
        del reference.listeners[name]
        return "deleted"
    body = random_listener(source, name)
    if source.random() < 0.15 and reference.listeners:  # the same match under another name
        body = reference.listeners[source.choice(sorted(reference.listeners))] | {"name": name}
    ties = reference.ties(body)
    answer = gateway.api("PUT", f"listeners/{name}", body)
    if impossible(body, reference.sets) and not any("@" in item for item in body["sources"] + body["destinations"]):
        assert answer.status == 422 and "famil" in answer.text, f"{body}: {answer}"
        return "impossible"
    if answer.status == 409:
        named = set(WORDS.findall(" ".join(e["detail"] for e in answer.json["errors"])))
        assert name in named and named & ties, f"{body}\nties with {ties}: {answer}"
        return "tie"
    assert answer.status in (200, 201), f"{body}: {answer}"
    assert not ties, f"{body} was taken beside {[reference.listeners[t] for t in ties]}"
    reference.listeners[name] = body
    return "written"


def comparable(table):
    """Objects of a table without the relay's ports, the numbers of listeners, and sets of bans, which stay once made."""
    plain = (re.sub(r'"port": \d+', '"port": 0', re.sub(r"\blistener\.\d+", "listener.N", o)) for o in table
             if not re.search(r'\bban[46]_', o))
    return sorted(json.dumps(kernel.sort_elements(json.loads(o)), sort_keys=True) for o in plain)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_differences_equal_a_fresh_document(lab, make_gateway, figure, seed):
    """After each twenty changes the table equals that of a daemon that got the document in one PUT."""
    source, outcomes = random.Random(f"property {seed}"), []
    build = "release" if (ROOT / "build/release/bin/gatewayd").exists() else None
    gateway = make_gateway(build=build)
    for name, entries in SETS.items():
        gateway.must("PUT", f"address-sets/{name}", {"name": name, "entries": entries})
    for name in LIMITS:
        gateway.must("PUT", f"rate-limits/{name}", random_limit(source))
    reference = Reference()
    for _ in range(ROUNDS):
        outcomes += [change(gateway, reference, source) for _ in range(CHANGES)]
        expect_kernel_as_desired(lab, gateway)
        document, reached = gateway.must("GET", "config"), comparable(kernel.our_table(lab.gateway))
        gateway.must("PUT", "config", document | {"listeners": []})
        gateway.must("PUT", "config", document)
        again = comparable(kernel.our_table(lab.gateway))
        assert again == reached, difference(again, reached)
    fresh_state(lab, gateway, make_gateway, build)
    expect_sound(gateway)
    figure("outcomes", {kind: outcomes.count(kind) for kind in sorted(set(outcomes))})
    assert outcomes.count("tie") > ROUNDS and outcomes.count("written") > 4 * ROUNDS
    assert outcomes.count("limit") > ROUNDS / 2 and outcomes.count("set") + outcomes.count("set refused") > ROUNDS / 2


def fresh_state(lab, gateway, make_gateway, build):
    """The same document given to a daemon without any past, on an empty kernel."""
    document, reached = gateway.must("GET", "config"), comparable(kernel.our_table(lab.gateway))
    gateway.close()
    other = make_gateway(build=build)
    other.must("PUT", "config", document)
    fresh = comparable(kernel.our_table(lab.gateway))
    assert fresh == reached, difference(fresh, reached)
    assert json.dumps(other.must("GET", "config")) == json.dumps(document)
    other.close()
    gateway.start()
