"""SYN cookies from XDP at a transparent listener that tproxy leads to: which it takes back, and when.

A small program at the gateway's interface answers each SYN to port 443 with a cookie, made in the listening socket's
name, or without it ("raw"). What it sends is written by the prefilter's own code.
"""

import os
import subprocess

import pytest

from lab.gateway import ROOT
from lab.golden import RELAY_PORTS, SERVER, run

PROGRAM = """
#include "rules/bpf/syn_cookie.h"

static __always_inline __s64 make(struct xdp_md *ctx, struct packet *packet, struct syn_cookie_headers *headers)
{
	struct bpf_sock *listener;
	__u64 length = headers->tcp_length;
	__s64 cookie;

	SYN_COOKIE_KEEP(length);
	if (length < sizeof(struct tcphdr) || length > SYN_COOKIE_TCP_MAX)
		return -1;
#ifdef RAW
	return packet->family == AF_INET ? bpf_tcp_raw_gen_syncookie_ipv4(&headers->ip.v4, &headers->tcp.header, length)
	                                 : bpf_tcp_raw_gen_syncookie_ipv6(&headers->ip.v6, &headers->tcp.header, length);
#else
	listener = find_listener(ctx, packet, bpf_htons(packet->family == AF_INET ? PORT_4 : PORT_6));
	if (!listener)
		return -1;
	cookie = syn_cookie_make(listener, headers);
	bpf_sk_release(listener);
	return cookie;
#endif
}

SEC("xdp") int answer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct syn_cookie_headers headers = { 0 };
	struct packet packet = { .network = 14, .length = end - data };
	struct ethhdr *ethernet = data;
	struct iphdr *v4 = (void *)(ethernet + 1);
	struct ipv6hdr *v6 = (void *)(ethernet + 1);
	struct tcphdr *tcp;
	__s64 cookie;

	if ((void *)(v6 + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP) && v4->protocol == IPPROTO_TCP) {
		packet.family = AF_INET;
		packet.src.words[0] = v4->saddr;
		packet.dst.words[0] = v4->daddr;
		tcp = (void *)(v4 + 1);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6) && v6->nexthdr == IPPROTO_TCP) {
		packet.family = AF_INET6;
		__builtin_memcpy(&packet.src, &v6->saddr, 16);
		__builtin_memcpy(&packet.dst, &v6->daddr, 16);
		tcp = (void *)(v6 + 1);
	} else {
		return XDP_PASS;
	}
	if ((void *)(tcp + 1) > end || tcp->dest != bpf_htons(443) || !tcp->syn || tcp->ack)
		return XDP_PASS;
	packet.sport = tcp->source;
	packet.dport = tcp->dest;
	packet.header = tcp->doff * 4;
	packet.transport = (void *)tcp - data;
	if (syn_cookie_headers(ctx, &packet, &headers) < 0)
		return XDP_PASS;
	cookie = make(ctx, &packet, &headers);
	if (cookie < 0 || syn_cookie_answer(ctx, &packet, headers.tcp.header.seq, (__u32)cookie, syn_cookie_mtu(ctx)) < 0)
		return XDP_PASS;
	return XDP_TX;
}
char test_license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """{raw: object file}"""
    directory = tmp_path_factory.mktemp("bpf")
    for raw in (False, True):
        (directory / f"{raw}.c").write_text(("#define RAW\n" if raw else "") + PROGRAM)
        run("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", f"-DPORT_4={RELAY_PORTS[4]}", f"-DPORT_6={RELAY_PORTS[6]}",
            f"-I{ROOT}", f"-I/usr/include/{os.uname().machine}-linux-gnu", "-c", str(directory / f"{raw}.c"), "-o",
            str(directory / f"{raw}.o"))
    return {raw: directory / f"{raw}.o" for raw in (False, True)}


@pytest.fixture
def fresh(net):
    """The network with a stand-in for the relay whose sockets have never given a cookie."""
    net.reset()
    relay = net.relay()
    yield net
    net.stop(relay)
    net.sh(net.gateway, "ip link set eth0 xdpgeneric off; sysctl -qw net.ipv4.tcp_syncookies=1")


def attach(net, program):
    """Puts the program on the gateway's interface."""
    try:
        run("ip", "-n", net.gateway, "link", "set", "eth0", "xdpgeneric", "obj", str(program), "sec", "xdp")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel does not load it: {error.stderr[-500:]}")


def cookies(net):
    """The gateway's counts of cookies: sent by the stack, taken back."""
    text = net.sh(net.gateway, "nstat -asz TcpExtSyncookiesSent TcpExtSyncookiesRecv")
    return tuple(int(text.split(name)[1].split()[0]) for name in ("SyncookiesSent", "SyncookiesRecv"))


def ask(net, family):
    """What a client hears, and how many cookies the stack has sent and taken meanwhile."""
    before = cookies(net)
    heard = net.ask(SERVER[family], 443)
    return heard.split(" ")[0], *(now - then for now, then in zip(cookies(net), before))


@pytest.mark.parametrize("family", [4, 6])
def test_a_cookie_made_in_the_sockets_name_is_taken_back(fresh, programs, family):
    """The helper that takes the socket: none while the queue has room, unless cookies are for always."""
    attach(fresh, programs[False])
    assert ask(fresh, family) == ("relay", 0, 0)
    fresh.sh(fresh.gateway, "sysctl -qw net.ipv4.tcp_syncookies=2")
    assert ask(fresh, family) == ("relay", 0, 1)
    fresh.sh(fresh.gateway, "sysctl -qw net.ipv4.tcp_syncookies=0")
    assert ask(fresh, family) == ("relay", 0, 0)


@pytest.mark.parametrize("family", [4, 6])
def test_a_cookie_made_without_the_socket_is_not(fresh, programs, family):
    """The raw helper's cookie is as good, but a socket that does not know of having given one resets the connection,
    tcp_syncookies=2 or not; once the stack has given one in its name, it takes them for two minutes."""
    for setting in (1, 2):
        fresh.sh(fresh.gateway, f"sysctl -qw net.ipv4.tcp_syncookies={setting}")
        attach(fresh, programs[True])
        assert ask(fresh, family) == ("ConnectionResetError", 0, 0)
        fresh.sh(fresh.gateway, "ip link set eth0 xdpgeneric off")
    assert ask(fresh, family) == ("relay", 1, 1)
    attach(fresh, programs[True])
    assert ask(fresh, family) == ("relay", 0, 1)
