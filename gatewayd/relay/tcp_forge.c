/* Packets made by hand; see tcp_forge.h. */
#include "gatewayd/relay/tcp_forge.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HOPS 64
/* The longest TCP header, and what an error quotes of a packet. */
#define PAYLOAD_MAX 60

static int raw_v4 = -1, raw_v6 = -1;

static int raw_open(int family)
{
	/* Takes the whole packet as it is, and receives none. */
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);

	return fd < 0 ? -errno : fd;
}

int tcp_forge_open(void)
{
	int r = raw_open(AF_INET);

	if (r < 0)
		return r;
	raw_v4 = r;
	raw_v6 = raw_open(AF_INET6);
	/* A kernel without IPv6 has no such connections. */
	return raw_v6 == -EAFNOSUPPORT ? 0 : raw_v6 < 0 ? raw_v6 : 0;
}

/* The Internet checksum's sum of `size` bytes, which are even in number, on top of another. */
static uint32_t sum_add(uint32_t sum, const void *bytes, size_t size)
{
	const uint8_t *byte = bytes;

	for (size_t i = 0; i < size; i += 2)
		sum += (uint32_t)byte[i] << 8 | byte[i + 1];
	return sum;
}

static uint16_t sum_end(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* The checksum of what has none yet, and is sent between these addresses. */
static uint16_t sum_of(
        const uint8_t *bytes, size_t length, uint8_t protocol, const struct addr *from, const struct addr *to)
{
	size_t size = from->family == AF_INET ? 4 : 16;
	uint32_t sum = sum_add(protocol + (uint32_t)length, from->bytes, size);

	sum = sum_add(sum, to->bytes, size);
	return sum_end(sum_add(sum, bytes, length));
}

static struct iphdr ip_v4(const struct addr *from, const struct addr *to, uint8_t protocol)
{
	struct iphdr ip = {
		.version = 4, .ihl = sizeof(ip) / 4, .frag_off = htons(IP_DF), .ttl = HOPS, .protocol = protocol
	};

	memcpy(&ip.saddr, from->bytes, sizeof(ip.saddr));
	memcpy(&ip.daddr, to->bytes, sizeof(ip.daddr));
	return ip;
}

static struct ip6_hdr ip_v6(const struct addr *from, const struct addr *to, uint8_t protocol, size_t length)
{
	struct ip6_hdr ip = { 0 };

	ip.ip6_vfc = 6 << 4;
	ip.ip6_plen = htons((uint16_t)length);
	ip.ip6_nxt = protocol;
	ip.ip6_hlim = HOPS;
	memcpy(&ip.ip6_src, from->bytes, sizeof(ip.ip6_src));
	memcpy(&ip.ip6_dst, to->bytes, sizeof(ip.ip6_dst));
	return ip;
}

/* Whether `length` bytes went out. */
static int send_all(int fd, const void *packet, size_t length, const void *to, socklen_t to_length)
{
	ssize_t n = sendto(fd, packet, length, MSG_DONTWAIT, to, to_length);

	return n < 0 ? -errno : (size_t)n == length ? 0 : -EIO;
}

static int send_v4(
        const struct addr *from, const struct addr *to, uint8_t protocol, const uint8_t *payload, size_t length)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct {
		struct iphdr ip;
		uint8_t payload[PAYLOAD_MAX];
	} packet = { .ip = ip_v4(from, to, protocol) };

	/* The kernel fills length and checksum in. */
	memcpy(&sa.sin_addr, to->bytes, sizeof(sa.sin_addr));
	memcpy(packet.payload, payload, length);
	return send_all(raw_v4, &packet, sizeof(packet.ip) + length, &sa, sizeof(sa));
}

static int send_v6(
        const struct addr *from, const struct addr *to, uint8_t protocol, const uint8_t *payload, size_t length)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
	struct {
		struct ip6_hdr ip;
		uint8_t payload[PAYLOAD_MAX];
	} packet = { .ip = ip_v6(from, to, protocol, length) };

	memcpy(&sa.sin6_addr, to->bytes, sizeof(sa.sin6_addr));
	memcpy(packet.payload, payload, length);
	return send_all(raw_v6, &packet, sizeof(packet.ip) + length, &sa, sizeof(sa));
}

static int send_packet(
        const struct addr *from, const struct addr *to, uint8_t protocol, const uint8_t *payload, size_t length)
{
	return from->family == AF_INET ? send_v4(from, to, protocol, payload, length)
	                               : send_v6(from, to, protocol, payload, length);
}

int tcp_forge_header(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port,
        const uint8_t *header, size_t length)
{
	uint8_t bytes[PAYLOAD_MAX];
	struct tcphdr tcp;

	if (length < sizeof(tcp) || length > sizeof(bytes))
		return -EINVAL;
	memcpy(bytes, header, length);
	memcpy(&tcp, header, sizeof(tcp));
	tcp.th_sport = htons(from_port);
	tcp.th_dport = htons(to_port);
	tcp.th_sum = 0;
	memcpy(bytes, &tcp, sizeof(tcp));
	tcp.th_sum = sum_of(bytes, length, IPPROTO_TCP, from, to);
	memcpy(bytes, &tcp, sizeof(tcp));
	return send_packet(from, to, IPPROTO_TCP, bytes, length);
}

bool tcp_forge_reset(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port, uint32_t seq,
        uint32_t ack)
{
	const struct tcphdr tcp = {
		.th_seq = htonl(seq), .th_ack = htonl(ack), .th_off = sizeof(tcp) / 4, .th_flags = TH_RST | TH_ACK
	};

	return tcp_forge_header(from, from_port, to, to_port, (const uint8_t *)&tcp, sizeof(tcp)) == 0;
}

/* The TCP header's first words, of which all errors tell. */
struct quoted {
	uint16_t source, destination;
	uint32_t seq;
};

static bool too_big_v4(const struct addr *sender, const struct addr *receiver, const struct quoted *tcp, uint32_t mtu)
{
	struct {
		struct icmphdr icmp;
		struct iphdr ip;
		struct quoted tcp;
	} error = { .icmp = { .type = ICMP_DEST_UNREACH, .code = ICMP_FRAG_NEEDED },
		.ip = ip_v4(sender, receiver, IPPROTO_TCP),
		.tcp = *tcp };

	error.icmp.un.frag.mtu = htons(mtu < UINT16_MAX ? (uint16_t)mtu : UINT16_MAX);
	error.ip.tot_len = htons(mtu < UINT16_MAX ? (uint16_t)(mtu + 1) : UINT16_MAX);
	error.ip.check = sum_end(sum_add(0, &error.ip, sizeof(error.ip)));
	error.icmp.checksum = sum_end(sum_add(0, &error, sizeof(error)));
	return send_packet(receiver, sender, IPPROTO_ICMP, (const uint8_t *)&error, sizeof(error)) == 0;
}

static bool too_big_v6(const struct addr *sender, const struct addr *receiver, const struct quoted *tcp, uint32_t mtu)
{
	struct {
		struct icmp6_hdr icmp;
		struct ip6_hdr ip;
		struct quoted tcp;
	} error = { .icmp = { .icmp6_type = ICMP6_PACKET_TOO_BIG },
		.ip = ip_v6(sender, receiver, IPPROTO_TCP, mtu < UINT16_MAX ? mtu : UINT16_MAX),
		.tcp = *tcp };

	error.icmp.icmp6_mtu = htonl(mtu);
	error.icmp.icmp6_cksum = sum_of((const uint8_t *)&error, sizeof(error), IPPROTO_ICMPV6, receiver, sender);
	return send_packet(receiver, sender, IPPROTO_ICMPV6, (const uint8_t *)&error, sizeof(error)) == 0;
}

bool tcp_forge_too_big(const struct addr *sender, uint16_t sender_port, const struct addr *receiver,
        uint16_t receiver_port, uint32_t seq, uint32_t mtu)
{
	const struct quoted tcp = { htons(sender_port), htons(receiver_port), htonl(seq) };

	return sender->family == AF_INET ? too_big_v4(sender, receiver, &tcp, mtu)
	                                 : too_big_v6(sender, receiver, &tcp, mtu);
}
