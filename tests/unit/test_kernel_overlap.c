/*
 * Overlapping listeners and real packets: random sets of listeners are put
 * into the kernel, packets are sent at an interface, and the element whose
 * counter moved must belong to the listener that the reference names. In a
 * network namespace of the test's own, where each interface is one end of a
 * veth pair and packets are sent from the other. Skipped without the right.
 */
#include "rules_reference.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rules/kernel.h"
#include "rules/nftset.h"

#define ROUNDS  amount(10, 25)
#define PACKETS 20

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };
static const char *const interfaces[] = { "eth0", "eth1", "lan.5", "wan" };

static int setup(void **state)
{
	struct kernel *kernel = NULL;
	char command[256];

	if (unshare(CLONE_NEWNET) < 0) {
		print_message("SKIP: no right to make a network namespace\n");
		return 0;
	}
	/* Without any IPv4 address at all, the kernel takes every address for a broadcast one. */
	assert_int_equal(system("ip link set lo up"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++) {
		snprintf(command, sizeof(command),
		        "ip link add %s address 02:00:00:00:00:01 type veth peer name far%zu &&"
		        "ip link set %s up && ip link set far%zu up",
		        interfaces[i], i, interfaces[i], i);
		assert_int_equal(system(command), 0);
	}
	assert_int_equal(kernel_open(&kernel), 0);
	*state = kernel;
	return 0;
}

static int teardown(void **state)
{
	kernel_free(*state);
	return 0;
}

static uint16_t checksum(const void *data, size_t size)
{
	uint32_t sum = 0;
	uint16_t word;

	for (size_t i = 0; i + 1 < size; i += 2) {
		memcpy(&word, (const char *)data + i, 2);
		sum += word;
	}
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

static size_t put_transport(const struct match_packet *packet, unsigned char *to)
{
	struct tcphdr tcp = {
		.source = htons(40000), .dest = htons(packet->dst_port), .doff = 5, .syn = 1, .window = 1
	};
	struct udphdr udp = { .source = htons(40000), .dest = htons(packet->dst_port), .len = htons(sizeof(udp)) };

	if (packet->protocol == IPPROTO_TCP)
		memcpy(to, &tcp, sizeof(tcp));
	else
		memcpy(to, &udp, sizeof(udp));
	return packet->protocol == IPPROTO_TCP ? sizeof(tcp) : sizeof(udp);
}

/* The frame of a bare SYN or an empty datagram; its length. */
static size_t make_frame(const struct match_packet *packet, unsigned char frame[128])
{
	struct ether_header ether = { { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 }, htons(ETHERTYPE_IP) };
	struct iphdr v4 = { .version = 4, .ihl = 5, .ttl = 64, .protocol = packet->protocol };
	struct ip6_hdr v6 = { .ip6_nxt = packet->protocol, .ip6_hlim = 64 };
	bool is_v4 = packet->dst.family == AF_INET;
	size_t head = sizeof(ether) + (is_v4 ? sizeof(v4) : sizeof(v6)), size = put_transport(packet, frame + head);

	if (is_v4) {
		v4.tot_len = htons((uint16_t)(sizeof(v4) + size));
		memcpy(&v4.saddr, packet->src.bytes, 4);
		memcpy(&v4.daddr, packet->dst.bytes, 4);
		v4.check = checksum(&v4, sizeof(v4));
		memcpy(frame + sizeof(ether), &v4, sizeof(v4));
	} else {
		ether.ether_type = htons(ETHERTYPE_IPV6);
		v6.ip6_vfc = 6 << 4; /* a member of a union with the others: not in the initializer */
		v6.ip6_plen = htons((uint16_t)size);
		memcpy(&v6.ip6_src, packet->src.bytes, 16);
		memcpy(&v6.ip6_dst, packet->dst.bytes, 16);
		memcpy(frame + sizeof(ether), &v6, sizeof(v6));
	}
	memcpy(frame, &ether, sizeof(ether));
	return head + size;
}

static void send_packet(const struct match_packet *packet)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	unsigned char frame[128];
	size_t size = make_frame(packet, frame);
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	char far[IFNAMSIZ];

	for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++)
		if (strcmp(interfaces[i], packet->interface) == 0)
			snprintf(far, sizeof(far), "far%zu", i);
	to.sll_ifindex = (int)if_nametoindex(far);
	assert_true(fd >= 0);
	assert_int_equal(sendto(fd, frame, size, 0, (struct sockaddr *)&to, sizeof(to)), (ssize_t)size);
	close(fd);
}

static json_t *list_table(void)
{
	FILE *pipe = popen("nft -j list table inet gatewayd", "re");
	json_t *listing = json_loadf(pipe, 0, NULL);

	pclose(pipe);
	assert_non_null(listing);
	return listing;
}

/* A part of a key in nft's JSON, as our renderer writes it. */
static void put_part(FILE *out, json_t *value)
{
	json_t *range = json_object_get(value, "range");

	if (json_is_string(value))
		fputs(json_string_value(value), out);
	else if (range)
		fprintf(out, "%lld-%lld", json_integer_value(json_array_get(range, 0)),
		        json_integer_value(json_array_get(range, 1)));
	else
		fprintf(out, "%lld", json_integer_value(value));
}

/* "SET: PART . PART" of an element of nft's JSON. */
static char *text_of_json(json_t *set, json_t *val)
{
	json_t *concat = json_object_get(val, "concat"), *part;
	char *text = NULL;
	size_t length, i;
	FILE *out = open_memstream(&text, &length);

	assert_non_null(out);
	fprintf(out, "%s: ", json_string_value(json_object_get(set, "name")));
	json_array_foreach(concat, i, part)
	{
		fputs(i ? " . " : "", out);
		put_part(out, part);
	}
	if (!concat)
		put_part(out, val);
	fclose(out);
	return text;
}

/* The same of one of the model's, from the statement "add element inet gatewayd SET {\n PART . PART\n}\n". */
static char *text_of_element(const struct element *element)
{
	char *text = NULL, *to, *from;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_int_equal(nftset_put_elements(out, "add", element, 1), 0);
	fclose(out);
	from = text + strlen("add element inet gatewayd ");
	for (to = text; strcmp(from, "\n}\n") != 0; from++)
		if (*from == '{')
			to[-1] = ':';
		else if (*from != '"' && *from != '\n')
			*to++ = *from;
	*to = '\0';
	return text;
}

/* The only element that counted a packet, as text; NULL if none did. Each round of packets begins with a fresh table,
 * and what was counted before is in `seen`. */
static char *find_moved(json_t *seen)
{
	json_t *listing = list_table(), *object, *set, *elem;
	char *moved = NULL;
	size_t i, k;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		set = json_object_get(object, "set");
		/* The ledger's elements count every packet, and are no choices. */
		if (set && strcmp(json_string_value(json_object_get(set, "name")), "ledger") == 0)
			continue;
		json_array_foreach(json_object_get(set, "elem"), k, elem)
		{
			json_t *body = json_object_get(elem, "elem");
			json_t *packets = json_object_get(json_object_get(body, "counter"), "packets");
			char *text = body ? text_of_json(set, json_object_get(body, "val")) : NULL;

			if (text && json_integer_value(packets) != json_integer_value(json_object_get(seen, text))) {
				json_object_set(seen, text, packets);
				assert_null(moved);
				moved = TAKE_PTR(text);
			}
			free(text);
		}
	}
	json_decref(listing);
	return moved;
}

static uint32_t owner_of(const struct model *model, const char *text)
{
	struct elements elements;
	uint32_t owner = 0;

	assert_int_equal(model_elements(model, &elements), 0);
	for (size_t i = 0; i < elements.n; i++) {
		_cleanup_free_ char *one = text_of_element(&elements.items[i]);

		if (strcmp(one, text) == 0)
			owner = elements.items[i].listener;
	}
	free(elements.items);
	if (owner == 0)
		fail_msg("no listener has the element %s", text);
	return owner;
}

/* Which listener's element counted the packet; 0: none. A packet may take a moment to arrive. */
static uint32_t ask_kernel(const struct model *model, json_t *seen, const struct match_packet *packet, bool expected)
{
	send_packet(packet);
	for (unsigned attempts = 0; attempts < (expected ? 50U : 1U); attempts++) {
		_cleanup_free_ char *moved = find_moved(seen);

		if (moved)
			return owner_of(model, moved);
		usleep(10000);
	}
	return 0;
}

static void check_packet(const struct model *model, json_t *seen, const struct match_packet *packet, uint32_t wanted)
{
	uint32_t chosen = ask_kernel(model, seen, packet, wanted != 0);
	char src[ADDR_TEXT_MAX], dst[ADDR_TEXT_MAX];

	if (chosen != wanted)
		fail_msg("protocol %u, %s to %s, port %u on %s: %u instead of %u", packet->protocol,
		        addr_format(&packet->src, src), addr_format(&packet->dst, dst), packet->dst_port,
		        packet->interface, chosen, wanted);
}

static struct snapshot *random_listeners(struct model *model)
{
	struct snapshot *at = snapshot_new();

	for (unsigned i = 0; i < 16; i++) {
		struct snapshot *to = snapshot_edit(at, i + 1);

		fixture_put(to, fixture_random_listener(i));
		if (fixture_apply(model, at, to) == 0) {
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		snapshot_unref(to);
	}
	return at;
}

static void the_kernel_chooses_as_the_reference(void **state)
{
	struct kernel *kernel = *state;
	unsigned hits = 0;

	if (!kernel)
		skip();
	for (unsigned round = 0; round < ROUNDS; round++) {
		_cleanup_free_ char *text = NULL;
		json_t *seen = json_object();
		struct snapshot *snapshot;
		struct model *model;

		plan_own_range_min(1 + fixture_random(4));
		assert_int_equal(model_new(&model), 0);
		snapshot = random_listeners(model);
		assert_int_equal(render_nft_full(model, &params, 1, &text), 0);
		assert_int_equal(kernel_nft_commit(kernel, text, NULL), 0);
		for (unsigned i = 0; i < PACKETS; i++) {
			struct match_packet packet = reference_packet();
			uint32_t wanted = reference_winner(snapshot, &packet);

			check_packet(model, seen, &packet, wanted);
			hits += wanted != 0;
		}
		json_decref(seen);
		model_free(model);
		snapshot_unref(snapshot);
	}
	print_message("%u packets, %u of them won by a listener\n", ROUNDS * PACKETS, hits);
	assert_true(hits > ROUNDS * PACKETS / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_chooses_as_the_reference),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
