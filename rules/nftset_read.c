/* Elements of our sets from the text that our renderer writes, and their keys as the kernel has them; see nftset.h. */
#include "rules/nftset.h"

#include <errno.h>
#include <string.h>

size_t nftset_field_size(const struct match_shape *shape, enum nftset_field field)
{
	switch (field) {
	case NFTSET_DST:
	case NFTSET_SRC:
		return addr_bits(shape->family) / 8;
	case NFTSET_INTERFACE:
		return IFNAMSIZ;
	case NFTSET_PORT:
		return sizeof(uint16_t);
	case NFTSET_PROTOCOL:
	case NFTSET_FIELDS:
		break;
	}
	return sizeof(uint8_t);
}

size_t nftset_padded(size_t size)
{
	return (size + sizeof(uint32_t) - 1) / sizeof(uint32_t) * sizeof(uint32_t);
}

static void put_field(const struct match_key *key, enum nftset_field field, uint16_t port, uint8_t *at)
{
	switch (field) {
	case NFTSET_DST:
		memcpy(at, key->dst.bytes, addr_bits(key->shape.family) / 8);
		break;
	case NFTSET_SRC:
		memcpy(at, key->src.bytes, addr_bits(key->shape.family) / 8);
		break;
	case NFTSET_INTERFACE:
		memcpy(at, key->interface, IFNAMSIZ);
		break;
	case NFTSET_PORT:
		at[0] = (uint8_t)(port >> 8);
		at[1] = (uint8_t)port;
		break;
	case NFTSET_PROTOCOL:
		*at = key->shape.protocol;
		break;
	case NFTSET_FIELDS:
		break;
	}
}

size_t nftset_key(const struct element *element, bool end, uint8_t buffer[NFTSET_KEY_MAX])
{
	const struct match_key *key = &element->key;
	struct group group = element_group(element);
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(&group, fields), at = 0;

	memset(buffer, 0, NFTSET_KEY_MAX);
	for (size_t i = 0; i < n; i++) {
		size_t size = nftset_field_size(&key->shape, fields[i]);

		put_field(key, fields[i], end ? key->port_hi : key->port_lo, buffer + at);
		at += n == 1 ? size : nftset_padded(size);
	}
	return at;
}

static int parse_value(char *text, enum nftset_field field, struct match_key *key)
{
	unsigned lo, hi;
	int n;

	switch (field) {
	case NFTSET_DST:
		return addr_parse(text, &key->dst);
	case NFTSET_SRC:
		return addr_parse(text, &key->src);
	case NFTSET_INTERFACE:
		return sscanf(text, "\"%15[^\"]\"", key->interface) == 1 ? 0 : -EINVAL;
	case NFTSET_PORT:
		n = sscanf(text, "%u-%u", &lo, &hi);
		if (n < 1)
			return -EINVAL;
		key->port_lo = (uint16_t)lo;
		key->port_hi = n == 2 ? (uint16_t)hi : (uint16_t)lo;
		return 0;
	case NFTSET_PROTOCOL:
	case NFTSET_FIELDS:
		break;
	}
	return 0;
}

int nftset_parse_element(char *line, const struct group *group, struct element *ret)
{
	const struct match_shape *shape = &group->shape;
	char *leads = strstr(line, " : goto "), *save = NULL;
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(group, fields);
	int r = 0;

	*ret = (struct element){ .key = { .shape = *shape, .dst.family = shape->family, .src.family = shape->family },
		.verdict = group->verdict,
		.limited = group->verdict == VERDICT_LIMITED,
		.own_range = group->port_hi > 0 };
	ret->key.port_lo = group->port_lo;
	ret->key.port_hi = shape->port_kind == MATCH_PORT_ANY ? UINT16_MAX : group->port_hi;
	line[strcspn(line, ",")] = '\0';
	if (leads) {
		*leads = '\0';
		r = limits_listener_of_chain(leads + strlen(" : goto "), &ret->listener);
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		char *word = strtok_r(i ? NULL : line, " ", &save);

		if (i > 0)
			word = strtok_r(NULL, " ", &save); /* behind the dot */
		r = word ? parse_value(word, fields[i], &ret->key) : -EINVAL;
	}
	return r;
}
