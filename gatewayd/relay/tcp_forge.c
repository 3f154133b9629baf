/* Resets made by hand; see tcp_forge.h. */
#include "gatewayd/relay/tcp_forge.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HOPS 64

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

static void tcp_fill(struct tcphdr *tcp, uint16_t from_port, uint16_t to_port, uint32_t seq, uint32_t ack,
        const struct addr *from, const struct addr *to)
{
	size_t bytes = from->family == AF_INET ? 4 : 16;
	uint32_t sum;

	*tcp = (struct tcphdr){ .th_sport = htons(from_port),
		.th_dport = htons(to_port),
		.th_seq = htonl(seq),
		.th_ack = htonl(ack),
		.th_off = sizeof(*tcp) / 4,
		.th_flags = TH_RST | TH_ACK };
	sum = sum_add(IPPROTO_TCP + sizeof(*tcp), from->bytes, bytes);
	sum = sum_add(sum, to->bytes, bytes);
	tcp->th_sum = sum_end(sum_add(sum, tcp, sizeof(*tcp)));
}

static bool send_v4(const struct addr *from, const struct addr *to, const struct tcphdr *tcp)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} packet = { .ip = { .version = 4,
		             .ihl = sizeof(packet.ip) / 4,
		             .frag_off = htons(IP_DF),
		             .ttl = HOPS,
		             .protocol = IPPROTO_TCP },
		.tcp = *tcp };

	/* The kernel fills length and checksum in. */
	memcpy(&packet.ip.saddr, from->bytes, sizeof(packet.ip.saddr));
	memcpy(&packet.ip.daddr, to->bytes, sizeof(packet.ip.daddr));
	memcpy(&sa.sin_addr, to->bytes, sizeof(sa.sin_addr));
	return sendto(raw_v4, &packet, sizeof(packet), MSG_DONTWAIT, (const struct sockaddr *)&sa, sizeof(sa)) ==
	       sizeof(packet);
}

static bool send_v6(const struct addr *from, const struct addr *to, const struct tcphdr *tcp)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6 };
	struct {
		struct ip6_hdr ip;
		struct tcphdr tcp;
	} packet = { .tcp = *tcp };

	packet.ip.ip6_vfc = 6 << 4;
	packet.ip.ip6_plen = htons(sizeof(*tcp));
	packet.ip.ip6_nxt = IPPROTO_TCP;
	packet.ip.ip6_hlim = HOPS;
	memcpy(&packet.ip.ip6_src, from->bytes, sizeof(packet.ip.ip6_src));
	memcpy(&packet.ip.ip6_dst, to->bytes, sizeof(packet.ip.ip6_dst));
	memcpy(&sa.sin6_addr, to->bytes, sizeof(sa.sin6_addr));
	return sendto(raw_v6, &packet, sizeof(packet), MSG_DONTWAIT, (const struct sockaddr *)&sa, sizeof(sa)) ==
	       sizeof(packet);
}

bool tcp_forge_reset(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port, uint32_t seq,
        uint32_t ack)
{
	struct tcphdr tcp;

	tcp_fill(&tcp, from_port, to_port, seq, ack, from, to);
	return from->family == AF_INET ? send_v4(from, to, &tcp) : send_v6(from, to, &tcp);
}
