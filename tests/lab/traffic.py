"""Traffic that is checked: random bytes both ways, their SHA-256 compared, in every order of half-closes.

The client opens with one line of JSON that says what follows; both sides can
then make the same random bytes from the seeds in it and know what has to
arrive. `order` says who half-closes first:
    client  the server holds back the end of its data until it has seen the client's end of stream
    server  the other way round
    both    nobody waits
The server appends one line of JSON per connection to a file of results.

    traffic.py serve PORT RESULTS [proxied]     on IPv4 and IPv6; proxied: each connection begins with a PROXY header,
                                                which the results tell
"""

import hashlib
import json
import random
import socket
import sys
import threading

from lab import proxyproto

CHUNK = 256 * 1024
HELD_BACK = 64 * 1024
_BLOCK = memoryview(hashlib.shake_128(b"gatewayd lab").digest(8 << 20))


def chunks(seed, size):
    """`size` random bytes in pieces, the same for the same seed; pieces of one large block at random offsets."""
    offsets = random.Random(seed)
    while size > 0:
        length = min(size, CHUNK)
        start = offsets.randrange(len(_BLOCK) - length)
        yield _BLOCK[start:start + length]
        size -= length


def digest(seed, size):
    """SHA-256 of what chunks() gives."""
    total = hashlib.sha256()
    for piece in chunks(seed, size):
        total.update(piece)
    return total.hexdigest()


class Side:
    """One end of a checked connection: what it sends, what it has to receive, and how it went."""

    def __init__(self, connection, send_seed, send_size, receive_seed, receive_size, holds_back):
        self.connection = connection
        self.send_seed, self.send_size = send_seed, send_size
        self.receive_seed, self.receive_size = receive_seed, receive_size
        self.holds_back = holds_back
        self.peer_ended = threading.Event()
        self.received = 0
        self.error = None

    def exchange(self):
        """Sends and receives at once; returns a dict with `ok` and, if not, why."""
        sender = None
        if self.send_size > 65536:
            sender = threading.Thread(target=self._guarded_send, daemon=True)
            sender.start()
        elif not self.holds_back:
            self._guarded_send()
        found = self._receive()
        self.peer_ended.set()
        if sender:
            sender.join()
        elif self.holds_back:
            self._guarded_send()
        expected = digest(self.receive_seed, self.receive_size)
        ok = not self.error and found == expected and self.received == self.receive_size
        return {"ok": ok, "error": self.error, "received": self.received, "expected": self.receive_size,
                "sha256": found, "sha256_expected": expected}

    def _guarded_send(self):
        try:
            self._send()
        except OSError as error:
            self.error = self.error or f"send: {error}"
            self.connection.close()

    def _send(self):
        left = self.send_size
        for piece in chunks(self.send_seed, self.send_size):
            if self.holds_back and left <= max(len(piece), HELD_BACK):
                self.peer_ended.wait()
            self.connection.sendall(piece)
            left -= len(piece)
        if self.holds_back:
            self.peer_ended.wait()
        self.connection.shutdown(socket.SHUT_WR)

    def _receive(self):
        total = hashlib.sha256()
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        try:
            while True:
                length = self.connection.recv_into(buffer)
                if not length:
                    break
                total.update(view[:length])
                self.received += length
        except OSError as error:
            self.error = self.error or f"receive: {error}"
        return total.hexdigest()


def client(connection, seed, up, down, order="both"):
    """The client's part over a connected socket; returns the result of its side."""
    head = json.dumps({"seed": seed, "up": up, "down": down, "order": order}).encode() + b"\n"
    with connection:
        connection.sendall(head)
        return Side(connection, f"{seed} up", up, f"{seed} down", down, order == "server").exchange()


def serve_one(connection, results, lock, proxied):
    """The server's part over an accepted socket."""
    with connection:
        connection.settimeout(60)
        told = proxyproto.read(connection) if proxied else None
        head = json.loads(read_line(connection))
        side = Side(connection, f"{head['seed']} down", head["down"], f"{head['seed']} up", head["up"],
                    head["order"] == "client")
        outcome = {"seed": head["seed"], "told": told, **side.exchange()}
    with lock, open(results, "a", encoding="ascii") as file:
        file.write(json.dumps(outcome) + "\n")


def read_line(connection):
    """A line, read byte by byte so that nothing behind it is taken."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("the connection ended in its first line")
        line += byte
    return line


def serve(port, results, proxied):
    """Accepts for ever, one thread each."""
    lock = threading.Lock()
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_one, args=(connection, results, lock, proxied), daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["proxied"])
