/* Packets made by hand; see tcp_forge.h. */
#include "gatewayd/relay/tcp_forge.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HOPS       64
#define HEADER_MAX 60

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

/* The checksum of a header that has none yet. */
static uint16_t tcp_sum(const uint8_t *header, size_t length, const struct addr *from, const struct addr *to)
{
	size_t bytes = from->family == AF_INET ? 4 : 16;
	uint32_t sum = sum_add(IPPROTO_TCP + (uint32_t)length, from->bytes, bytes);

	sum = sum_add(sum, to->bytes, bytes);
	return sum_end(sum_add(sum, header, length));
}

/* Whether `length` bytes went out. */
static int send_all(int fd, const void *packet, size_t length, const void *to, socklen_t to_length)
{
	ssize_t n = sendto(fd, packet, length, MSG_DONTWAIT, to, to_length);

	return n < 0 ? -errno : (size_t)n == length ? 0 : -EIO;
}

static int send_v4(const struct addr *from, const struct addr *to, const uint8_t *header, size_t length)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct {
		struct iphdr ip;
		uint8_t tcp[HEADER_MAX];
	} packet = { .ip = { .version = 4,
		             .ihl = sizeof(packet.ip) / 4,
		             .frag_off = htons(IP_DF),
		             .ttl = HOPS,
		             .protocol = IPPROTO_TCP } };

	/* The kernel fills length and checksum in. */
	memcpy(&packet.ip.saddr, from->bytes, sizeof(packet.ip.saddr));
	memcpy(&packet.ip.daddr, to->bytes, sizeof(packet.ip.daddr));
	memcpy(&sa.sin_addr, to->bytes, sizeof(sa.sin_addr));
	memcpy(packet.tcp, header, length);
	return send_all(raw_v4, &packet, sizeof(packet.ip) + length, &sa, sizeof(sa));
}

static int send_v6(const struct addr *from, const struct addr *to, const uint8_t *header, size_t length)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
	struct {
		struct ip6_hdr ip;
		uint8_t tcp[HEADER_MAX];
	} packet = { 0 };

	packet.ip.ip6_vfc = 6 << 4;
	packet.ip.ip6_plen = htons((uint16_t)length);
	packet.ip.ip6_nxt = IPPROTO_TCP;
	packet.ip.ip6_hlim = HOPS;
	memcpy(&packet.ip.ip6_src, from->bytes, sizeof(packet.ip.ip6_src));
	memcpy(&packet.ip.ip6_dst, to->bytes, sizeof(packet.ip.ip6_dst));
	memcpy(&sa.sin6_addr, to->bytes, sizeof(sa.sin6_addr));
	memcpy(packet.tcp, header, length);
	return send_all(raw_v6, &packet, sizeof(packet.ip) + length, &sa, sizeof(sa));
}

int tcp_forge_header(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port,
        const uint8_t *header, size_t length)
{
	uint8_t bytes[HEADER_MAX];
	struct tcphdr tcp;

	if (length < sizeof(tcp) || length > sizeof(bytes))
		return -EINVAL;
	memcpy(bytes, header, length);
	memcpy(&tcp, header, sizeof(tcp));
	tcp.th_sport = htons(from_port);
	tcp.th_dport = htons(to_port);
	tcp.th_sum = 0;
	memcpy(bytes, &tcp, sizeof(tcp));
	tcp.th_sum = tcp_sum(bytes, length, from, to);
	memcpy(bytes, &tcp, sizeof(tcp));
	return from->family == AF_INET ? send_v4(from, to, bytes, length) : send_v6(from, to, bytes, length);
}

bool tcp_forge_reset(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port, uint32_t seq,
        uint32_t ack)
{
	const struct tcphdr tcp = {
		.th_seq = htonl(seq), .th_ack = htonl(ack), .th_off = sizeof(tcp) / 4, .th_flags = TH_RST | TH_ACK
	};

	return tcp_forge_header(from, from_port, to, to_port, (const uint8_t *)&tcp, sizeof(tcp)) == 0;
}
