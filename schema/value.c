/* The rules of single values; see value.h. */
#include "schema/value.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <string.h>

#include "gatewayd/base/addr.h"

void value_pointer(char buffer[VALUE_POINTER_MAX], const char *base, const char *member)
{
	/* Always fits, as both come from the tables; a cut pointer would still be a string. */
	if (snprintf(buffer, VALUE_POINTER_MAX, "%s/%s", base, member) >= VALUE_POINTER_MAX)
		buffer[VALUE_POINTER_MAX - 1] = '\0';
}

void value_pointer_item(char buffer[VALUE_POINTER_MAX], const char *base, size_t index)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%zu", index);
	value_pointer(buffer, base, digits);
}

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool value_is_name(const char *text)
{
	size_t length = strlen(text);

	if (length == 0 || length > NAME_MAX_BYTES)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_lower_or_digit(text[i]) && text[i] != '-')
			return false;
	return text[0] != '-' && text[length - 1] != '-';
}

int value_name(const char *text, const char *pointer, struct errs *errs)
{
	if (value_is_name(text))
		return 0;
	errs_add(errs, pointer, strlen(text) > NAME_MAX_BYTES ? "too_long" : "bad_name",
	        "a name has 1 to %d of a-z 0-9 and '-', with a letter or digit at both ends", NAME_MAX_BYTES);
	return -EINVAL;
}

size_t value_character(const char *text, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *at = (const unsigned char *)text;
	size_t length = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
	uint32_t code = length == 1 ? at[0] : at[0] & (0xffu >> (length + 1));

	if ((at[0] >= 0x80 && at[0] < 0xc0) || at[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3fu);
	}
	if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret = code;
	return length;
}

static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

int value_text(const struct field *field, const char *text, const char *pointer, struct errs *errs)
{
	size_t length = strlen(text), step;
	uint32_t code = 0;

	if ((int64_t)length > field->max) {
		errs_add(errs, pointer, "too_long", "%zu bytes, at most %" PRId64 " are allowed", length, field->max);
		return -EINVAL;
	}
	for (size_t i = 0; i < length; i += step) {
		step = value_character(text + i, &code);
		if (step == 0 || is_control(code)) {
			errs_add(errs, pointer, "bad_value", "a control character or invalid UTF-8 at byte %zu", i);
			return -EINVAL;
		}
	}
	return 0;
}

int value_int(const struct field *field, int64_t value, const char *pointer, struct errs *errs)
{
	if (value >= field->min && value <= field->max)
		return 0;
	errs_add(errs, pointer, "out_of_range", "%" PRId64 " is not within %" PRId64 " to %" PRId64, value, field->min,
	        field->max);
	return -EINVAL;
}

/* ::ffff:0:0/96 stands for IPv4 inside a program and never in a packet. */
static bool is_mapped(const struct addr *addr)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return addr->family == AF_INET6 && memcmp(addr->bytes, head, sizeof(head)) == 0;
}

/* Why a target cannot have this address, or NULL. */
static const char *address_unfit(const struct addr *addr)
{
	static const uint8_t zero[16] = { 0 };

	if (is_mapped(addr))
		return "an IPv4 address in IPv6 form; write it as IPv4";
	if (memcmp(addr->bytes, zero, sizeof(zero)) == 0)
		return "the unspecified address";
	if (addr->family == AF_INET)
		return addr->bytes[0] >= 224 ? "a multicast, reserved or broadcast address"
		       : addr->bytes[0] == 0 ? "an address of \"this network\" (0.0.0.0/8)"
		                             : NULL;
	if (addr->bytes[0] == 0xff)
		return "a multicast address";
	if (addr->bytes[0] == 0xfe && (addr->bytes[1] & 0xc0) == 0x80)
		return "a link-local address, which says nothing without an interface";
	return NULL;
}

int value_address(const char *text, char buffer[VALUE_TEXT_MAX], const char *pointer, struct errs *errs)
{
	struct addr addr;
	const char *unfit;

	static_assert(VALUE_TEXT_MAX >= 2 * ADDR_TEXT_MAX + 1, "a range fits");
	if (addr_parse(text, &addr) < 0) {
		errs_add(errs, pointer, "bad_value", "not a numeric IPv4 or IPv6 address");
		return -EINVAL;
	}
	unfit = address_unfit(&addr);
	if (unfit) {
		errs_add(errs, pointer, "bad_value", "%s cannot be a target", unfit);
		return -EINVAL;
	}
	addr_format(&addr, buffer);
	return 0;
}

static int item_interface(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@";
	size_t length = strlen(text);

	if (length >= IFNAMSIZ) {
		errs_add(errs, pointer, "too_long", "an interface name has at most %d bytes", IFNAMSIZ - 1);
		return -EINVAL;
	}
	if (length == 0 || strspn(text, allowed) != length || strcmp(text, ".") == 0 || strcmp(text, "..") == 0) {
		errs_add(errs, pointer, "bad_value", "an interface name is made of a-z A-Z 0-9 . _ - @");
		return -EINVAL;
	}
	memcpy(buffer, text, length + 1);
	return 0;
}

/* "first-last" whose ends are known to be good: one prefix where the range is one, else both ends. */
static void range_format(const char *text, const struct prefix *split, int n, char *buffer)
{
	const char *dash = strchr(text, '-');
	struct addr first, last;
	char half[ADDR_TEXT_MAX];
	size_t length = (size_t)(dash - text);

	if (n == 1) {
		prefix_format(&split[0], buffer);
		return;
	}
	memcpy(half, text, length);
	half[length] = '\0';
	addr_parse(half, &first);
	addr_parse(dash + 1, &last);
	addr_format(&first, buffer);
	length = strlen(buffer);
	buffer[length] = '-';
	addr_format(&last, buffer + length + 1);
}

static int item_range(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	struct prefix split[PREFIX_RANGE_MAX];
	int n = strlen(text) < VALUE_TEXT_MAX ? prefix_range_parse(text, split) : -EINVAL;

	if (n < 1) {
		errs_add(errs, pointer, "bad_value",
		        "not a range \"first-last\" of two addresses of one family in ascending order");
		return -EINVAL;
	}
	if (is_mapped(&split[0].addr) || is_mapped(&split[n - 1].addr)) {
		errs_add(errs, pointer, "bad_value", "IPv4 addresses in IPv6 form never match a packet; write IPv4");
		return -EINVAL;
	}
	range_format(text, split, n, buffer);
	return 0;
}

static int item_prefix(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	struct prefix prefix;
	int r;

	if (strchr(text, '-'))
		return item_range(text, buffer, pointer, errs);
	r = prefix_parse(text, &prefix);
	if (r == -ENOTUNIQ) {
		errs_add(errs, pointer, "host_bits", "bits are set behind the prefix length; is %s meant?",
		        prefix_format(&prefix, buffer));
		return -EINVAL;
	}
	if (r < 0) {
		errs_add(errs, pointer, "bad_value", "not an address, a prefix such as 192.0.2.0/24, or a range");
		return -EINVAL;
	}
	if (is_mapped(&prefix.addr) && prefix.length >= 96) {
		errs_add(errs, pointer, "bad_value", "IPv4 addresses in IPv6 form never match a packet; write IPv4");
		return -EINVAL;
	}
	prefix_format(&prefix, buffer);
	return 0;
}

static int item_ports(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	struct port_range range;

	if (port_range_parse(text, &range) < 0) {
		errs_add(errs, pointer, "bad_value", "not a port \"443\" or a range \"8000-8100\" within 1 to 65535");
		return -EINVAL;
	}
	if (range.lo == range.hi)
		snprintf(buffer, VALUE_TEXT_MAX, "%u", (unsigned)range.lo);
	else
		snprintf(buffer, VALUE_TEXT_MAX, "%u-%u", (unsigned)range.lo, (unsigned)range.hi);
	return 0;
}

int value_item(
        enum item_kind kind, const char *text, char buffer[VALUE_TEXT_MAX], const char *pointer, struct errs *errs)
{
	switch (kind) {
	case ITEM_INTERFACE:
		return item_interface(text, buffer, pointer, errs);
	case ITEM_PREFIX:
		return item_prefix(text, buffer, pointer, errs);
	case ITEM_PORTS:
		return item_ports(text, buffer, pointer, errs);
	case ITEM_KINDS:
		break;
	}
	return -EINVAL;
}

int value_unique(const struct strings *strings, const char *pointer, struct errs *errs)
{
	size_t last = strings->n - 1;

	for (size_t i = 0; i < last; i++)
		if (strcmp(strings->items[i], strings->items[last]) == 0) {
			errs_add(errs, pointer, "duplicate_item", "%s is in the list already", strings->items[last]);
			return -EINVAL;
		}
	return 0;
}

static int check_count(const struct field *field, size_t n, const char *pointer, struct errs *errs)
{
	if ((int64_t)n <= field->max)
		return 0;
	errs_add(errs, pointer, "too_many_items", "%zu items, at most %" PRId64 " are allowed", n, field->max);
	return -EINVAL;
}

static int check_canonical(const char *text, const char *canonical, const char *pointer, struct errs *errs)
{
	if (strcmp(text, canonical) == 0)
		return 0;
	errs_add(errs, pointer, "bad_value", "not in canonical form, which is %s", canonical);
	return -EINVAL;
}

static int check_list(const struct field *field, const struct strings *list, const char *pointer, struct errs *errs)
{
	char canonical[VALUE_TEXT_MAX], item[VALUE_POINTER_MAX];
	int r = check_count(field, list->n, pointer, errs);

	for (size_t i = 0; i < list->n && r == 0; i++) {
		struct strings head = { list->items, i + 1 };

		value_pointer_item(item, pointer, i);
		r = value_item(field->item, list->items[i], canonical, item, errs);
		if (r == 0)
			r = check_canonical(list->items[i], canonical, item, errs);
		if (r == 0)
			r = value_unique(&head, item, errs);
	}
	return r;
}

static int check_address(const char *text, const char *pointer, struct errs *errs)
{
	char canonical[VALUE_TEXT_MAX];
	int r = value_address(text, canonical, pointer, errs);

	return r < 0 ? r : check_canonical(text, canonical, pointer, errs);
}

int value_check(const struct field *field, const struct row *row, const char *pointer, struct errs *errs)
{
	const char *reference;

	switch (field->kind) {
	case FIELD_NAME:
		return value_name(FIELD_AT_CONST(row, field, char), pointer, errs);
	case FIELD_TEXT:
		return value_text(field, *FIELD_AT_CONST(row, field, char *), pointer, errs);
	case FIELD_INT:
	case FIELD_ENUM:
		return value_int(field, *FIELD_AT_CONST(row, field, int64_t), pointer, errs);
	case FIELD_REF:
		reference = *FIELD_AT_CONST(row, field, char *);
		return reference ? value_name(reference, pointer, errs) : 0;
	case FIELD_LIST:
		return check_list(field, FIELD_AT_CONST(row, field, struct strings), pointer, errs);
	case FIELD_ADDRESS:
		return check_address(*FIELD_AT_CONST(row, field, char *), pointer, errs);
	case FIELD_CHILDREN:
		return check_count(field, FIELD_AT_CONST(row, field, struct rows)->n, pointer, errs);
	case FIELD_BOOL:
	case FIELD_KINDS:
		break;
	}
	return 0;
}
