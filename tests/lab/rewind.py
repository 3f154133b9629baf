"""A TCP sender whose next segment begins with bytes that were sent, and taken, before.

What a resent segment looks like that was put together anew, as after a lost acknowledgement: it overlaps what the
receiver has.
"""

import socket
import struct

REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
WINDOWS = 20  # bytes of its value
ON, OFF_WITHOUT_PROBE = 1, -1
RECEIVED, SENT = 1, 2  # of REPAIR_QUEUE
MSS, WINDOW, SACK, TIMESTAMPS = 2, 3, 4, 8  # of REPAIR_OPTIONS
TS_USED, SACK_USED, SCALE_USED = 1, 2, 4  # of tcpi_options


def queue_seq(sock, queue):
    """Where a queue of a socket in repair is."""
    sock.setsockopt(socket.IPPROTO_TCP, REPAIR_QUEUE, queue)
    return struct.unpack("I", sock.getsockopt(socket.IPPROTO_TCP, QUEUE_SEQ, 4))[0]


def options_of(sock):
    """What the two ends have agreed upon, as a list for REPAIR_OPTIONS."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    agreed, scales = info[5], info[6]
    found = [(MSS, struct.unpack_from("I", info, 16)[0])]
    if agreed & SCALE_USED:
        found.append((WINDOW, (scales & 15) | (scales >> 4) << 16))
    if agreed & SACK_USED:
        found.append((SACK, 0))
    if agreed & TS_USED:
        found.append((TIMESTAMPS, 0))
    return found


def rewind(namespace, sock, size):
    """The same connection in a new socket of `namespace`, which sends the last `size` bytes' place anew.

    Everything sent must have been acknowledged, and nothing may wait to be read. `sock` is closed without a packet.
    """
    tcp = socket.IPPROTO_TCP
    here, there, timeout = sock.getsockname(), sock.getpeername(), sock.gettimeout()
    options, clock = options_of(sock), sock.getsockopt(tcp, TIMESTAMP)
    sock.setsockopt(tcp, REPAIR, ON)
    windows = sock.getsockopt(tcp, REPAIR_WINDOW, WINDOWS)
    sent, received = queue_seq(sock, SENT), queue_seq(sock, RECEIVED)
    sock.close()
    made = namespace.socket(sock.family, timeout=timeout)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(tcp, REPAIR, ON)
    made.bind(here)
    for queue, seq in ((SENT, (sent - size) & 0xFFFFFFFF), (RECEIVED, received)):
        made.setsockopt(tcp, REPAIR_QUEUE, queue)
        made.setsockopt(tcp, QUEUE_SEQ, struct.pack("I", seq))
    made.connect(there)
    made.setsockopt(tcp, REPAIR_OPTIONS, b"".join(struct.pack("II", *option) for option in options))
    made.setsockopt(tcp, TIMESTAMP, clock)
    made.setsockopt(tcp, REPAIR_WINDOW, windows)
    made.setsockopt(tcp, REPAIR, OFF_WITHOUT_PROBE)
    return made
