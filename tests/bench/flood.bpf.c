/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The bench's flood: gives each frame of a test run another source and sends it
 * out of an interface, and swallows what comes in at those it is attached to.
 * One program for both: the kernel writes its calls of a program anew when a
 * test run begins and ends, and stops all processors for it, unless the program
 * is attached somewhere. Run by gwflood.c.
 */
#include <linux/bpf.h>

#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The longest frame. */
#define FLOOD_FRAME_MAX 128
/* Bytes that a frame is longer when it gets here. */
#define FLOOD_SPARE 2
/* Where the frames of a test run come from: the loopback interface. */
#define FLOOD_TEST_RUN       1
#define FLOOD_PROCESSORS_MAX 64

const volatile __u32 target = 0;    /* interface to send from; 0: none, each frame ends where it was made */
const volatile __u32 threads = 1;   /* of processors from the first on */
const volatile __u32 sources = 1;   /* addresses, from that of the first frame on */
const volatile __u32 at_source = 0; /* its last four bytes */
const volatile __u32 at_transport = 0;
const volatile __u32 at_check = 0;    /* of the transport's sum; 0: it has none */
const volatile __u32 at_ip_check = 0; /* of IPv4's sum; 0: there is none */
const volatile __u32 first_source = 0;
const volatile __u32 length = 0;
/* Frames come back as whoever had them left them, turned into an answer perhaps: each is written anew. */
__u8 first[FLOOD_FRAME_MAX] = { 0 };
/* Of each processor, in a line of the cache of its own. */
struct {
	__u64 sent, swallowed;
	__u64 spare[6];
} counts[FLOOD_PROCESSORS_MAX] = { 0 };

/* What a sum in ones' complement becomes when four bytes that it covers do. */
static __always_inline void update(__u16 *check, __u32 old, __u32 new)
{
	__u64 sum = (__u16) ~*check;

	sum += (__u32)~old;
	sum += new;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*check = (__u16)~sum;
}

static __always_inline __u32 here(void)
{
	return bpf_get_smp_processor_id() % FLOOD_PROCESSORS_MAX;
}

static __always_inline int swallow(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end || ethernet->h_proto == bpf_htons(ETH_P_ARP))
		return XDP_PASS;
	counts[here()].swallowed++;
	return XDP_DROP;
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	__u32 *source, *ports, old_source, old_ports, number;
	__u16 *check, *ip_check;
	void *data, *end;

	if (ctx->ingress_ifindex != FLOOD_TEST_RUN)
		return swallow(ctx);
	/* The kernel forgets the length that a frame was left with only if it is given another one here. */
	if (length > FLOOD_FRAME_MAX || bpf_xdp_adjust_tail(ctx, -FLOOD_SPARE) < 0 ||
	        bpf_xdp_store_bytes(ctx, 0, first, length) < 0)
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	source = data + at_source;
	ports = data + at_transport;
	check = data + at_check;
	ip_check = data + at_ip_check;
	if ((void *)(source + 1) > end || (void *)(ports + 1) > end || (void *)(check + 1) > end ||
	        (void *)(ip_check + 1) > end)
		return XDP_ABORTED;
	number = (__u32)counts[here()].sent++ * threads + here();
	old_source = *source;
	old_ports = *ports;
	*source = bpf_htonl(first_source + number % sources);
	*ports = (old_ports & bpf_htonl(0xffff)) | bpf_htonl((1024 + number / sources % 60000) << 16);
	if (at_check) {
		update(check, old_source, *source);
		update(check, old_ports, *ports);
	}
	if (at_ip_check)
		update(ip_check, old_source, *source);
	return target ? (int)bpf_redirect(target, 0) : XDP_DROP;
}

char flood_license[] SEC("license") = "GPL";
