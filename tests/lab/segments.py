"""TCP segments made by hand, with whatever source: frames for a host's interface, and what comes back."""

import ctypes
import fcntl
import ipaddress
import socket
import struct
import time

SYN, RST, ACK = 0x02, 0x04, 0x10
SIOCETHTOOL, ETHTOOL_SGRO, ETHTOOL_SCHANNELS = 0x8946, 0x2c, 0x3d
# The options of a SYN as Linux sends it: MSS 1460, SACK, timestamps, window scaling.
OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")


def checksum(data):
    """The internet checksum of bytes."""
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words >> 16:
        words = (words & 0xffff) + (words >> 16)
    return ~words & 0xffff


class Wire:
    """An interface of a host, and the hardware address of the router on its other end."""

    def __init__(self, host, interface, router, router_interface):
        self.source, self.router = hardware(host, interface), hardware(router, router_interface)
        with host.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((interface, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frame(self, source, destination, sport, dport, flags, seq=1, ack=0, options=b""):
        """A whole frame with one segment."""
        src, dst = ipaddress.ip_address(source), ipaddress.ip_address(destination)
        length = 20 + len(options)
        tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, length // 4 << 4, flags, 64240, 0, 0) + options
        pseudo = src.packed + dst.packed + struct.pack("!II", length, 6)
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        if src.version == 6:
            kind, head = 0x86dd, struct.pack("!IHBB", 6 << 28, length, 6, 64) + src.packed + dst.packed
        else:
            kind, head = 0x0800, struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0x4000, 64, 6, 0) + src.packed + dst.packed
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return self.router + self.source + struct.pack("!H", kind) + head + tcp

    def flood(self, sources, destination, dport, n):
        """n SYNs from the addresses of a prefix, each with another address or port."""
        first = int(ipaddress.ip_network(sources)[1])
        kind = ipaddress.IPv6Address if ":" in sources else ipaddress.IPv4Address
        for i in range(n):
            self.socket.send(self.frame(kind(first + i % 10000), destination, 1024 + i % 50000, dport, SYN, seq=i,
                                        options=OPTIONS))

    def answer(self, source, sport, dport, seconds=5):
        """The first segment from this address and these ports: (flags, sequence number, acknowledged, frame)."""
        wanted, deadline = ipaddress.ip_address(source), time.monotonic() + seconds
        network = 40 if wanted.version == 6 else 20
        while time.monotonic() < deadline:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            frame = self.socket.recv(2048)
            at = 14 + network
            if len(frame) < at + 20 or frame[12:14] != (b"\x86\xdd" if wanted.version == 6 else b"\x08\x00"):
                continue
            address = frame[22:38] if wanted.version == 6 else frame[26:30]
            ports = struct.unpack_from("!HH", frame, at)
            if address == wanted.packed and ports == (sport, dport):
                return frame[at + 13], *struct.unpack_from("!II", frame, at + 4), frame
        raise TimeoutError(f"no answer from {source} port {sport} to {dport}")

    def lengths(self):
        """Those of the frames that came and went and are still in the buffer."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv_into(bytearray(1), 1, socket.MSG_TRUNC))
        except BlockingIOError:
            return found


def hardware(host, interface):
    """The address of an interface as six bytes."""
    text = host.run("cat", f"/sys/class/net/{interface}/address").stdout.strip()
    return bytes.fromhex(text.replace(":", ""))


def ethtool(host, interface, command):
    """One of the kernel's orders that ethtool gives, as bytes."""
    value = ctypes.create_string_buffer(command)
    with host.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sQ16x", interface.encode(), ctypes.addressof(value)))


def set_gro(host, interface, on):
    """Generic receive offload: with it a veth takes frames from an XDP program at its other end."""
    ethtool(host, interface, struct.pack("II", ETHTOOL_SGRO, on))


def set_queues(host, interface, receive):
    """How many queues it receives by; those that a veth sends by stay one."""
    ethtool(host, interface, struct.pack("9I", ETHTOOL_SCHANNELS, 0, 0, 0, 0, receive, 1, 0, 0))
