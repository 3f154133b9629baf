"""What is in a namespace's kernel, in forms that can be compared."""

import json

VOLATILE = {"handle", "packets", "bytes", "expires", "last"}
LEDGER = "ledger"


def stable(value):
    """A JSON value without what changes by itself: handles and counts."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list):
        return [stable(v) for v in value]
    return value


def nft_json(host, *what):
    """The list of objects of `nft -j list ...`; empty if there is no such thing."""
    done = host.run("nft", "-j", "list", *what, check=False)
    return [] if done.returncode else [o for o in json.loads(done.stdout)["nftables"] if "metainfo" not in o]


def ruleset(host):
    """The whole ruleset of a host, comparable."""
    return sorted(json.dumps(sort_elements(stable(o)), sort_keys=True) for o in nft_json(host, "ruleset"))


def sort_elements(item):
    """Elements of sets come in any order; those of the ledger come with packets."""
    if item.get("set", {}).get("name") == LEDGER:
        item["set"].pop("elem", None)
    for kind in ("set", "map"):
        if kind in item and "elem" in item[kind]:
            item[kind]["elem"].sort(key=lambda e: json.dumps(e, sort_keys=True))
    return item


def our_table(host):
    """Our table's objects, comparable, without the generation marker's value."""
    return sorted(json.dumps(sort_elements(stable(o)), sort_keys=True) for o in nft_json(host, "table", "inet", "gatewayd")
                  if "generation" not in json.dumps(o))


def our_elements(host):
    """All elements of our maps as comparable texts (map name and element)."""
    found = []
    for item in nft_json(host, "table", "inet", "gatewayd"):
        for kind in ("set", "map"):
            if kind in item and item[kind]["name"] != LEDGER:
                name = item[kind]["name"]
                found += [f"{name} {json.dumps(stable(e), sort_keys=True)}" for e in item[kind].get("elem", [])]
    return sorted(found)


def table_handle(host):
    """The kernel's handle of our table: another number means another table. None if there is none."""
    for item in nft_json(host, "tables"):
        if item.get("table", {}).get("name") == "gatewayd":
            return item["table"]["handle"]
    return None


def routing(host):
    """Rules and routes of all tables, both families, as text."""
    parts = []
    for family in ("-4", "-6"):
        parts.append(host.run("ip", family, "rule").stdout)
        parts.append(host.run("ip", family, "route", "show", "table", "all").stdout)
    return "\n".join(parts)
