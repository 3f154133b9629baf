/* What the items of lists must look like, and their canonical text; see value.h. */
#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include "schema/flow_field.h"
#include "schema/value.h"

/* ::ffff:0:0/96 stands for IPv4 inside a program and never in a packet. */
bool value_is_mapped(const struct addr *addr)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return addr->family == AF_INET6 && memcmp(addr->bytes, head, sizeof(head)) == 0;
}

static bool is_interface(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@";
	size_t length = strlen(text);

	return length > 0 && length < IFNAMSIZ && strspn(text, allowed) == length && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static int check_interface(const char *text, const char *pointer, struct errs *errs)
{
	if (is_interface(text))
		return 0;
	if (strlen(text) >= IFNAMSIZ)
		errs_add(errs, pointer, "too_long", "an interface name has at most %d bytes", IFNAMSIZ - 1);
	else
		errs_add(errs, pointer, "bad_value", "an interface name is made of a-z A-Z 0-9 . _ - @");
	return -EINVAL;
}

bool value_names_row(const struct resource *resource, const char *text)
{
	return resource->fields[0].flags & FLAG_INTERFACE ? is_interface(text) : value_is_name(text);
}

int value_row_name(const struct field *field, const char *text, const char *pointer, struct errs *errs)
{
	if (field->flags & FLAG_INTERFACE)
		return check_interface(text, pointer, errs);
	return value_name(text, pointer, errs);
}

static int item_interface(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	if (check_interface(text, pointer, errs) < 0)
		return -EINVAL;
	memcpy(buffer, text, strlen(text) + 1);
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
	if (value_is_mapped(&split[0].addr) || value_is_mapped(&split[n - 1].addr)) {
		errs_add(errs, pointer, "bad_value", "IPv4 addresses in IPv6 form never match a packet; write IPv4");
		return -EINVAL;
	}
	range_format(text, split, n, buffer);
	return 0;
}

/* "@name": what a set of addresses holds, by reference. */
static int item_set(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	if (!value_is_name(text + 1)) {
		errs_add(errs, pointer, "bad_value", "after @ stands the name of an address set");
		return -EINVAL;
	}
	memcpy(buffer, text, strlen(text) + 1);
	return 0;
}

static int item_prefix(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	struct prefix prefix;
	int r;

	if (text[0] == '@')
		return item_set(text, buffer, pointer, errs);
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
	if (value_is_mapped(&prefix.addr) && prefix.length >= 96) {
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

/* Whether the text is a DNS name of labels of a-z 0-9 - _, in any case. */
static bool is_host(const char *text)
{
	size_t label = 0;

	if (!*text || strlen(text) > 253)
		return false;
	for (; *text; text++) {
		if (*text == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", *text) ||
		           ++label > 63) {
			return false;
		}
	}
	return label > 0;
}

static int item_host(const char *text, char *buffer, const char *pointer, struct errs *errs)
{
	if (!is_host(strncmp(text, "*.", 2) == 0 ? text + 2 : text)) {
		errs_add(errs, pointer, "bad_value", "not a host name such as www.example.com, or *.example.com");
		return -EINVAL;
	}
	for (; *text; text++)
		*buffer++ = *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text;
	*buffer = '\0';
	return 0;
}

/* Visible ASCII without what JSON would have to escape. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text >= 0x7f || *text == '"' || *text == '\\')
			return false;
	return true;
}

static int item_text(
        const char *text, char *buffer, bool fits, const char *what, const char *pointer, struct errs *errs)
{
	if (!fits || strlen(text) >= VALUE_TEXT_MAX || !is_plain(text)) {
		errs_add(errs, pointer, "bad_value", "%s", what);
		return -EINVAL;
	}
	memcpy(buffer, text, strlen(text) + 1);
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
	case ITEM_HOST:
		return item_host(text, buffer, pointer, errs);
	case ITEM_ALPN:
		return item_text(text, buffer, *text && strlen(text) <= 32,
		        "a protocol name has 1 to 32 visible ASCII characters", pointer, errs);
	case ITEM_METHOD:
		return item_text(text, buffer,
		        *text && strlen(text) <= 32 && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == strlen(text),
		        "a method is in upper case, such as GET", pointer, errs);
	case ITEM_PATH:
		return item_text(text, buffer, *text == '/' && !strpbrk(text, "?#"),
		        "a path begins with / and has at most 255 visible ASCII characters, no \" \\ ? and #", pointer,
		        errs);
	case ITEM_FLOW_FIELD:
		return item_text(text, buffer, flow_field_of_word(text) < FLOW_FIELDS,
		        "no field that a record of a flow has", pointer, errs);
	case ITEM_KINDS:
		break;
	}
	return -EINVAL;
}
