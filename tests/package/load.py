"""What runs through the gateway while its package is upgraded: long transfers that are checked, and new connections."""

import json
import threading

from lab import servers, traffic
from lab.process import wait_for

TRANSFERS = 200
PORT = 9300
ADDRESSES = ("10.71.2.2", "fd71:2::2")
DOWN = 256 << 10
# Until they are told to end, transfers send so much at a time, with such a pause, that all of them live for minutes;
# each 25th sends more than the others.
SLOW = {"up": 1 << 20, "piece": 1024, "pause": 0.5}
FAST = {"up": 32 << 20, "piece": 8192, "pause": 0.125}


class Paced:
    """A connection that sends slowly until an event, and then as fast as it can."""

    def __init__(self, connection, event, piece, pause):
        self.connection, self.event, self.piece, self.pause = connection, event, piece, pause

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def sendall(self, data):
        """In pieces while the event is not there."""
        view = memoryview(data)
        while len(view) and not self.event.wait(self.pause):
            self.connection.sendall(view[:self.piece])
            view = view[self.piece:]
        self.connection.sendall(view)


class Load:
    """Checked transfers through the gateway, over both families, that last until they are told to end."""

    def __init__(self, lab):
        self.lab, self.over, self.outcomes = lab, threading.Event(), [None] * TRANSFERS
        self.server, self.results = servers.traffic_server(lab, lab.server, PORT)
        self.threads = [threading.Thread(target=self._transfer, args=(i,), daemon=True) for i in range(TRANSFERS)]
        for thread in self.threads:
            thread.start()

    def _transfer(self, number):
        kind = SLOW if number % 25 else FAST
        try:
            connection = self.lab.client.connect(ADDRESSES[number % 2], PORT, timeout=120)
            self.outcomes[number] = traffic.client(Paced(connection, self.over, kind["piece"], kind["pause"]),
                                                   f"seed {number}", kind["up"], DOWN)
        except OSError as error:
            self.outcomes[number] = {"ok": False, "error": str(error)}

    def under_way(self):
        """How many have not ended."""
        return sum(outcome is None for outcome in self.outcomes)

    def end(self):
        """Lets them end; what went wrong, of either side."""
        self.over.set()
        for thread in self.threads:
            thread.join(300)

        def all_told():
            lines = self.results.read_text().splitlines() if self.results.exists() else []
            return lines if len(lines) >= TRANSFERS else None
        told = [json.loads(line) for line in wait_for(all_told, 120, "the server's results")]
        self.server.stop()
        return [outcome for outcome in [*self.outcomes, *told] if not outcome or not outcome["ok"]]


class Knocks:
    """New connections all the time, one after another, over both families: each says who the server sees."""

    def __init__(self, lab, port):
        self.lab, self.port, self.over = lab, port, threading.Event()
        self.made, self.faults = 0, []
        self.peers = [servers.Peer(lab.server, address, port, self._name) for address in ADDRESSES]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @staticmethod
    def _name(connection, peer):
        with connection:
            connection.sendall(peer[0].encode())

    def _run(self):
        while not self.over.wait(0.02):
            address = ADDRESSES[self.made % 2]
            try:
                with self.lab.client.connect(address, self.port, timeout=30) as connection:
                    seen = connection.recv(100).decode()
                if seen != (self.lab.client.v4, self.lab.client.v6)[self.made % 2]:
                    self.faults.append(f"{address} sees {seen!r}")
            except OSError as error:
                self.faults.append(f"{address}: {error}")
            self.made += 1

    def end(self):
        """What went wrong."""
        self.over.set()
        self.thread.join(60)
        for peer in self.peers:
            peer.close()
        return self.faults
