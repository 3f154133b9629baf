"""The prefilter against a model of it: thousands of random packets of both families, whole and damaged, made with scapy.

The model (Model) is written from docs/prefilter.md and the RFCs, and reads bytes; what it reads of packets that are whole is
compared with what scapy was told to make. Verdict, reason, packets and bytes have to agree for each packet, and in sum.
"""

import ipaddress
import itertools
import json
import os
import random
import subprocess

import pytest

from lab.gateway import ROOT
from lab.process import amount

scapy = pytest.importorskip("scapy.all", reason="scapy is not installed")
from scapy.layers.ipsec import AH  # noqa: E402 pylint: disable=wrong-import-position

SEED = 20260501
PACKETS = amount(3000, 30000)
SKIPPED = 77
TCP, UDP, ICMP, IGMP, GRE, AH_, ICMPV6, SCTP = 6, 17, 1, 2, 47, 51, 58, 132
HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
HEADERS_MAX = 6
NUMBERS = {scapy.IPv6ExtHdrHopByHop: HOP, scapy.IPv6ExtHdrDestOpt: DESTINATION, scapy.IPv6ExtHdrRouting: ROUTING, AH: AH_,
           scapy.IPv6ExtHdrFragment: FRAGMENT}
PASSES = {"passed", "allowed"}

SOURCES = {
    4: ["192.0.2.1", "192.0.2.200", "198.51.100.7", "198.51.100.8", "203.0.113.5", "203.0.113.9", "10.1.2.3", "10.1.2.4",
        "0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "240.1.1.1", "255.255.255.255", "223.255.255.255", "126.0.0.1"],
    6: ["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:2::7", "2001:db8:2::8", "2001:db8:5::5", "2001:db8:5::9", "fd00::3",
        "fd00::4", "::", "::1", "::2", "::ffff:10.0.0.1", "ff02::1", "fe80::1", "1::"],
}
DESTINATIONS = {4: ["10.1.2.3", "10.9.0.1", "224.0.0.251", "255.255.255.255"], 6: ["fd00::3", "fd01::1", "ff02::fb", "ff02::1:ff00:1"]}
PORTS = [22, 53, 67, 68, 79, 80, 81, 443, 546, 5353, 7999, 8000, 8050, 8100, 8101, 65535]
LISTENERS = [{"name": "web", "ports": ["80", "443", "8000-8100"]}, {"name": "dns", "protocol": "udp", "ports": ["53"]},
             {"name": "elsewhere", "ports": ["81"], "interfaces": ["other"]}, {"name": "off", "ports": ["22"], "enabled": False}]
DENY = ["192.0.2.0/24", "198.51.100.7", "2001:db8:1::/48", "2001:db8:2::7", "0.0.0.0/7", "::/127"]
ALLOW = ["192.0.2.128/25", "2001:db8:1:1::/64", "127.0.0.0/8"]
CONFIGS = {
    "everything off": {},
    "lists": {"deny": DENY, "allow": ALLOW},
    "kinds": {"drop_fragments": True, "drop_bogons": True, "only_listener_ports": True},
    "all, and a rate": {"deny": DENY[:4], "allow": ALLOW[:2], "drop_fragments": True, "drop_bogons": True,
                        "only_listener_ports": True, "source_pps": {"rate": 1, "burst": 20}},
    "bans": {"deny": DENY[2:], "drop_bogons": True, "source_pps": {"rate": 1, "burst": 30, "action": "ban", "ban_s": 3600}},
}
SHUT = {"bans": ["203.0.113.0/29", "2001:db8:5::/125", "10.1.2.4"]}


# --- the model ---

class Malformed(Exception):
    """The headers contradict themselves."""


class Read:
    """What there is to be read of a frame."""

    def __init__(self, frame):
        self.frame = frame
        self.family = self.protocol = self.sport = self.dport = self.icmp = None
        self.src = self.dst = None
        self.fragment = False
        at, kind = 14, self.number(12, 2)
        for _ in range(2):
            if kind in (0x8100, 0x88a8):
                kind, at = self.number(at + 2, 2), at + 4
        if kind == 0x0800:
            self.read_v4(at)
        elif kind == 0x86dd:
            self.read_v6(at)

    def number(self, at, size):
        """So many bytes as a number."""
        if at + size > len(self.frame):
            raise Malformed
        return int.from_bytes(self.frame[at:at + size], "big")

    def read_v4(self, at):
        """RFC 791."""
        self.number(at, 20)
        header, total = (self.frame[at] & 15) * 4, self.number(at + 2, 2)
        if self.frame[at] >> 4 != 4 or header < 20 or not header <= total <= len(self.frame) - at:
            raise Malformed
        self.family, self.protocol = 4, self.frame[at + 9]
        self.src, self.dst = (ipaddress.IPv4Address(self.number(at + k, 4)) for k in (12, 16))
        self.fragment = bool(self.number(at + 6, 2) & 0x3fff)
        if not self.fragment:
            self.read_transport(at + header, total - header)

    def read_v6(self, at):
        """RFC 8200: the chain of headers, as many as are read."""
        self.number(at, 40)
        length, self.protocol = self.number(at + 4, 2), self.frame[at + 6]
        # A jumbogram has its length in the first option.
        end = len(self.frame) if length == 0 and self.protocol == HOP else at + 40 + length
        if self.frame[at] >> 4 != 6 or end > len(self.frame):
            raise Malformed
        self.family = 6
        self.src, self.dst = (ipaddress.IPv6Address(self.number(at + k, 16)) for k in (8, 24))
        at += 40
        for _ in range(HEADERS_MAX):
            kind = self.protocol
            if kind not in (HOP, ROUTING, DESTINATION, AH_, FRAGMENT):
                self.read_transport(at, end - at)
                return
            self.protocol = self.number(at, 1)
            if kind == FRAGMENT:
                self.fragment = bool(self.number(at + 2, 2) & 0xfff9)
                self.number(at, 8)
                at += 8
            else:
                length = self.number(at + 1, 1)
                at += (length + 2) * 4 if kind == AH_ else (length + 1) * 8
            if at > end:
                raise Malformed
            if self.fragment:
                return

    def read_transport(self, at, rest):
        """RFC 9293, 768, 792, 4443."""
        if self.protocol == TCP:
            if rest < 20 or not 20 <= (self.number(at + 12, 1) >> 4) * 4 <= rest:
                raise Malformed
            flags = self.frame[at + 13]
            if not flags & 0x3f or (flags & 2 and flags & 5):
                raise Malformed
        elif self.protocol == UDP:
            length = self.number(at + 4, 2) if rest >= 8 else 0
            if rest < 8 or (length or self.family == 4) and not 8 <= length <= rest:
                raise Malformed
        elif self.protocol in (ICMP, ICMPV6):
            if rest < 4:
                raise Malformed
            if (self.protocol == ICMP) == (self.family == 4):
                self.icmp = self.frame[at]
        if self.protocol in (TCP, UDP):
            self.sport, self.dport = self.number(at, 2), self.number(at + 2, 2)


def ranges(listeners, protocol):
    """Ports of the listeners at the interface."""
    for listener in listeners:
        if listener.get("enabled", True) and "interfaces" not in listener and listener.get("protocol", "tcp") == protocol:
            for text in listener["ports"]:
                low, _, high = text.partition("-")
                yield int(low), int(high or low)


def is_in(address, prefixes):
    """Whether one of the prefixes has it."""
    return any(address in net for net in map(ipaddress.ip_network, prefixes) if net.version == address.version)


class Model:
    """What the prefilter has to do, packet by packet: there are rates and bans."""

    def __init__(self, config, shut):
        self.config, self.shut = config, shut
        self.sent, self.banned = {}, set()

    def reason(self, frame):
        """Under which the frame has to be counted."""
        try:
            read = Read(frame)
        except Malformed:
            return "malformed"
        if read.family is None:
            return "passed"
        if is_in(read.src, self.config.get("allow", [])):
            return "allowed"
        return self.by_source(read) or self.by_kind(read)

    def by_source(self, read):
        """Lists, bans, the rate."""
        if is_in(read.src, self.config.get("deny", [])):
            return "denied"
        if is_in(read.src, self.shut) or read.src in self.banned:
            return "banned"
        pps = self.config.get("source_pps")
        if pps:
            sent = self.sent[read.src] = self.sent.get(read.src, 0) + 1
            if sent > pps["burst"]:
                if pps.get("action") == "ban":
                    self.banned.add(read.src)
                return "rate"
        return None

    def by_kind(self, read):
        """What the packet itself is."""
        if read.icmp in ((3, 11, 12) if read.family == 4 else (1, 2, 3, 4)):
            return "passed"
        if self.config.get("drop_fragments") and read.fragment:
            return "fragment"
        if self.config.get("drop_bogons") and self.is_bogon(read):
            return "bogon"
        if self.config.get("only_listener_ports") and read.dport is not None and not self.is_wanted(read):
            return "port"
        return "passed"

    @staticmethod
    def is_bogon(read):
        """Nobody can have this address, but who has none yet."""
        if read.src == ipaddress.IPv4Address("0.0.0.0"):
            return read.protocol != IGMP and not (read.protocol == UDP and read.dport == 67)
        if read.src == ipaddress.IPv6Address("::"):
            return read.protocol != ICMPV6
        return read.src == read.dst or is_in(read.src, ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::1", "ff00::/8",
                                                        "::ffff:0:0/96"])

    @staticmethod
    def is_wanted(read):
        """A listener's port, or what the link lives on; there is no socket here."""
        if any(low <= read.dport <= high for low, high in ranges(LISTENERS, "tcp" if read.protocol == TCP else "udp")):
            return True
        return read.protocol == UDP and (read.dport in (68, 546) or bool(read.frame[0] & 1))


# --- packets ---

def random_transport(rng, family, spec):
    """The layer behind the network header."""
    kind = rng.choice([TCP] * 5 + [UDP] * 5 + [ICMP if family == 4 else ICMPV6] * 3 + [ICMP, ICMPV6, IGMP, GRE, SCTP])
    spec["protocol"] = kind
    if kind in (TCP, UDP):
        spec["sport"], spec["dport"] = rng.choice(PORTS), rng.choice(PORTS)
    if kind == TCP:
        spec["flags"] = rng.choice(["S", "A", "SA", "PA", "FA", "R", "RA", "FPU", "", "SF", "SR", "SEC"])
        options = rng.choice([[], [("MSS", 1400)], [("MSS", 1400), ("SAckOK", b""), ("WScale", 7), ("Timestamp", (1, 0))]])
        return scapy.TCP(sport=spec["sport"], dport=spec["dport"], flags=spec["flags"], options=options)
    if kind == UDP:
        return scapy.UDP(sport=spec["sport"], dport=spec["dport"])
    return scapy.Raw(bytes([rng.randrange(0, 140)]) + rng.randbytes(rng.randrange(3, 20)))


def random_v4(rng, spec):
    """An IPv4 header, with options or as a fragment, now and then."""
    flags, offset = rng.choices([(0, 0), ("DF", 0), ("MF", 0), (0, 185), ("MF", 185)], [12, 4, 1, 1, 1])[0]
    spec["fragment"] = bool(offset) or flags == "MF"
    options = scapy.IPOption(b"\x94\x04\0\0") if rng.random() < 0.1 else []
    return scapy.IP(src=spec["src"], dst=spec["dst"], flags=flags, frag=offset, options=options, proto=spec["protocol"],
                    ttl=rng.choice([1, 64, 255]))


def random_extension(rng, spec):
    """One extension header of IPv6; a fragment ends what can be read."""
    kind = rng.choice([HOP, DESTINATION, ROUTING, AH_, FRAGMENT])
    if kind == FRAGMENT:
        offset, more = rng.choice([(0, 0), (0, 0), (0, 1), (20, 0), (20, 1)])
        spec["fragment"] = spec["fragment"] or bool(offset or more)
        return scapy.IPv6ExtHdrFragment(offset=offset, m=more, id=7)
    if kind == AH_:
        size = rng.choice([4, 12, 20])  # with the twelve bytes before it a multiple of eight
        return AH(payloadlen=(12 + size) // 4 - 2, icv=bytes(size), padding=b"")
    if kind == ROUTING:
        return scapy.IPv6ExtHdrRouting(type=4, addresses=["fd00::9"] * rng.randrange(0, 3))
    make = scapy.IPv6ExtHdrHopByHop if kind == HOP else scapy.IPv6ExtHdrDestOpt
    return make(options=[scapy.PadN(optdata=bytes(rng.choice([2, 4, 12])))])


def random_v6(rng, spec, transport):
    """An IPv6 header and its extensions, now and then more than are read."""
    room, extensions = rng.choices(range(9), [10, 3, 2, 1, 1, 1, 1, 1, 1])[0], []
    while len(extensions) < room and not spec["fragment"]:
        extensions.append(random_extension(rng, spec))
    spec["hidden"] = len(extensions) > HEADERS_MAX or (len(extensions) == HEADERS_MAX and not spec["fragment"])
    spec["fragment"] = spec["fragment"] and not spec["hidden"]
    packet = scapy.IPv6(src=spec["src"], dst=spec["dst"])
    chain = [packet, *extensions]
    for layer, following in zip(chain, [*map(type, extensions), None]):
        layer.nh = NUMBERS[following] if following else spec["protocol"]
    for layer in [*extensions, transport]:
        packet = packet / layer
    return packet


def random_packet(rng, family):
    """(frame, what it says)."""
    spec = {"family": family, "src": rng.choice(SOURCES[family]), "dst": rng.choice(DESTINATIONS[family]), "fragment": False,
            "hidden": False}
    transport = random_transport(rng, family, spec)
    packet = random_v4(rng, spec) / transport if family == 4 else random_v6(rng, spec, transport)
    packet = packet / scapy.Raw(rng.randbytes(rng.choice([0, 0, 1, 8, 40, 200, 1400, 6000])))
    ethernet = scapy.Ether(src="02:00:00:00:00:02", dst=rng.choice(["02:00:00:00:00:01"] * 3 + ["01:00:5e:00:00:fb"]))
    for make in rng.choice([[], [], [scapy.Dot1Q], [scapy.Dot1AD], [scapy.Dot1AD, scapy.Dot1Q], [scapy.Dot1Q, scapy.Dot1Q]]):
        ethernet = ethernet / make(vlan=rng.randrange(1, 4095))
    return bytes(ethernet / packet), spec


def expect_read(frame, spec):
    """What the model reads of a packet that is whole is what scapy was told."""
    wrong_flags = spec.get("flags") in ("", "SF", "SR") and not spec["fragment"] and not spec["hidden"]
    try:
        read = Read(frame)
    except Malformed:
        assert wrong_flags, (frame.hex(), spec)
        return
    assert not wrong_flags, (frame.hex(), spec)
    assert (read.family, read.src, read.dst, read.fragment) == (
        spec["family"], ipaddress.ip_address(spec["src"]), ipaddress.ip_address(spec["dst"]), spec["fragment"]), spec
    if not spec["hidden"]:
        assert read.protocol == spec["protocol"], (frame.hex(), spec)
        ports = (None, None) if spec["fragment"] else (spec.get("sport"), spec.get("dport"))
        assert (read.sport, read.dport) == ports, (frame.hex(), spec)


def damaged(rng, frame):
    """Cut off, padded, with another length, or with other bytes in its headers."""
    how = rng.randrange(6)
    if how == 0:
        return frame[:rng.randrange(14, max(15, min(len(frame), 150)))]
    if how == 1:
        return frame + bytes(rng.randrange(1, 30))
    frame = bytearray(frame)
    if how < 4:
        at = next((at for at in (12, 16, 20) if frame[at:at + 2] in (b"\x08\0", b"\x86\xdd")), 12)
        at += 4 if frame[at] == 8 else 6
        frame[at:at + 2] = rng.randrange(0, 90).to_bytes(2, "big")
        return bytes(frame)
    for _ in range(rng.randrange(1, 4)):
        frame[rng.randrange(12, min(len(frame), 110))] = rng.choice([0, 1, 4, 6, 0x45, 0xff, rng.randrange(256)])
    return bytes(frame)


def others(rng):
    """Frames without IP, and with more tags than are read."""
    inner = scapy.IP(src="192.0.2.1", dst="10.9.0.1") / scapy.UDP(dport=9)
    yield bytes(scapy.Ether() / scapy.ARP(psrc="192.0.2.1"))
    yield bytes(scapy.Ether() / scapy.Dot1AD(vlan=1) / scapy.Dot1Q(vlan=2) / scapy.Dot1Q(vlan=3) / inner)
    yield bytes(scapy.Ether(type=0x88cc) / scapy.Raw(rng.randbytes(40)))


@pytest.fixture(scope="module")
def frames():
    """All packets, in random order, half of them as scapy made them."""
    rng = random.Random(SEED)
    found = list(itertools.chain.from_iterable(others(rng) for _ in range(20)))
    for number in range(PACKETS):
        frame, spec = random_packet(rng, 4 if number % 2 else 6)
        expect_read(frame, spec)
        found.append(frame)
        found.append(damaged(rng, frame))
    rng.shuffle(found)
    return [frame + bytes(max(0, 15 - len(frame))) for frame in found]


def judged(document, frames):
    """(verdict, {reason: (packets, bytes)}) of each frame."""
    program = ROOT / "build" / os.environ.get("LAB_BUILD", "dev") / "tests/gwjudge"
    lines = "\n".join([json.dumps(document), *(frame.hex() for frame in frames), ""])
    done = subprocess.run([program], input=lines, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode == SKIPPED:
        pytest.skip(f"programs cannot be loaded here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        verdict, *words = line.split()
        yield verdict, {words[i]: (int(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 3)}


@pytest.mark.parametrize("name", CONFIGS)
def test_random_packets(frames, name):
    """Each packet meets the reason that the model says, counts once under it with its bytes, and passes or does not."""
    config, shut = CONFIGS[name], SHUT.get(name, [])
    model, seen = Model(config, shut), {}
    document = {"prefilters": [{"interface": "in0", **config}], "listeners": LISTENERS, "shut": shut, "still": True}
    answers = list(judged(document, frames))
    assert len(answers) == len(frames)
    for number, (frame, answer) in enumerate(zip(frames, answers)):
        wanted = model.reason(frame)
        assert answer == ("pass" if wanted in PASSES else "drop", {wanted: (1, len(frame))}), (number, frame.hex())
        seen[wanted] = seen.get(wanted, 0) + 1
    # That it is no test of one reason.
    expected = {"passed", "malformed", *(["allowed"] if "allow" in config else []), *(["denied"] if "deny" in config else []),
                *(["banned"] if shut else []), *(["rate"] if "source_pps" in config else []),
                *(["fragment"] if "drop_fragments" in config else []), *(["bogon"] if "drop_bogons" in config else []),
                *(["port"] if "only_listener_ports" in config else [])}
    assert set(seen) == expected and min(seen.values()) >= 20, seen
