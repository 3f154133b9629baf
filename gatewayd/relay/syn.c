/* SYNs; see syn.h. */
#include "gatewayd/relay/syn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#define SCALE_MAX 14

/* One option at `at`; where the next one is, or `length`: there is none. */
static size_t option_read(const uint8_t *header, size_t length, size_t at, struct syn *ret)
{
	uint8_t kind = header[at], size;

	if (kind == TCPOPT_NOP)
		return at + 1;
	if (kind == TCPOPT_EOL || at + 1 >= length)
		return length;
	size = header[at + 1];
	if (size < 2 || at + size > length)
		return length;
	if (kind == TCPOPT_WINDOW && size == TCPOLEN_WINDOW)
		ret->scale = header[at + 2] < SCALE_MAX ? header[at + 2] : SCALE_MAX;
	if (kind == TCPOPT_MAXSEG && size == TCPOLEN_MAXSEG) {
		ret->mss = (uint16_t)(header[at + 2] << 8 | header[at + 3]);
		ret->mss_at = (uint16_t)(at + 2);
	}
	return at + size;
}

int syn_read(const uint8_t *header, size_t length, struct syn *ret)
{
	struct tcphdr tcp;

	*ret = (struct syn){ 0 };
	if (length < sizeof(tcp) || length > SYN_HEADER_MAX)
		return -EBADMSG;
	memcpy(&tcp, header, sizeof(tcp));
	if (tcp.th_off * 4U != length)
		return -EBADMSG;
	ret->seq = ntohl(tcp.th_seq);
	for (size_t at = sizeof(tcp); at < length;)
		at = option_read(header, length, at, ret);
	return 0;
}

void syn_set_mss(uint8_t *header, const struct syn *syn, uint16_t mss)
{
	header[syn->mss_at] = (uint8_t)(mss >> 8);
	header[syn->mss_at + 1] = (uint8_t)mss;
}
