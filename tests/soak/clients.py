"""The clients and the server of the soak, each a process of its own inside a host of the lab.

    clients.py server OUTCOMES PORT...                serves checked connections on both families
    clients.py ROLE OUTCOMES SEED THREADS TARGET...   runs connections of one role until SIGTERM, then ends those it has
roles: plain, slow, reset, killed (see stream.py), idle, udp; TARGET is ADDRESS/PORT. Outcomes are lines of JSON.
"""

import json
import os
import signal
import socket
import sys
import threading
import time

from soak import stream

LARGEST = 24 << 20
IDLE_CONNECTIONS = 300
IDLE_ROUND_S = 20
IDLE_BYTES = 200
UDP_EXCHANGES = 50
UDP_WAIT_S = 2
UDP_LARGEST = 4000  # larger than a frame, so that some are fragmented


class Outcomes:
    """A file of outcomes that threads write to; a line is whole or not there."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, outcome):
        """Appends one."""
        os.write(self.descriptor, json.dumps(outcome).encode() + b"\n")


def serve(outcomes, ports):
    """Accepts for ever, one thread for each connection."""
    def accept(listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=stream.serve_one, args=(connection, outcomes.add), daemon=True).start()

    threads = [threading.Thread(target=accept, args=(socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096,
                                                                         dualstack_ipv6=True),)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def connect(target):
    """A connection to ADDRESS/PORT, and its age's beginning: {began_s, opened_s}, before and after it was made."""
    address, port = target.split("/")
    began = time.monotonic()
    connection = socket.create_connection((address, int(port)), timeout=stream.STUCK_S)
    return connection, {"began_s": began, "opened_s": time.monotonic()}


def make_head(role, source, seed):
    """What the next connection of a role is to do."""
    head = {"kind": role, "seed": seed, "up": stream.random_size(source, LARGEST), "down": stream.random_size(source, LARGEST),
            "slow": ""}
    if role == "slow":
        head |= {"kind": "plain", "slow": source.choice(["client", "server"]), "up": LARGEST // 2, "down": LARGEST // 2}
    if role == "reset":
        head["kind"] = source.choice(["reset", "cut"])
        side = "up" if head["kind"] == "reset" else "down"
        head[side] = max(2, head[side])
        head["cut"] = source.randrange(1, head[side])
    return head


def run_role(role, outcomes, seed, targets, stop):
    """Connections of one role, one after the other, until told to stop."""
    source, number = stream.new_source(seed), 0
    while not stop.is_set():
        number += 1
        head = make_head(role, source, f"{seed} {number}")
        target = source.choice(targets)
        try:
            connection, opened = connect(target)
        except OSError as error:
            outcomes.add(head | {"target": target, "end": f"connect: {error}"})
            stop.wait(0.05)
            continue
        head |= {"target": target, **opened}
        try:
            outcomes.add(head | stream.client(connection, head))
        except OSError as error:
            outcomes.add(head | {"end": f"first line: {error}", "broke_s": time.monotonic()})


class Idle:
    """One connection that says something now and then; opened anew when it fails."""

    def __init__(self, seed, outcomes):
        self.seed, self.outcomes = seed, outcomes
        self.connection, self.outcome, self.times = None, None, 0

    def open(self, target):
        """Whether it is open now."""
        self.times += 1
        self.outcome = {"kind": "echo", "seed": f"{self.seed} {self.times}", "target": target}
        try:
            self.connection, opened = connect(target)
            self.outcome |= opened
            self.connection.sendall(json.dumps({"kind": "echo", "seed": self.outcome["seed"]}).encode() + b"\n")
        except OSError as error:
            self.end(f"connect: {error}")
        return self.connection is not None

    def say(self, data):
        """Sends and wants the same back."""
        got, end = b"", "eof"
        try:
            self.connection.sendall(data)
            while len(got) < len(data):
                piece = self.connection.recv(len(data) - len(got))
                if not piece:
                    break
                got += piece
        except OSError as error:
            end = type(error).__name__
        if got != data:
            self.end(f"lost: {end}", corrupt=got != data[:len(got)], broke_s=time.monotonic())

    def end(self, end, **more):
        """Closes it, if it is open, and tells what became of it."""
        if self.connection:
            self.connection.close()
        self.connection = None
        self.outcomes.add(self.outcome | {"end": end, **more})


def run_idle(outcomes, seed, targets, stop):
    """Many connections that say something now and then."""
    source = stream.new_source(seed)
    idles = [Idle(f"{seed} {number}", outcomes) for number in range(IDLE_CONNECTIONS)]
    while not stop.is_set():
        started = time.monotonic()
        for idle in idles:
            if idle.connection or idle.open(source.choice(targets)):
                idle.say(source.randbytes(IDLE_BYTES))
            if stop.wait(IDLE_ROUND_S / IDLE_CONNECTIONS / 2):
                break
        stop.wait(max(0, IDLE_ROUND_S - (time.monotonic() - started)))
    for idle in idles:
        if idle.connection:
            idle.end("eof")


def run_udp(outcomes, seed, targets, stop):
    """UDP flows of some packets there and back each; what comes back must be what was sent."""
    source, number = stream.new_source(seed), 0
    while not stop.is_set():
        number += 1
        address, port = source.choice(targets).split("/")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as talker:
            talker.settimeout(UDP_WAIT_S)
            talker.connect((address, int(port)))
            outcomes.add({"kind": "udp", "seed": f"{seed} {number}", "target": f"{address}/{port}",
                          **udp_exchanges(talker, source)})


def udp_exchanges(talker, source):
    """The outcome of one flow. A packet may be lost, it is UDP; a late answer to one that was given up is none."""
    outcome = {"end": "eof", "corrupt": False, "received": 0, "expected": UDP_EXCHANGES}
    given_up = set()
    for _ in range(UDP_EXCHANGES):
        data = source.randbytes(source.randrange(8, UDP_LARGEST))
        try:
            talker.send(data)
            while (answer := talker.recv(65536)) in given_up:
                pass
            outcome["corrupt"] |= answer != data
            outcome["received"] += 1
        except OSError as error:
            given_up.add(data)
            outcome["error"] = str(error)
    return outcome


def main(role, path, *rest):
    """See the head of the file."""
    outcomes, stop = Outcomes(path), threading.Event()
    if role == "server":
        serve(outcomes, [int(port) for port in rest])
        return
    seed, count, *targets = rest
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # SIGINT of a terminal goes to the whole group; the parent decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    special = {"idle": run_idle, "udp": run_udp}

    def work(number):
        if role in special:
            special[role](outcomes, f"{seed} {number}", targets, stop)
        else:
            run_role(role, outcomes, f"{seed} {number}", targets, stop)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
