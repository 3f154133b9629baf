"""A port of a namespace's loopback on the machine's own loopback, for programs that run outside the lab."""

import socket
import threading


class LoopbackProxy:
    """Listens on 127.0.0.1 (on another port if that one is taken) and connects to the namespace's 127.0.0.1."""

    def __init__(self, namespace, port, outside=None):
        self.namespace, self.port = namespace, port
        try:
            self.listener = socket.create_server(("127.0.0.1", port if outside is None else outside))
        except OSError:
            self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.open = []
        self.cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                outside, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.cut:
                    raise OSError
                inside = self.namespace.connect("127.0.0.1", self.port)
            except OSError:
                outside.close()
                continue
            inside.settimeout(None)
            self.open += [outside, inside]
            for source, sink in ((outside, inside), (inside, outside)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def break_off(self, cut=True):
        """Ends all connections; with `cut`, new ones end at once until mend() is called."""
        self.cut = cut
        for one in self.open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.open = []

    def mend(self):
        """Lets connections through again."""
        self.cut = False

    def close(self):
        """Stops listening, and ends what is open."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.break_off()


def pump(source, sink):
    """Moves bytes one way until the end."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()
