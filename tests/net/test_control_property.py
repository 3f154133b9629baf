"""Random sequences of changes through the API: the kernel's state reached by differences is that of a fresh daemon that
gets the same document at once; and ties are refused with both names, as a plain reference in here says."""

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
WORDS = re.compile(r'"([a-z0-9-]+)"')


def some(source, items, chance=0.5, most=2):
    """A few of them, or none."""
    return source.sample(items, source.randrange(1, most + 1)) if source.random() < chance else []


def random_listener(source, name, sets):
    """One that overlaps with others in every way; `sets`: also through address sets."""
    addresses = V4 + V6 + (["@small", "@wide"] if sets else [])
    protocol = source.choice(["tcp", "tcp", "udp"])
    actions = ["reject", "drop", "bypass", "relay"]
    return {"name": name, "protocol": protocol, "interfaces": some(source, INTERFACES, 0.3),
            "sources": some(source, addresses, 0.4), "destinations": some(source, addresses, 0.7),
            "ports": some(source, PORTS, 0.9), "action": source.choice(actions),
            "on_worker_down": source.choice(["drop", "direct"]), "enabled": source.random() > 0.1,
            "priority": source.choice([100, 100, 10])}


def prefixes(items):
    """The exact prefixes that a list stands for, by family; None for any."""
    out = set()
    for item in items:
        for text in SETS[item[1:]] if item.startswith("@") else [item]:
            if "-" in text:
                first, last = map(ipaddress.ip_address, text.split("-"))
                out |= set(ipaddress.summarize_address_range(first, last))
            else:
                out.add(ipaddress.ip_network(text))
    return out


def keys(listener):
    """Everything that can tie: one key for each combination, of equal precedence and equal match."""
    if not listener["enabled"]:
        return set()
    found = set()
    destinations, sources = prefixes(listener["destinations"]), prefixes(listener["sources"])
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


def impossible(listener):
    """Whether no packet can match: sources and destinations of different families."""
    destinations, sources = prefixes(listener["destinations"]), prefixes(listener["sources"])
    return bool(destinations and sources) and not {p.version for p in destinations} & {p.version for p in sources}


class Reference:
    """The plain reference: which listeners tie with one."""

    def __init__(self, sets):
        self.listeners, self.sets = {}, sets

    def ties(self, listener):
        """Names of the others with a key in common."""
        own = keys(listener)
        return {name for name, other in self.listeners.items() if name != listener["name"] and own & keys(other)}


def change(gateway, reference, source):
    """One random change; what the API says must be what the reference says. Returns what happened."""
    name = f"l{source.randrange(NAMES)}"
    if source.random() < 0.25 and reference.listeners:
        name = source.choice(sorted(reference.listeners))
        assert gateway.api("DELETE", f"listeners/{name}").status == 204
        del reference.listeners[name]
        return "deleted"
    body = random_listener(source, name, reference.sets)
    if source.random() < 0.15 and reference.listeners:  # the same match under another name
        body = reference.listeners[source.choice(sorted(reference.listeners))] | {"name": name}
    ties = reference.ties(body)
    answer = gateway.api("PUT", f"listeners/{name}", body)
    if impossible(body) and not any("@" in item for item in body["sources"] + body["destinations"]):
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
    """Objects of a table without the relay's ports and order of rules' handles."""
    return sorted(re.sub(r'"port": \d+', '"port": 0', o) for o in table)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_differences_equal_a_fresh_document(lab, make_gateway, figure, seed):
    """After each twenty changes the table equals that of a daemon that got the document in one PUT."""
    source, outcomes = random.Random(f"property {seed}"), []
    build = "release" if (ROOT / "build/release/bin/gatewayd").exists() else None
    gateway = make_gateway(build=build)
    for name, entries in SETS.items():
        gateway.must("PUT", f"address-sets/{name}", {"name": name, "entries": entries})
    probe = gateway.api("PUT", "listeners/probe?dry_run=true", {"name": "probe", "sources": ["@small"], "ports": ["1"]})
    figure("address sets in listeners", "yes" if probe.status == 200 else f"not yet: {probe.json['detail']}")
    reference = Reference(probe.status == 200)
    for _ in range(ROUNDS):
        outcomes += [change(gateway, reference, source) for _ in range(CHANGES)]
        expect_kernel_as_desired(lab, gateway)
        document, reached = gateway.must("GET", "config"), kernel.our_table(lab.gateway)
        gateway.must("PUT", "config", document | {"listeners": []})
        gateway.must("PUT", "config", document)
        again = kernel.our_table(lab.gateway)
        assert again == reached, difference(again, reached)
    fresh_state(lab, gateway, make_gateway, build)
    expect_sound(gateway)
    figure("outcomes", {kind: outcomes.count(kind) for kind in sorted(set(outcomes))})
    assert outcomes.count("tie") > ROUNDS and outcomes.count("written") > 4 * ROUNDS


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
