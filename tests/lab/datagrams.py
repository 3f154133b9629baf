"""Datagrams: servers and clients that are sockets of the test, real DNS and QUIC servers from Debian, and gwudp."""

import contextlib
import json
import socket
import threading

from lab.netns import run
from lab.process import wait_for

DNS_NAME = "a.lab.test"
DNS_ADDRESS = "192.0.2.7"


class DatagramPeer:
    """A UDP server inside the test: `answer(data, address)` makes the answer, or None; `seen` has (data, address)."""

    def __init__(self, host, address, port, answer=None):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = host.socket(family, socket.SOCK_DGRAM, timeout=None)
        self.socket.bind((address, port))
        self.answer = answer or (lambda data, _address: data)
        self.seen = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # close() alone leaves the port to the thread that waits for a datagram; shutdown() wakes it, connected or not.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.socket.close()

    def _serve(self):
        while True:
            try:
                data, address = self.socket.recvfrom(65536)
                if not address:  # shut down
                    return
                self.seen.append((data, address[:2]))
                answer = self.answer(data, address)
                if answer is not None:
                    self.socket.sendto(answer, address)
            except OSError:
                return


def client(host, address, port, source=None, timeout=3):
    """A connected UDP socket on a host; source: (address, port) to bind to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = host.socket(family, socket.SOCK_DGRAM, timeout=timeout)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if source:
        made.bind(source)
    made.connect((address, port))
    return made


def ask(made, data=b"?"):
    """Sends a datagram and returns the answer to it."""
    made.send(data)
    return made.recv(65536)


def is_silent(made, seconds=0.3):
    """Whether nothing arrives for a while."""
    made.settimeout(seconds)
    try:
        made.recv(65536)
    except socket.timeout:
        return True
    return False


def wait_bound(host, port, seconds=10):
    """Waits until something is bound to a UDP port of a host."""
    wait_for(lambda: run(*host.command("ss", "-Hunl", f"sport = :{port}")).stdout.strip(), seconds,
             f"a socket on UDP port {port} of {host.name}", interval=0.02)


def dns_server(lab, host, addresses, port=53):
    """dnsmasq that knows one name and logs who asks; returns the process."""
    process = lab.start(host, f"dns{port}-{len(lab.processes)}", "/usr/sbin/dnsmasq", "--keep-in-foreground",
                        "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-facility=-",
                        "--log-queries=extra", f"--address=/{DNS_NAME}/{DNS_ADDRESS}", "--user=root", "--pid-file=",
                        "--bind-interfaces", f"--listen-address={','.join(addresses)}", f"--port={port}")
    wait_bound(host, port)
    return process


def dig(host, server, *more, port=53):
    """The answer of a server to the question for DNS_NAME, as dig prints it."""
    done = host.run("dig", "+short", "+tries=2", "+time=2", f"@{server}", "-p", port, *more, DNS_NAME, check=False)
    return done.stdout.strip()


def dnsperf(host, server, seconds, directory, clients=20, port=53, check=True):
    """dnsperf for some seconds, with so few questions at once that none overflows the server; (sent, completed)."""
    questions = directory / "questions"
    questions.write_text(f"{DNS_NAME} A\n")
    done = host.run("dnsperf", "-s", server, "-p", port, "-d", questions, "-l", seconds, "-c", clients, "-q", 40,
                    "-t", 2, check=check, timeout=60)
    found = {line.split(":")[0].strip(): line.split(":")[1].split()[0] for line in done.stdout.splitlines()
             if ":" in line and line.split(":")[1].split()}
    return int(found["Queries sent"]), int(found["Queries completed"])


def echo_server(lab, host, gwudp, port):
    """gwudp that sends back what it gets; returns the process."""
    process = lab.start(host, f"gwudp{port}", gwudp, "echo", port)
    wait_bound(host, port)
    return process


def gwudp_result(done):
    """The line of JSON that gwudp prints."""
    return json.loads(done.stdout)
