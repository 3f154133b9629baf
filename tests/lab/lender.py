"""One gateway that serves one test after another, for to start and end one costs more than most tests do."""

from lab.gateway import Gateway
from lab.process import Timeout, wait_for


class Lender:
    """Holds the gateway that was lent last, until other options are asked for or it is ended."""

    def __init__(self):
        self.gateway = self.options = self.pid = None

    def lend(self, lab, **options):
        """A running gateway with these arguments of lab.Gateway, without configuration and flows."""
        if not (self.gateway and self.options == options and self._is_as_new()):
            self.end()
            self.gateway, self.options = Gateway(lab, **options), options
            self.pid = self.gateway.process.pid
        return self.gateway

    def end(self):
        """Ends it; raises if a sanitizer found a fault."""
        if self.gateway:
            ended, self.gateway = self.gateway, None
            ended.close()

    def _is_as_new(self):
        """Empties it; whether that went well. One whose daemon a test has ended or replaced, or in which a test has left
        many flows, is not used again."""
        gateway = self.gateway
        if gateway.process.pid != self.pid or not gateway.process.running():
            return False
        try:
            # The next relay of one that has ended often is waited for long.
            if gateway.status()["relay"]["restarts"] > 2:
                return False
            self._forget()
            wait_for(lambda: not self._flows(), 0.5, "the end of all flows")
            gateway.counters_before = gateway.status()["relay"]["counters"]
            return gateway.api("GET", "/readyz").status == 200
        except (AssertionError, KeyError, OSError, Timeout):
            return False

    def _forget(self):
        """Removes what tests leave behind."""
        pending = self.gateway.status()["pending"]
        if pending:
            self.gateway.must("POST", f"revisions/{pending['revision']}/confirm")
        self.gateway.must("PUT", "config", {})
        # Those of UDP last until they are idle.
        for flow in self.gateway.must("GET", "flows?protocol=udp&limit=50")["items"]:
            self.gateway.must("DELETE", f"flows/{flow['id']}")
        for token in self.gateway.must("GET", "tokens")["items"]:
            self.gateway.must("DELETE", f"tokens/{token['name']}")

    def _flows(self):
        relay = self.gateway.status()["relay"]
        return relay["flows"] + relay["udp_flows"] + relay["kept"]["flows"]
