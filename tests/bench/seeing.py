"""What looking on costs: relay throughput with many flows, alone, beside a scrape each second and the requests of an open
UI, and beside a hundred readers of events; and how long the first page of flows takes. Part of `./dev bench --control`."""

import statistics
import subprocess
import threading
import time

from contenders import process_seconds
from lab.gateway import UnixConnection
from lab.process import wait_for

# As many as two descriptors each let one process have here, with room for what it needs besides.
FLOWS = 8000
READERS = 100
PAGES = 300
# What the first page of the UI asks for every two seconds, and a Prometheus every second.
OVERVIEW = ("status", "stats", "stats/history", "stats/listeners", "flows")


class Held:
    """Connections that have spoken once and stay."""

    def __init__(self, contender, program, port):
        self.process = subprocess.Popen(
            [str(part) for part in contender.lab.client.command(program, "idle", contender.lab.server.v4, port, "/tiny", FLOWS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"bench: {FLOWS} connections could not be held")
        return self

    def __exit__(self, *_):
        self.process.communicate("\n", timeout=60)


class Watcher:
    """Asks for paths again and again, each after its pause, until the block ends."""

    def __init__(self, gateway, paths):
        self.gateway, self.ending = gateway, threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=pair, daemon=True) for pair in paths]

    def _ask(self, path, pause):
        while not self.ending.wait(pause):
            answer = self.gateway.api("GET", path)
            assert answer.status == 200, answer

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()


class EventReaders:
    """Many that read the events, and a change a second for them to hear of."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.connections, self.heard, self.ending = [], 0, threading.Event()
        self.writer = threading.Thread(target=self._write, daemon=True)

    def _write(self):
        while not self.ending.wait(1):
            self.gateway.must("PUT", "listeners/told", {"name": "told", "ports": ["9"], "comment": str(time.monotonic())})

    def _reader(self):
        """One more; None while those of the round before still have the places, for nobody has written to them since."""
        made = UnixConnection(self.gateway.socket)
        made.request("GET", "/api/v1/events")
        if b" 200 " in made.sock.recv(16):
            made.sock.settimeout(0)
            return made
        made.close()
        return None

    def __enter__(self):
        self.connections = [wait_for(self._reader, 60, "a place for a reader", interval=0.5) for _ in range(READERS)]
        self.writer.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.writer.join()
        for made in self.connections:
            try:
                self.heard += b"revision" in made.sock.recv(1 << 20)
            except BlockingIOError:
                pass
            made.close()


def first_pages(gateway):
    """Milliseconds of the first page of flows, one after the other."""
    times = []
    for _ in range(PAGES):
        started = time.monotonic()
        assert gateway.api("GET", "flows").status == 200
        times.append((time.monotonic() - started) * 1000)
    return sorted(times)


def measure(contender, program, port, rounds, seconds):
    """The figures of a contender of control.py."""
    gateway = contender.gateway
    watched = [("/metrics", 1.0)] + [(path, 2.0) for path in OVERVIEW]
    beside = {"alone": None, "watched": lambda: Watcher(gateway, watched), "readers": lambda: EventReaders(gateway)}
    moved, used, heard = {name: [] for name in beside}, {name: [] for name in beside}, []
    with Held(contender, program, port):
        pages = first_pages(gateway)
        for number in range(rounds):
            names = list(beside)
            for name in names[number % 3:] + names[:number % 3]:
                if not beside[name]:
                    moved[name].append(contender.load("bulk", seconds)["gbit_per_second"])
                    continue
                looking = beside[name]()
                with looking:
                    before = process_seconds(gateway.process.pid)
                    moved[name].append(contender.load("bulk", seconds)["gbit_per_second"])
                    used[name].append((process_seconds(gateway.process.pid) - before) / seconds)
                if name == "readers":
                    heard.append(looking.heard)
    middle = {name: statistics.median(values) for name, values in moved.items()}
    return {"flows": FLOWS, "flows_page_p50_ms": pages[PAGES // 2], "flows_page_p99_ms": pages[PAGES * 99 // 100],
            "relay_gbit_s": middle, "all": moved, "readers_that_heard": min(heard),
            "loss_watched": 1 - middle["watched"] / middle["alone"], "loss_readers": 1 - middle["readers"] / middle["alone"],
            "daemon_processors": {name: statistics.median(values) for name, values in used.items() if values}}


def rows(found):
    """As lines of control.py's table."""
    rates = " / ".join(f"{value:.2f}" for value in found["relay_gbit_s"].values())
    return [(f"first page of {found['flows']} flows, p50 / p99",
             f"{found['flows_page_p50_ms']:.1f} / {found['flows_page_p99_ms']:.1f} ms", "p99 < 50 ms"),
            ("relay alone / scraped, UI open / 100 readers of events", f"{rates} Gbit/s",
             f"loss {found['loss_watched'] * 100:.1f} % (<= 1 %), {found['loss_readers'] * 100:.1f} % (<= 2 %)"),
            ("   processors used by the daemon meanwhile",
             " / ".join(f"{value:.3f}" for value in found["daemon_processors"].values()), "")]
