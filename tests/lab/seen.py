"""Makes a prefilter look as if it had been there for long: a new one asks the kernel about each request in a flood."""

import json

from lab.netns import run

VARIABLE = "seen_since"


def bpftool(*arguments):
    """What it says, from JSON."""
    return json.loads(run("bpftool", "-j", *arguments).stdout)


def offset_of(btf):
    """Where the variable lies among the program's."""
    types = {one["id"]: one for one in bpftool("btf", "dump", "id", str(btf))["types"]}
    section = next(one for one in types.values() if one["kind"] == "DATASEC" and one["name"] == ".bss")
    return next(one["offset"] for one in section["vars"] if types[one["type_id"]]["name"] == VARIABLE)


def grow_old(program):
    """The program with this id has judged its first request in the first minutes after the boot."""
    maps = [bpftool("map", "show", "id", str(number)) for number in bpftool("prog", "show", "id", str(program))["map_ids"]]
    variables = next(one for one in maps if one["name"].endswith(".bss"))
    (element,) = bpftool("map", "dump", "id", str(variables["id"]))
    value, at = [int(byte, 16) for byte in element["value"]], offset_of(variables["btf_id"])
    value[at:at + 8] = (1).to_bytes(8, "little")
    run("bpftool", "map", "update", "id", str(variables["id"]), "key", "0", "0", "0", "0", "value", *map(str, value))
