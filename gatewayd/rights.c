/* The daemon's capabilities; see rights.h. */
#include "gatewayd/rights.h"

#include <linux/capability.h>
#include <stdint.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/isolate.h"

static const struct {
	unsigned number;
	const char *name;
} kept[] = {
	{ CAP_NET_ADMIN, "CAP_NET_ADMIN" },               /* nft, rules and routes, transparent sockets, marks */
	{ CAP_NET_RAW, "CAP_NET_RAW" },                   /* handed to the relay, which binds clients' addresses */
	{ CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE" }, /* and UDP servers' addresses, with their low ports */
	{ CAP_BPF, "CAP_BPF" },                           /* programs and maps */
	{ CAP_PERFMON, "CAP_PERFMON" },                   /* programs that read kernel structures */
	{ CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE" },         /* limits of descriptors and of locked memory */
	{ CAP_SETUID, "CAP_SETUID" },                     /* the relay runs under a user of its own */
	{ CAP_SETGID, "CAP_SETGID" }, { CAP_SETPCAP, "CAP_SETPCAP" }, /* and with a smaller bounding set */
	{ CAP_KILL, "CAP_KILL" },                                     /* and is ended by us nevertheless */
};

static uint64_t mask_of_kept(void)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		mask |= UINT64_C(1) << kept[i].number;
	return mask;
}

int rights_reduce(void)
{
	return isolate_keep(mask_of_kept());
}

json_t *rights_status(void)
{
	uint64_t now = isolate_capabilities();
	json_t *names = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (now >> kept[i].number & 1 && json_array_append_new(names, json_string(kept[i].name)) < 0) {
			json_decref(names);
			return NULL;
		}
	return json_pack("{s:o, s:i}", "capabilities", names, "others", __builtin_popcountll(now & ~mask_of_kept()));
}
