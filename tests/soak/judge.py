"""From the outcomes of both ends of the soak's connections to what went wrong. Knows no network.

    corrupt    bytes arrived that were not sent, or not in this order
    broken     a connection that nobody broke did not get to its end
    false_end  a broken connection looked as if its stream had ended in order
    stuck      one end waits although the other has gone
    refused    a connection was not made
    lost       of UDP packets more than can be called bad luck, or what was on its way when the relay was killed
    missing    a side has nothing to say about a connection that the other side finished

A relay that is killed takes with it the flows that were younger than a moment. Their faults are no mismatches; they are
counted by age. A flow's age is that at the last kill before either of its ends noticed.
"""

from collections import Counter

MISMATCHES = ("corrupt", "broken", "false_end", "stuck", "refused", "lost", "missing")
SAMPLES_MAX = 20
# One packet is on its way at a time, so none should be lost; a full queue on a busy machine may still happen.
UDP_LOST_MAX = 0.001


# What the death of the relay may do to a flow that is too young to outlive it; the rest it may do to none.
KILLED_YOUNG = ("broken", "false_end", "missing")


class Kills:
    """When the relay was killed, up to which age a flow may be lost by that (seconds), and how many UDP packets by each."""

    def __init__(self, times, moment_s, slack_s, udp_each):
        self.times, self.moment_s, self.slack_s, self.udp_each = sorted(times), moment_s, slack_s, udp_each
        self.ages = []

    def age(self, outcomes):
        """The age at which one connection was broken by a kill, of both sides' outcomes; None if no kill explains it."""
        began, opened = (next((o[key] for o in outcomes if key in o), None) for key in ("began_s", "opened_s"))
        broke = min((o["broke_s"] for o in outcomes if o.get("broke_s")), default=None)
        if began is None or broke is None:
            return None
        kill = max((t for t in self.times if began <= t <= broke), default=None)
        return None if kill is None else max(0.0, kill - opened)

    def excuses(self, outcomes):
        """Notes the age of a broken connection; whether it was too young to outlive the relay."""
        age = self.age(outcomes)
        if age is not None:
            self.ages.append(age)
        return age is not None and age <= self.moment_s + self.slack_s

    def summary(self):
        """{moment_s, slack_s, younger, between, older, oldest_s}: broken connections by their age at the kill."""
        limit = self.moment_s + self.slack_s
        return {"moment_s": self.moment_s, "slack_s": self.slack_s, "younger": sum(a <= self.moment_s for a in self.ages),
                "between": sum(self.moment_s < a <= limit for a in self.ages), "older": sum(a > limit for a in self.ages),
                "oldest_s": round(max(self.ages, default=0.0), 3)}


def faults_of(side, outcome):
    """The faults that one side's outcome shows by itself."""
    kind, end = outcome["kind"], outcome["end"]
    if outcome.get("corrupt"):
        return ["corrupt"]
    if end == "stuck":
        return ["stuck"]
    if kind == "killed":
        return []  # whoever is killed may leave anything behind but wrong bytes and stuck peers
    if end.startswith("connect"):
        return ["refused"]
    if kind == "udp":
        return []
    if kind in ("reset", "cut"):
        return faults_of_cut(side, outcome)
    if kind == "echo" and side == "server":
        return []  # it answers until the client's end, of whatever kind
    if kind == "echo":
        return [] if end == "eof" else ["broken"]
    whole = end == "eof" and outcome["received"] == outcome["expected"] and not outcome["send_error"]
    return [] if whole else ["broken"]


def faults_of_cut(side, outcome):
    """The side that is cut off must notice; the other one knows what it did."""
    if side == ("client" if outcome["kind"] == "reset" else "server"):
        return []
    if outcome["end"] == "eof" and outcome["received"] < outcome["expected"] and not outcome["send_error"]:
        return ["false_end"]
    return []


def cuts(side, outcome):
    """Whether this side breaks the connection itself."""
    return side == {"reset": "client", "cut": "server"}.get(outcome["kind"])


def found_faults(clients, servers):
    """All (side, outcome, fault) of TCP connections."""
    for outcome in clients:
        for fault in faults_of("client", outcome):
            yield "client", outcome, fault
    for outcome in servers:
        if outcome["kind"] != "?" or outcome["corrupt"]:
            for fault in faults_of("server", outcome):
                yield "server", outcome, fault
        elif outcome["end"] == "TimeoutError":
            yield "server", outcome, "stuck"  # the head never came, and no end either
    seen = {outcome["seed"] for outcome in servers}
    for outcome in clients:
        if outcome["kind"] == "plain" and outcome["end"] == "eof" and outcome["seed"] not in seen:
            yield "server", outcome, "missing"


def judge(clients, servers, kills):
    """(connections by kind, mismatches by name, samples of them); broken connections are noted in kills."""
    kinds, mismatches, samples = Counter(), Counter({name: 0 for name in MISMATCHES}), []
    sides = {}
    for side, outcomes in (("client", clients), ("server", servers)):
        for outcome in outcomes:
            noticed = None if cuts(side, outcome) else outcome.get("broke_s")
            sides.setdefault(outcome["seed"], []).append(outcome | {"broke_s": noticed})
    for outcome in clients:
        kinds["slow" if outcome.get("slow") else outcome["kind"]] += 1
    excused = {}
    for side, outcome, fault in found_faults(clients, servers):
        seed = outcome["seed"]
        if fault in KILLED_YOUNG:
            if seed not in excused:
                excused[seed] = kills.excuses(sides[seed])
            if excused[seed]:
                continue
        mismatches[fault] += 1
        if len(samples) < SAMPLES_MAX:
            samples.append({"side": side, "fault": fault, "age_at_kill_s": kills.age(sides[seed]), **outcome})
    flows = [outcome for outcome in clients if outcome["kind"] == "udp"]
    lost = sum(outcome["expected"] - outcome["received"] for outcome in flows)
    if lost > UDP_LOST_MAX * sum(outcome["expected"] for outcome in flows) + kills.udp_each * len(kills.times):
        mismatches["lost"] = lost
        samples += [outcome for outcome in flows if outcome["received"] < outcome["expected"]][:SAMPLES_MAX]
    return dict(kinds), dict(mismatches), samples
