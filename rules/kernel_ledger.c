/*
 * What the ledger's set has counted, by interface; see ledger.h. Called
 * through kernel_nft.c.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/cleanup.h"
#include "rules/kernel_ops.h"
#include "rules/ledger.h"

/* The key: the interface's name, filled up with zeros, and the outcome in the host's byte order. */
struct key {
	char interface[IFNAMSIZ];
	uint32_t outcome;
};

struct found {
	struct key key;
	struct ledger_count count;
	bool has_key;
};

struct gathered {
	struct ledger_counts *items;
	size_t n, size;
};

static int take_key(const struct nlattr *attribute, void *data)
{
	struct found *found = data;

	if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE ||
	        mnl_attr_get_payload_len(attribute) != sizeof(found->key))
		return MNL_CB_OK;
	memcpy(&found->key, mnl_attr_get_payload(attribute), sizeof(found->key));
	found->has_key = memchr(found->key.interface, '\0', IFNAMSIZ) != NULL;
	return MNL_CB_OK;
}

static int take_count(const struct nlattr *attribute, void *data)
{
	struct found *found = data;
	int type = mnl_attr_get_type(attribute);

	if (mnl_attr_validate(attribute, MNL_TYPE_U64) < 0)
		return MNL_CB_OK;
	if (type == NFTA_COUNTER_PACKETS)
		found->count.packets = be64toh(mnl_attr_get_u64(attribute));
	else if (type == NFTA_COUNTER_BYTES)
		found->count.bytes = be64toh(mnl_attr_get_u64(attribute));
	return MNL_CB_OK;
}

static int take_expression(const struct nlattr *attribute, void *data)
{
	return mnl_attr_get_type(attribute) == NFTA_EXPR_DATA ? mnl_attr_parse_nested(attribute, take_count, data)
	                                                      : MNL_CB_OK;
}

static int take_attribute(const struct nlattr *attribute, void *data)
{
	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_KEY)
		return mnl_attr_parse_nested(attribute, take_key, data);
	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_EXPR)
		return mnl_attr_parse_nested(attribute, take_expression, data);
	return MNL_CB_OK;
}

static struct ledger_counts *place_of(struct gathered *all, const char *interface)
{
	for (size_t i = 0; i < all->n; i++)
		if (strcmp(all->items[i].interface, interface) == 0)
			return &all->items[i];
	if (array_reserve(&all->items, &all->size, all->n + 1, sizeof(*all->items)) < 0)
		return NULL;
	all->items[all->n] = (struct ledger_counts){ 0 };
	memcpy(all->items[all->n].interface, interface, IFNAMSIZ);
	return &all->items[all->n++];
}

/* An element that is told twice is the same one. */
static int take_element(void *userdata, const struct nlattr *element)
{
	struct found found = { 0 };
	struct ledger_counts *place;

	(void)mnl_attr_parse_nested(element, take_attribute, &found);
	if (!found.has_key || found.key.outcome >= LEDGER_IN_TABLE)
		return 0;
	place = place_of(userdata, found.key.interface);
	if (!place)
		return -ENOMEM;
	place->outcome[found.key.outcome] = found.count;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct ledger_counts *x = a, *y = b;

	return strcmp(x->interface, y->interface);
}

int kernel_ledger_read(struct ledger_counts **ret, size_t *ret_n)
{
	struct gathered all = { 0 };
	int r = kernel_elements_walk(LEDGER_SET, NULL, 0, take_element, &all);

	if (r < 0 && r != -ENOENT && r != -EINTR) {
		free(all.items);
		return r;
	}
	if (all.n > 1)
		qsort(all.items, all.n, sizeof(*all.items), compare);
	*ret = all.items;
	*ret_n = all.n;
	return 0;
}
