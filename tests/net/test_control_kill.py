"""kill -9 of the daemon at random moments in random sequences of writes of every kind, 500 of them in a long run.

The test keeps a model of what was acknowledged. After each restart the configuration must be the model, or the model
with the one write that was under way; the kernel must hold what the database says; and every revision ever
acknowledged must still lead back to the state it stood for."""

import copy
import http.client
import json
import os
import random
import threading
import time

import pytest

from lab.gateway import ROOT
from lab.process import amount
from net.control import database, expect_kernel_as_desired, expect_sound

SEQUENCES = int(os.environ.get("KILL_SEQUENCES", amount(100, 500)))
NAMES = 12
UPSTREAMS = ("one", "two", "three")


class Model:
    """What was acknowledged: listeners and upstreams by name, and the state of each revision."""

    def __init__(self, state, revision):
        self.state = state
        self.revision = revision
        self.history = {revision: state}

    def became(self, state, revision):
        """A write was acknowledged."""
        if revision != self.revision:
            assert revision > self.revision
            self.history[revision] = state
        self.state, self.revision = state, revision


def listener(source, state):
    """A listener that ties with no other: its number is its port."""
    number = source.randrange(NAMES)
    ports = [[str(20000 + number)], [f"{30000 + 10 * number}-{30009 + 10 * number}"],
             [str(20000 + number), str(21000 + number)]]
    upstreams = sorted(state["upstreams"])
    return {"name": f"l{number}", "ports": source.choice(ports),
            "destinations": source.choice([[], ["10.71.2.0/24"], ["10.71.2.0/24", "fd71:2::/64"]]),
            "upstream": source.choice([None, *upstreams]),
            "enabled": source.random() > 0.1}


def upstream(source):
    """An upstream with a few targets."""
    last = source.sample(range(2, 6), source.randrange(1, 4))
    return {"name": source.choice(UPSTREAMS), "targets": [f"10.71.2.{n}" for n in last]}


def in_use(state, name):
    """Whether a listener refers to the upstream."""
    return any(l["upstream"] == name for l in state["listeners"].values())


def body_of(kind, item):
    """The JSON document of an item of the model."""
    if kind == "upstreams":
        return {"name": item["name"], "targets": [{"address": a, "port": 0} for a in item["targets"]]}
    return item


def single(source, state):
    """One PUT or DELETE: (kind, name, item or None, the state after it)."""
    after = copy.deepcopy(state)
    choice = source.random()
    if choice < 0.25:
        item = upstream(source)
        after["upstreams"][item["name"]] = item
        return "upstreams", item["name"], item, after
    if choice < 0.35:
        free = [n for n in state["upstreams"] if not in_use(state, n)]
        if free:
            name = source.choice(sorted(free))
            del after["upstreams"][name]
            return "upstreams", name, None, after
    if choice < 0.55 and state["listeners"]:
        name = source.choice(sorted(state["listeners"]))
        del after["listeners"][name]
        return "listeners", name, None, after
    item = listener(source, state)
    after["listeners"][item["name"]] = item
    return "listeners", item["name"], item, after


def write(source, model):
    """A random write: (method, path, body, the state after it)."""
    choice, state = source.random(), model.state
    if choice < 0.55:
        kind, name, item, after = single(source, state)
        return ("PUT" if item else "DELETE"), f"{kind}/{name}", item and body_of(kind, item), after
    if choice < 0.75:
        steps, used = [], set()
        for _ in range(source.randrange(2, 6)):
            kind, name, item, after = single(source, state)
            if (kind, name) in used:
                continue
            used.add((kind, name))
            steps.append({"method": "PUT" if item else "DELETE", "path": f"/{kind}/{name}"})
            if item:
                steps[-1]["body"] = body_of(kind, item)
            state = after
        return "POST", "transactions", steps, state
    kept = sorted(n for n in model.history if n > 0)  # the empty beginning is no revision
    if choice < 0.9 or not kept:
        for _ in range(6):
            state = single(source, state)[3]
        return "PUT", "config", {kind: [body_of(kind, i) for i in state[kind].values()] for kind in state}, state
    target = source.choice(kept)
    return "POST", f"revisions/{target}/rollback", None, model.history[target]


class Writer(threading.Thread):
    """Runs one sequence until it is over or the daemon gone."""

    def __init__(self, gateway, source, model):
        super().__init__(daemon=True)
        self.gateway, self.source, self.model = gateway, source, model
        self.under_way, self.acknowledged, self.faults = None, 0, []

    def run(self):
        try:
            for _ in range(self.source.randrange(2, 12)):
                method, path, body, after = write(self.source, self.model)
                self.under_way = after
                answer = self.gateway.api(method, path, body, timeout=20)
                if answer.status >= 300:
                    self.faults.append(f"{method} {path} {body}: {answer}")
                    self.under_way = None
                    continue
                revision = int(answer.headers["Gateway-Revision"])
                self.model.became(after, revision)
                self.acknowledged += 1
                self.under_way = None
        except (OSError, http.client.HTTPException, ValueError):
            pass  # the daemon is gone; what was under way is uncertain
        except AssertionError as error:
            self.faults.append(repr(error))


def state_of(document):
    """The model's view of a configuration document."""
    return {
        "listeners": {l["name"]: {k: l[k] for k in ("name", "ports", "destinations", "upstream", "enabled")}
                      for l in document["listeners"]},
        "upstreams": {u["name"]: {"name": u["name"], "targets": [t["address"] for t in u["targets"]]}
                      for u in document["upstreams"]},
    }


def check_after_restart(lab, gateway, writer, model):
    """Nothing acknowledged is lost, nothing half is there."""
    found, revision = state_of(gateway.must("GET", "config")), gateway.status()["revision"]
    if writer.under_way is not None and found == writer.under_way and revision in (model.revision, model.revision + 1):
        model.became(found, revision)
    assert revision == model.revision, f"revision {revision} instead of {model.revision}"
    assert found == model.state, f"found {json.dumps(found)}\nexpected {json.dumps(model.state)}\nor {writer.under_way}"
    expect_kernel_as_desired(lab, gateway)


@pytest.mark.timeout(900)
def test_sequences(lab, make_gateway, figure):
    """The whole of it."""
    source = random.Random("kill -9")
    gateway = make_gateway(build="release" if (ROOT / "build/release/bin/gatewayd").exists() else None)
    model = Model(state_of(gateway.must("GET", "config")), gateway.status()["revision"])
    started, acknowledged, uncertain = time.monotonic(), 0, 0
    for number in range(SEQUENCES):
        writer = Writer(gateway, source, model)
        writer.start()
        time.sleep(source.random() * 0.1)
        gateway.kill()
        writer.join(30)
        assert not writer.is_alive()
        assert not writer.faults, writer.faults
        acknowledged += writer.acknowledged
        uncertain += writer.under_way is not None
        gateway.start()
        check_after_restart(lab, gateway, writer, model)
        if number % 50 == 49:
            expect_sound(gateway)
    figure("sequences, acknowledged writes, under way at the kill, seconds",
           f"{SEQUENCES}, {acknowledged}, {uncertain}, {time.monotonic() - started:.0f}")
    assert acknowledged > SEQUENCES / 4 and uncertain > SEQUENCES / 20, "the kills missed the writes"
    check_history(gateway, source, model)


def check_history(gateway, source, model):
    """Each revision is recorded once, with its hash; any of them can be compared with and rolled back to."""
    expect_sound(gateway)
    with database(gateway) as opened:
        kept = [n for (n,) in opened.execute("SELECT n FROM revision ORDER BY n")]
        assert all(h for (h,) in opened.execute("SELECT config_hash FROM revision WHERE n > 1"))
    assert kept == list(range(kept[0], model.revision + 1))
    assert set(model.history) - {0} <= set(kept)
    for target in source.sample(sorted(set(model.history) & set(kept)), min(amount(10, 40), len(set(model.history) & set(kept)))):
        diff = gateway.must("GET", f"revisions/{target}/diff?to={model.revision}")["diff"]
        assert {step["path"] for step in diff} == changed(model.history[target], model.state), diff
        answer = gateway.api("POST", f"revisions/{target}/rollback")
        assert answer.status == 200, answer
        assert state_of(gateway.must("GET", "config")) == model.history[target]
        model.became(model.history[target], int(answer.headers["Gateway-Revision"]))


def changed(before, after):
    """Paths of what differs between two states."""
    return {f"/{kind}/{name}" for kind in before for name in set(before[kind]) | set(after[kind])
            if before[kind].get(name) != after[kind].get(name)}
