"""From the outcomes of both ends of the soak's connections to what went wrong. Knows no network.

    corrupt    bytes arrived that were not sent, or not in this order
    broken     a connection that nobody broke did not get to its end
    false_end  a broken connection looked as if its stream had ended in order
    stuck      one end waits although the other has gone
    refused    a connection was not made
    lost       of UDP packets more than can be called bad luck
    missing    a side has nothing to say about a connection that the other side finished
"""

from collections import Counter

MISMATCHES = ("corrupt", "broken", "false_end", "stuck", "refused", "lost", "missing")
SAMPLES_MAX = 20
# One packet is on its way at a time, so none should be lost; a full queue on a busy machine may still happen.
UDP_LOST_MAX = 0.001


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


def judge(clients, servers):
    """(connections by kind, mismatches by name, samples of them)."""
    kinds, mismatches, samples = Counter(), Counter({name: 0 for name in MISMATCHES}), []

    def note(side, outcome, faults):
        for fault in faults:
            mismatches[fault] += 1
            if len(samples) < SAMPLES_MAX:
                samples.append({"side": side, "fault": fault, **outcome})

    for outcome in clients:
        kinds["slow" if outcome.get("slow") else outcome["kind"]] += 1
        note("client", outcome, faults_of("client", outcome))
    for outcome in servers:
        if outcome["kind"] != "?" or outcome["corrupt"]:
            note("server", outcome, faults_of("server", outcome))
        elif outcome["end"] == "TimeoutError":
            note("server", outcome, ["stuck"])  # the head never came, and no end either
    seen = {outcome["seed"] for outcome in servers}
    for outcome in clients:
        if outcome["kind"] == "plain" and outcome["end"] == "eof" and outcome["seed"] not in seen:
            note("server", outcome, ["missing"])
    flows = [outcome for outcome in clients if outcome["kind"] == "udp"]
    lost = sum(outcome["expected"] - outcome["received"] for outcome in flows)
    if lost > UDP_LOST_MAX * sum(outcome["expected"] for outcome in flows):
        mismatches["lost"] = lost
        samples += [outcome for outcome in flows if outcome["received"] < outcome["expected"]][:SAMPLES_MAX]
    return dict(kinds), dict(mismatches), samples
