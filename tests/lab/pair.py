"""Two gateways beside each other between the same networks, as keepalived wants them.

    client  10.71.1.2  fd71:1::2 --[lan 1]-- a (.11), b (.12) --[lan 2]-- server  10.71.2.2-5  fd71:2::2-5

Clients and servers have .1 and ::1 as their router, which nobody has until keepalived gives them to one of the two.
"""

from types import SimpleNamespace

from lab.gateway import Gateway
from lab.netns import run
from lab.topology import Lab

ROUTERS = {"a": 11, "b": 12}


class Pair(Lab):
    """The network; `sides` has the two gateways' hosts by their names."""

    def _build(self, client2, hop):
        self.switch = self._host("sw")
        for number in (1, 2):
            self.switch.run("ip", "link", "add", f"lan{number}", "type", "bridge")
            self.switch.run("ip", "link", "set", f"lan{number}", "up")
        self.client, self.server = self._host("cl"), self._host("sv")
        self._plug(self.client, "up0", 1, (2,), router=1)
        self._plug(self.server, "up0", 2, (2, 3, 4, 5), router=1)
        self.sides = {name: self._host(name, forward=True) for name in ROUTERS}
        for name, host in self.sides.items():
            self._plug(host, "in0", 1, (ROUTERS[name],))
            self._plug(host, "out0", 2, (ROUTERS[name],))

    def _plug(self, host, device, number, lasts, router=None):
        """A cable from a host into the switch of a network; the switch's end has the host's name and the number."""
        end = f"{host.name.rsplit('-', 1)[1]}{number}"
        run("ip", "link", "add", device, "netns", host.name, "type", "veth", "peer", "name", end, "netns", self.switch.name)
        self.switch.run("ip", "link", "set", end, "master", f"lan{number}", "up")
        host.run("ip", "link", "set", device, "up")
        for last in lasts:
            host.run("ip", "addr", "add", f"10.71.{number}.{last}/24", "dev", device)
            host.run("ip", "addr", "add", f"fd71:{number}::{last}/64", "dev", device, "nodad")
        host.v4, host.v6 = host.v4 or f"10.71.{number}.{lasts[0]}", host.v6 or f"fd71:{number}::{lasts[0]}"
        if router:
            host.run("ip", "route", "add", "default", "via", f"10.71.{number}.{router}")
            host.run("ip", "-6", "route", "add", "default", "via", f"fd71:{number}::{router}")

    def cables(self, name, state):
        """Pulls both cables of a gateway ("down"), or puts them in again ("up")."""
        for number in (1, 2):
            self.switch.run("ip", "link", "set", f"{name}{number}", state)

    def gateway_on(self, name, **options):
        """A gatewayd on one of the two, which the other reaches over https."""
        place = SimpleNamespace(gateway=self.sides[name], directory=self.directory, processes=self.processes)
        return Gateway(place, listen=self.url(name), **options)

    @staticmethod
    def url(name):
        """Where the API of a gateway is."""
        return f"https://10.71.1.{ROUTERS[name]}:8443"
