/*
 * Any bytes as what the kernel says about a received datagram: reading the
 * control messages never leaves them, and what is accepted is consistent.
 * The input: flags, length and source (a family and a port), then the control
 * messages as they lie in memory.
 */
#include "gatewayd/relay/udp_inbox.h"

#include "fuzz.h"

#define HEAD 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_storage name = { 0 };
	struct udp_datagram datagram;
	struct msghdr message = { .msg_name = &name };
	struct addr addr = { .family = AF_INET };
	uint32_t length;
	void *control;

	if (size < HEAD)
		return 0;
	addr.family = data[0] & 1 ? AF_INET6 : AF_INET;
	message.msg_flags = (data[1] & 1 ? MSG_TRUNC : 0) | (data[1] & 2 ? MSG_CTRUNC : 0);
	length = (uint32_t)(data[2] << 16 | data[3] << 8 | data[4]);
	message.msg_namelen = addr_to_sockaddr(&addr, (uint16_t)(data[5] << 8 | data[6]), &name);
	if (data[0] & 2)
		message.msg_namelen = data[7];
	/* Memory of its own, so that a read beyond it is seen. */
	control = malloc(size - HEAD + 1);
	FUZZ_EXPECT(control);
	memcpy(control, data + HEAD, size - HEAD);
	message.msg_control = control;
	message.msg_controllen = size - HEAD;
	if (udp_datagram_parse(&message, length, &datagram) == 0) {
		FUZZ_EXPECT(!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
		FUZZ_EXPECT(datagram.length == length && length <= UDP_DATAGRAM_MAX);
		FUZZ_EXPECT(datagram.segment == 0 || datagram.segment < datagram.length);
		FUZZ_EXPECT(datagram.source.family == addr.family && datagram.source_port != 0);
		FUZZ_EXPECT(!udp_datagram_is_addressed(&datagram) || datagram.original.family == addr.family);
	}
	free(control);
	return 0;
}
