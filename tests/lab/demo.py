"""./dev demo: a client, a gateway and a server on one machine, and proof that the gateway is transparent."""

import argparse
import json
import os
import signal
import sys

from lab import Gateway, Lab
from lab.netns import run
from lab.proxy import LoopbackProxy
from lab.servers import Nginx

PORT = 8000
LISTENER = {"name": "web", "comment": "made by ./dev demo", "ports": [str(PORT)]}


class Demo:
    """The proof, step by step; `faults` collects what did not come out as it had to."""

    def __init__(self, lab, build):
        self.lab = lab
        self.faults = []
        self.nginx = Nginx(lab, lab.server)
        self.gateway = Gateway(lab, build=build)

    def create_listener(self):
        """Creates the listener the way a user would, and shows how."""
        url = "http://localhost/api/v1/listeners"
        body = json.dumps(LISTENER)
        print(f"\n$ curl --unix-socket {self.gateway.socket} {url} -H 'Content-Type: application/json' -d '{body}'")
        done = run("curl", "-sS", "-i", "--unix-socket", self.gateway.socket, url, "-H", "Content-Type: application/json",
                   "-d", body, check=False)
        print(done.stdout.strip() or done.stderr.strip())
        self.expect("201" in done.stdout.split("\n")[0], "the API did not create the listener")

    def send_request(self, server):
        """One request from the client; prints what both sides saw."""
        client = self.lab.client.v6 if ":" in server else self.lab.client.v4
        name = f"/whoami?demo-{'v6' if ':' in server else 'v4'}"
        url = f"http://[{server}]:{PORT}{name}" if ":" in server else f"http://{server}:{PORT}{name}"
        print(f"\nclient {client}$ curl {url}")
        done = self.lab.client.run("curl", "-sS", "-m", 10, url, check=False)
        print(f"  the client got:     {(done.stdout or done.stderr).strip()}")
        try:
            line = self.nginx.wait_line(name)
        except Exception as error:
            line = f"nothing ({error})"
        print(f"  the server's log:   {line}")
        self.expect(f"sees {client}" in done.stdout, f"the answer from {server} does not show the client's address")
        self.expect(line.startswith(client + " "), f"the log of {server} does not show the client's address")

    def show_relayed(self):
        """While a connection is open, the gateway itself holds both halves of it: that is what makes it a relay."""
        with self.lab.client.connect(self.lab.server.v4, PORT) as held:
            held.sendall(b"GET /whoami HTTP/1.1\r\nHost: demo\r\n\r\n")
            held.recv(1000)
            sockets = self.lab.gateway.run("ss", "-Htn", "state", "established", f"( sport = :{PORT} or dport = :{PORT} )").stdout
        print("\nsockets of that listener on the gateway while a connection is open:")
        print("\n".join("  " + " ".join(line.split()[2:4]) for line in sockets.splitlines()) or "  none")
        self.expect(len(sockets.splitlines()) == 2, "the connection did not go through the relay")

    def expect(self, good, fault):
        """Notes a fault unless all is well."""
        if not good:
            self.faults.append(fault)

    def prove(self):
        """All of it; returns whether it came out right."""
        self.create_listener()
        self.send_request(self.lab.server.v4)
        self.send_request(self.lab.server.v6)
        self.show_relayed()
        for fault in self.faults:
            print(f"FAILED: {fault}")
        if not self.faults:
            print("\nproved: the server saw the client's own address, over IPv4 and IPv6, through the gateway")
        return not self.faults


def stay(demo):
    """Leaves everything running until Ctrl-C."""
    proxy = LoopbackProxy(demo.lab.gateway, 8080)
    lab = demo.lab
    print(f"""
web UI and API   {proxy.url}    (admin token: {demo.gateway.state / 'admin.token'})
a client's shell ip netns exec {lab.client.name} bash     (servers: {lab.server.v4}, {lab.server.v6}, ports 8000-8002)
the gateway's    ip netns exec {lab.gateway.name} bash
API by curl      curl --unix-socket {demo.gateway.socket} http://localhost/api/v1/status

Ctrl-C ends it all.""", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("\nending")


def main():
    """Proof, then either the end or an open lab."""
    parser = argparse.ArgumentParser(prog="./dev demo", description="The gateway at work in a lab on this machine.")
    parser.add_argument("--once", action="store_true", help="end after the proof; exit 0 if it came out right")
    parser.add_argument("--build", default="release", help="CMake preset whose programs run (default release)")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    with Lab() as lab:
        print(f"lab: client {lab.client.v4} {lab.client.v6} -- gateway -- server {lab.server.v4} {lab.server.v6}")
        demo = Demo(lab, options.build)
        good = demo.prove()
        if not options.once:
            stay(demo)
        demo.gateway.close()
    return 0 if good else 1


if __name__ == "__main__":
    os.chdir("/")
    sys.exit(main())
