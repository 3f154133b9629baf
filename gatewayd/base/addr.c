/* Parsers and printers of addresses, prefixes and port ranges; see addr.h. */
#include "gatewayd/base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

unsigned addr_bits(uint8_t family)
{
	return family == AF_INET6 ? 128 : 32;
}

static size_t addr_size(uint8_t family)
{
	return addr_bits(family) / 8;
}

int addr_parse(const char *text, struct addr *ret)
{
	struct addr addr = { .family = strchr(text, ':') ? AF_INET6 : AF_INET };

	if (inet_pton(addr.family, text, addr.bytes) != 1)
		return -EINVAL;
	*ret = addr;
	return 0;
}

const char *addr_format(const struct addr *addr, char *buffer)
{
	if (!inet_ntop(addr->family, addr->bytes, buffer, ADDR_TEXT_MAX))
		strcpy(buffer, "?");
	return buffer;
}

const char *addr_format_end(const struct addr *addr, uint16_t port, char *buffer)
{
	char address[ADDR_TEXT_MAX] = "";

	if (addr->family)
		addr_format(addr, address);
	snprintf(buffer, ADDR_END_MAX, addr->family == AF_INET6 ? "[%s]:%u" : "%s:%u", address, (unsigned)port);
	return buffer;
}

int addr_compare(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, addr_size(a->family));
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_compare(a, b) == 0;
}

int addr_from_sockaddr(const struct sockaddr_storage *sa, struct addr *ret, uint16_t *ret_port)
{
	struct addr addr = { .family = (uint8_t)sa->ss_family };

	if (sa->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		memcpy(addr.bytes, &in->sin_addr, 4);
		*ret_port = ntohs(in->sin_port);
	} else if (sa->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;

		memcpy(addr.bytes, &in6->sin6_addr, 16);
		*ret_port = ntohs(in6->sin6_port);
	} else {
		return -EAFNOSUPPORT;
	}
	*ret = addr;
	return 0;
}

socklen_t addr_to_sockaddr(const struct addr *addr, uint16_t port, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (addr->family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		memcpy(&in6->sin6_addr, addr->bytes, 16);
		return sizeof(*in6);
	}
	struct sockaddr_in *in = (struct sockaddr_in *)ret;

	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	memcpy(&in->sin_addr, addr->bytes, 4);
	return sizeof(*in);
}

void addr_mask(struct addr *addr, unsigned length)
{
	size_t size = addr_size(addr->family), byte = length / 8;

	if (byte >= size)
		return;
	addr->bytes[byte] &= (uint8_t)(0xff00U >> (length % 8));
	memset(addr->bytes + byte + 1, 0, size - byte - 1);
}

/* One to `digits` decimal digits and nothing else, without a leading zero, at most max. -EINVAL else. */
static int number_parse(const char *text, size_t length, unsigned max, unsigned *ret)
{
	unsigned value = 0;

	if (length == 0 || length > 5 || (length > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (value > max)
		return -EINVAL;
	*ret = value;
	return 0;
}

/* Copies text[0..length) with a terminator; -EINVAL if it cannot be an address or prefix for its length. */
static int text_cut(const char *text, size_t length, char buffer[ADDR_TEXT_MAX])
{
	if (length == 0 || length >= ADDR_TEXT_MAX)
		return -EINVAL;
	memcpy(buffer, text, length);
	buffer[length] = '\0';
	return 0;
}

int prefix_parse(const char *text, struct prefix *ret)
{
	const char *slash = strchrnul(text, '/');
	struct prefix prefix = { 0 };
	char head[ADDR_TEXT_MAX];
	struct addr full;
	unsigned length;

	if (text_cut(text, (size_t)(slash - text), head) < 0 || addr_parse(head, &prefix.addr) < 0)
		return -EINVAL;
	length = addr_bits(prefix.addr.family);
	if (*slash == '/' && number_parse(slash + 1, strlen(slash + 1), length, &length) < 0)
		return -EINVAL;
	prefix.length = (uint8_t)length;
	full = prefix.addr;
	addr_mask(&prefix.addr, length);
	*ret = prefix;
	return addr_equal(&full, &prefix.addr) ? 0 : -ENOTUNIQ;
}

const char *prefix_format(const struct prefix *prefix, char *buffer)
{
	addr_format(&prefix->addr, buffer);
	if (prefix->length < addr_bits(prefix->addr.family)) {
		size_t used = strlen(buffer);

		snprintf(buffer + used, ADDR_TEXT_MAX - used, "/%u", prefix->length);
	}
	return buffer;
}

bool prefix_contains(const struct prefix *prefix, const struct addr *addr)
{
	struct addr masked = *addr;

	addr_mask(&masked, prefix->length);
	return addr_equal(&masked, &prefix->addr);
}

/* The last address of the prefix of this length that begins at addr. */
static struct addr prefix_last(const struct addr *addr, unsigned length)
{
	struct addr last = *addr;

	for (unsigned bit = length; bit < addr_bits(addr->family); bit++)
		last.bytes[bit / 8] |= (uint8_t)(0x80U >> (bit % 8));
	return last;
}

/* Adds one; false when the address was the family's last. */
static bool addr_increment(struct addr *addr)
{
	for (size_t i = addr_size(addr->family); i-- > 0;)
		if (++addr->bytes[i] != 0)
			return true;
	return false;
}

/* The greatest prefix that begins at `first` and does not reach beyond `last`. */
static struct prefix range_head(const struct addr *first, const struct addr *last)
{
	struct prefix best = { .addr = *first, .length = (uint8_t)addr_bits(first->family) };

	while (best.length > 0) {
		unsigned length = best.length - 1U;
		struct addr masked = *first, end = prefix_last(first, length);

		addr_mask(&masked, length);
		if (!addr_equal(&masked, first) || addr_compare(&end, last) > 0)
			break;
		best.length = (uint8_t)length;
	}
	return best;
}

int prefix_range_parse(const char *text, struct prefix ret[PREFIX_RANGE_MAX])
{
	const char *dash = strchr(text, '-');
	char head[ADDR_TEXT_MAX];
	struct addr first, last;
	int n = 0;

	if (!dash) {
		struct prefix single;

		if (prefix_parse(text, &single) < 0)
			return -EINVAL;
		ret[0] = single;
		return 1;
	}
	if (text_cut(text, (size_t)(dash - text), head) < 0 || addr_parse(head, &first) < 0 ||
	        addr_parse(dash + 1, &last) < 0)
		return -EINVAL;
	if (first.family != last.family || addr_compare(&first, &last) > 0)
		return -EINVAL;
	do {
		ret[n] = range_head(&first, &last);
		first = prefix_last(&first, ret[n].length);
		n++;
	} while (addr_compare(&first, &last) < 0 && addr_increment(&first));
	return n;
}

unsigned port_block_bits(uint32_t port, uint32_t last)
{
	unsigned bits = 0;

	while (bits < 16 && port % (2U << bits) == 0 && port + (2U << bits) - 1 <= last)
		bits++;
	return bits;
}

int port_range_parse(const char *text, struct port_range *ret)
{
	const char *dash = strchrnul(text, '-');
	unsigned lo, hi;

	if (number_parse(text, (size_t)(dash - text), UINT16_MAX, &lo) < 0)
		return -EINVAL;
	hi = lo;
	if (*dash == '-' && number_parse(dash + 1, strlen(dash + 1), UINT16_MAX, &hi) < 0)
		return -EINVAL;
	if (lo == 0 || lo > hi)
		return -EINVAL;
	ret->lo = (uint16_t)lo;
	ret->hi = (uint16_t)hi;
	return 0;
}
