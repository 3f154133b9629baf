/* Peers that are trusted; see trust.h. */
#include "gatewayd/relay/trust.h"

#include <errno.h>

#include "gatewayd/base/match.h"

void trust_clear(struct trust *trust)
{
	match_table_free(trust->prefixes);
	*trust = (struct trust){ 0 };
}

/* A classification by nothing but the source. */
int trust_add(struct trust *trust, const struct prefix *prefix)
{
	struct match_key key = { .shape = { .protocol = IPPROTO_TCP,
		                         .family = prefix->addr.family,
		                         .src_len = prefix->length,
		                         .port_kind = MATCH_PORT_ANY },
		.dst.family = prefix->addr.family,
		.src = prefix->addr,
		.port_hi = UINT16_MAX };

	if (!trust->prefixes && match_table_new(&trust->prefixes) < 0)
		return -ENOMEM;
	return match_table_put(trust->prefixes, &key, 1);
}

bool trust_has(const struct trust *trust, const struct addr *peer)
{
	const struct match_packet packet = { .protocol = IPPROTO_TCP, .dst.family = peer->family, .src = *peer };
	uint32_t value;

	return trust->prefixes && match_table_find(trust->prefixes, &packet, &value) > 0;
}
