"""A client that knocks all the time, and clients that stay: what they meet while something is done to a pool."""

import selectors
import socket
import threading
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: pool\r\n%s\r\n"
# Time between two new connections, and what one may take until it counts as not answered.
EVERY = 0.005
PATIENCE = 1.0


class Call:
    """A connection that asks once, or again and again. `who` has the name of the server that answered first."""

    def __init__(self, host, address, port, stays):
        self.started, self.stays, self.who, self.answers, self.broken = time.monotonic(), stays, None, 0, False
        self.socket = host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=0)
        self.socket.connect_ex((address, port))
        self.asked = False

    def step(self):
        """One event. False: it has ended."""
        try:
            if not self.asked:
                self.asked = True
                return self.socket.send(REQUEST % (b"" if self.stays else b"Connection: close\r\n")) > 0
            text = self.socket.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            text = b""
        if not text:
            self.broken = True
            return False
        self.who = self.who or text.split(b"\r\n\r\n")[1].split()[0].decode()
        self.answers += 1
        self.asked = False
        return self.stays


class Crowd:
    """Calls to one address, run in one thread."""

    def __init__(self, host, address, port):
        self.host, self.address, self.port = host, address, port
        self.selector = selectors.DefaultSelector()
        self.calls = []

    def call(self, stays=False):
        """Begins one."""
        made = Call(self.host, self.address, self.port, stays)
        self.selector.register(made.socket, selectors.EVENT_WRITE, made)
        self.calls.append(made)

    def run(self, seconds, knock=True, deed=None):
        """Lets them go on for so long, with a new one every few milliseconds. deed() is done by somebody else at the
        beginning of the second third. Returns when it began and when it was done."""
        began = time.monotonic()
        at, times, helper = began + seconds / 3, [None, None], None

        def do():
            times[0] = time.monotonic()
            deed()
            times[1] = time.monotonic()

        due = began
        while (now := time.monotonic()) < began + seconds:
            if deed and not helper and now >= at:
                helper = threading.Thread(target=do)
                helper.start()
            if knock and now >= due:
                self.call()
                due = max(due + EVERY, now - EVERY)
            self._events(max(0, min(due - now, EVERY)))
        if helper:
            helper.join()
            if times[1] is None:
                raise RuntimeError("what was to be done was not done")
        return times

    def _events(self, timeout):
        for key, _ in self.selector.select(timeout):
            call = key.data
            if call.step():
                self.selector.modify(call.socket, selectors.EVENT_READ if call.asked else selectors.EVENT_WRITE, call)
            else:
                self.selector.unregister(call.socket)
                call.socket.close()

    def settle(self):
        """What has begun may end; nothing new."""
        self.run(PATIENCE, knock=False)

    def close(self):
        """Ends all of them."""
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()
