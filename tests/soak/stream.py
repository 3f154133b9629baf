"""One checked connection of the soak: both directions carry bytes that both sides know, compared as they come.

Unlike lab.traffic, which compares hashes at the end, a broken connection can be
judged too: whatever arrived before it broke has to be a prefix of what was sent.

The client opens with a line of JSON:
    kind  plain   both directions to the end
          echo    the server sends back what comes, for as long as it comes
          reset   the client resets the connection after `cut` bytes that it has sent
          cut     the server does so
          killed  the client may die at any moment
    seed, up, down, slow ("" or which side reads slowly at first: "client" or "server")
"""

import json
import random
import socket
import struct
import threading
import time

from lab.traffic import CHUNK, chunks, read_line

# A connection on which nothing moves for so long is stuck: the end of the other side did not get through.
STUCK_S = 90
SLOW_READS = 100
SLOW_PAUSE_S = 0.1
SLOW_BYTES = 4096
RESET = struct.pack("ii", 1, 0)


class Expected:
    """The bytes of a seed, compared piece by piece with what arrives."""

    def __init__(self, seed, size):
        self.pieces, self.piece = chunks(seed, size), memoryview(b"")

    def take(self, view):
        """Whether these are the next bytes."""
        while view:
            if not self.piece:
                self.piece = next(self.pieces, memoryview(b""))
                if not self.piece:
                    return False
            length = min(len(view), len(self.piece))
            if bytes(view[:length]) != bytes(self.piece[:length]):
                return False
            view, self.piece = view[length:], self.piece[length:]
        return True


class Side:
    """One end of a checked connection."""

    def __init__(self, connection, sends, receives, slow=False, cut=None):
        self.connection, self.sends, self.receives = connection, sends, receives
        self.slow, self.cut = slow, cut
        self.send_error = None
        self.broke_s = []

    def exchange(self):
        """Sends and receives at once; returns {received, expected, corrupt, end, send_error, broke_s}.

        broke_s: when this side first noticed that the connection is broken, None if it did not (monotonic clock).
        """
        sender = threading.Thread(target=self._send, daemon=True)
        sender.start()
        outcome = self._receive()
        if outcome["end"] != "eof" or outcome["received"] < outcome["expected"]:
            self.broke_s.append(time.monotonic())
        sender.join()
        return outcome | {"send_error": self.send_error, "broke_s": min(self.broke_s, default=None)}

    def _send(self):
        sent = 0
        try:
            for piece in chunks(*self.sends):
                if self.cut is not None and sent + len(piece) > self.cut:
                    piece = piece[:self.cut - sent]
                self.connection.sendall(piece)
                sent += len(piece)
                if sent == self.cut:
                    break
            if self.cut is None:
                self.connection.shutdown(socket.SHUT_WR)
            else:
                # At once, with nothing said before: the peer must not take it for an orderly end. dup: the receiver
                # of this side has the descriptor too, and a reset is sent when the last one is closed.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.connection.shutdown(socket.SHUT_RD)
        except OSError as error:
            self.broke_s.append(time.monotonic())
            self.send_error = str(error)

    def _receive(self):
        seed, size = self.receives
        expected, buffer = Expected(seed, size), bytearray(CHUNK)
        outcome = {"received": 0, "expected": size, "corrupt": False, "end": "eof"}
        reads = 0
        try:
            while True:
                slow = self.slow and reads < SLOW_READS
                if slow:
                    time.sleep(SLOW_PAUSE_S)
                length = self.connection.recv_into(buffer, SLOW_BYTES if slow else CHUNK)
                if not length:
                    return outcome
                reads += 1
                if not expected.take(memoryview(buffer)[:length]):
                    outcome["corrupt"] = True
                outcome["received"] += length
        except TimeoutError:
            outcome["end"] = "stuck"
        except OSError as error:
            outcome["end"] = type(error).__name__
        return outcome


def client(connection, head):
    """The client's part; closes the connection. Returns the outcome."""
    cut = head.get("cut") if head["kind"] == "reset" else None
    with connection:
        connection.settimeout(STUCK_S)
        connection.sendall(json.dumps(head).encode() + b"\n")
        side = Side(connection, (f"{head['seed']} up", head["up"]), (f"{head['seed']} down", head["down"]),
                    head["slow"] == "client", cut)
        return side.exchange()


def serve_one(connection, report):
    """The server's part; report(outcome) is called once."""
    head = {"seed": None, "kind": "?"}
    with connection:
        try:
            connection.settimeout(STUCK_S)
            head = json.loads(read_line(connection))
        except ValueError as error:
            report(head | {"end": "head", "corrupt": True, "received": 0, "error": str(error)})
            return
        except OSError as error:
            report(head | {"end": type(error).__name__, "corrupt": False, "received": 0})
            return
        if head["kind"] == "echo":
            echo(connection)
            report({"seed": head["seed"], "kind": "echo", "end": "eof", "broke_s": time.monotonic()})
            return
        cut = head.get("cut") if head["kind"] == "cut" else None
        side = Side(connection, (f"{head['seed']} down", head["down"]), (f"{head['seed']} up", head["up"]),
                    head["slow"] == "server", cut)
        report({"seed": head["seed"], "kind": head["kind"], **side.exchange()})


def echo(connection):
    """Sends back what comes until the end, of whatever kind; silence is no fault here."""
    connection.settimeout(None)
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass


SPECIAL_SIZES = [edge + off for edge in (0, 1, 536, 1448, 4096, 16384, 65536, 131072, 212992, 262144, 1 << 20, 6 << 20)
                 for off in (-1, 0, 1) if edge + off >= 0]


def random_size(source, most):
    """Half of them at the edges of segments, pages, pipes and socket buffers, the others of any magnitude up to `most`."""
    if source.random() < 0.5:
        return source.choice(SPECIAL_SIZES)
    return int(2 ** source.uniform(0, most.bit_length()))


def new_source(text):
    """Random numbers that are the same for the same text."""
    return random.Random(text)
