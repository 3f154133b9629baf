/* The bytes, see frame.h. */
#include "rules/frame.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

/* A unicast address of no maker, for both ends: not zero, and not a group's. */
static const uint8_t mac[ETH_ALEN] = { 2, 0, 0, 0, 0, 1 };

static size_t put_transport(const struct match_packet *packet, uint16_t source_port, uint8_t *at)
{
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr tcp = {
			.source = htons(source_port), .dest = htons(packet->dst_port), .doff = 5, .syn = 1
		};

		tcp.window = htons(UINT16_MAX);
		memcpy(at, &tcp, sizeof(tcp));
		return sizeof(tcp);
	}
	struct udphdr udp = { .source = htons(source_port), .dest = htons(packet->dst_port), .len = htons(8) };

	memcpy(at, &udp, sizeof(udp));
	return sizeof(udp);
}

static size_t put_v4(const struct match_packet *packet, uint16_t source_port, uint8_t *at)
{
	size_t rest = put_transport(packet, source_port, at + sizeof(struct iphdr));
	struct iphdr ip = { .version = 4,
		.ihl = 5,
		.ttl = 64,
		.protocol = packet->protocol,
		.tot_len = htons((uint16_t)(sizeof(ip) + rest)) };

	memcpy(&ip.saddr, packet->src.bytes, sizeof(ip.saddr));
	memcpy(&ip.daddr, packet->dst.bytes, sizeof(ip.daddr));
	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip) + rest;
}

static size_t put_v6(const struct match_packet *packet, uint16_t source_port, uint8_t *at)
{
	size_t rest = put_transport(packet, source_port, at + sizeof(struct ip6_hdr));
	struct ip6_hdr ip = { 0 };

	ip.ip6_vfc = 6 << 4;
	ip.ip6_plen = htons((uint16_t)rest);
	ip.ip6_nxt = packet->protocol;
	ip.ip6_hlim = 64;
	memcpy(&ip.ip6_src, packet->src.bytes, sizeof(ip.ip6_src));
	memcpy(&ip.ip6_dst, packet->dst.bytes, sizeof(ip.ip6_dst));
	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip) + rest;
}

size_t frame_build(const struct match_packet *packet, uint16_t source_port, uint8_t ret[FRAME_MAX])
{
	bool is_v4 = packet->dst.family == AF_INET;
	struct ethhdr ethernet = { .h_proto = htons(is_v4 ? ETH_P_IP : ETH_P_IPV6) };

	memcpy(ethernet.h_dest, mac, ETH_ALEN);
	memcpy(ethernet.h_source, mac, ETH_ALEN);
	memcpy(ret, &ethernet, sizeof(ethernet));
	return sizeof(ethernet) + (is_v4 ? put_v4 : put_v6)(packet, source_port, ret + sizeof(ethernet));
}
