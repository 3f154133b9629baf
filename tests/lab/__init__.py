"""The lab: clients, a gateway and servers on one machine, in network namespaces.

Used alike by ./dev demo, the network tests and the bench. netns.py knows
namespaces and sockets, topology.py builds the network, process.py runs
programs in it, gateway.py runs gatewayd, servers.py the servers, and
traffic.py makes traffic that is checked byte for byte.
"""

from lab.gateway import Gateway
from lab.topology import Lab, cleanup_stale

__all__ = ["Gateway", "Lab", "cleanup_stale"]
