"""The servers of the lab: nginx, socat, openssl and iperf3 from Debian, and the checked-traffic server."""

import os
import socket
import sys
import threading
from pathlib import Path

from lab.netns import run
from lab.process import wait_for

HTTP_PORTS = (8000, 8001, 8002)
NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_processes {workers};
worker_rlimit_nofile 65536;
user root;
events {{ worker_connections 20000; multi_accept on; }}
http {{
    log_format seen '$remote_addr -> $server_addr:$server_port "$request" $status $body_bytes_sent';
    access_log {access_log};
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    sendfile on;
    tcp_nopush off;
    keepalive_requests 100000000;
    keepalive_timeout 600;
    client_max_body_size 0;
    default_type text/plain;
    server {{
{listens}
        root {directory}/www;
        location = /whoami {{ return 200 "$server_addr:$server_port sees $remote_addr\\n"; }}
        location = /tiny {{ return 200 "0123456789abcdef0123456789abcdef\\n"; }}
    }}
}}
"""


class Nginx:
    """nginx on every address of a host; files /small, /64k and /big, answers at /whoami and /tiny."""

    def __init__(self, lab, host, ports=HTTP_PORTS, workers=1, logging=True, name="nginx"):
        self.directory = lab.directory / name
        self.access_log = self.directory / "access.log"
        (self.directory / "www").mkdir(parents=True)
        for file, size in (("small", 100), ("64k", 65536), ("big", 16 << 20)):
            (self.directory / "www" / file).write_bytes((b"0123456789abcde\n" * (size // 16 + 1))[:size])
        listens = [f"        listen {address}:{port} backlog=8192;" for port in ports for address in ("0.0.0.0", "[::]")]
        config = self.directory / "nginx.conf"
        config.write_text(NGINX.format(directory=self.directory, workers=workers, listens="\n".join(listens),
                                       access_log=f"{self.access_log} seen" if logging else "off"))
        self.process = lab.start(host, name, "/usr/sbin/nginx", "-e", self.directory / "error.log", "-c", config)
        wait_listening(host, ports[-1])

    def lines(self):
        """The access log so far."""
        return self.access_log.read_text().splitlines()

    def wait_line(self, text, seconds=5):
        """The first line of the access log that contains the text."""
        return wait_for(lambda: next((line for line in self.lines() if text in line), None), seconds,
                        f"access log line with {text!r}")


def wait_listening(host, port, seconds=10):
    """Waits until something accepts TCP connections on a port of a host."""
    def listening():
        return run(*host.command("ss", "-Htln", f"sport = :{port}")).stdout.strip()
    wait_for(listening, seconds, f"a listener on port {port} of {host.name}", interval=0.02)


def echo_server(lab, host, port, family=4):
    """socat that sends back what it gets."""
    kind = f"TCP{family}-LISTEN:{port},reuseaddr,fork,backlog=1024" + (",ipv6only=1" if family == 6 else "")
    process = lab.start(host, f"echo{port}-{family}", "socat", kind, "EXEC:cat")
    wait_listening(host, port)
    return process


def tls_server(lab, host, port):
    """openssl s_server with a throw-away certificate; answers /  with a status page."""
    key, certificate = lab.directory / "tls.key", lab.directory / "tls.crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=lab.test", "-addext", "subjectAltName=DNS:lab.test", "-keyout", key, "-out", certificate)
    process = lab.start(host, f"tls{port}", "openssl", "s_server", "-accept", port, "-key", key, "-cert", certificate,
                        "-www", "-quiet")
    wait_listening(host, port)
    return process, certificate


def iperf_server(lab, host, port):
    """iperf3 -s"""
    process = lab.start(host, f"iperf{port}", "iperf3", "-s", "-p", port)
    wait_listening(host, port)
    return process


class Peer:
    """A TCP server inside the test: each accepted connection is given to `handle(connection, address)` in a thread.

    `seen` has the peers' addresses in order of arrival."""

    def __init__(self, host, address, port, handle, backlog=1024, before=None):
        self.listener = host.listen(address, port, backlog=backlog, timeout=None, before=before)
        self.handle = handle
        self.seen = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stops accepting."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:
                return
            self.seen.append(address)
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection, address):
        try:
            self.handle(connection, address)
        except OSError:
            connection.close()


def traffic_server(lab, host, port, proxied=False):
    """The server side of lab.traffic; returns (process, path of its results). proxied: behind PROXY headers."""
    results = lab.directory / f"traffic{port}.jsonl"
    program = Path(__file__).with_name("traffic.py")
    process = lab.start(host, f"traffic{port}", sys.executable, program, "serve", port, results,
                        *(["proxied"] if proxied else []), env={**os.environ, "PYTHONPATH": str(program.parents[1])})
    wait_listening(host, port)
    return process, results
