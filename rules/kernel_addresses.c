/*
 * What lies in a set whose elements are single addresses: the sources of a
 * rate limit, bans. Called through kernel_nft.c.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

#include "rules/kernel_ops.h"

struct look {
	kernel_address_visitor visitor;
	void *userdata;
};

struct found {
	struct addr addr;
	int64_t left_ms;
	bool has_address;
};

static int take_value(const struct nlattr *attribute, void *data)
{
	struct found *found = data;
	size_t length = mnl_attr_get_payload_len(attribute);

	if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE || (length != 4 && length != 16))
		return MNL_CB_OK;
	found->addr.family = length == 4 ? AF_INET : AF_INET6;
	memcpy(found->addr.bytes, mnl_attr_get_payload(attribute), length);
	found->has_address = true;
	return MNL_CB_OK;
}

static int take_attribute(const struct nlattr *attribute, void *data)
{
	struct found *found = data;

	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_KEY)
		return mnl_attr_parse_nested(attribute, take_value, found);
	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_EXPIRATION && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0)
		found->left_ms = (int64_t)be64toh(mnl_attr_get_u64(attribute));
	return MNL_CB_OK;
}

static int take_element(void *userdata, const struct nlattr *element)
{
	const struct look *look = userdata;
	struct found found = { .left_ms = -1 };

	(void)mnl_attr_parse_nested(element, take_attribute, &found);
	return found.has_address ? look->visitor(look->userdata, &found.addr, found.left_ms) : 0;
}

static int take_left(void *userdata, const struct addr *addr, int64_t left_ms)
{
	(void)addr;
	*(int64_t *)userdata = left_ms;
	return 0;
}

int kernel_address_find(const char *set, const struct addr *addr, int64_t *ret_left_ms)
{
	int64_t left_ms = 0;
	struct look look = { take_left, &left_ms };
	int r = kernel_elements_walk(set, addr->bytes, addr_bits(addr->family) / 8, take_element, &look);

	if (r == 0)
		*ret_left_ms = left_ms;
	return r;
}

/* An element may be missed, or told twice, when the set is changed meanwhile; packets do that all the time. */
int kernel_addresses_read(const char *set, kernel_address_visitor visitor, void *userdata)
{
	struct look look = { visitor, userdata };
	int r = kernel_elements_walk(set, NULL, 0, take_element, &look);

	return r == -EINTR ? 0 : r;
}
