/* The rules of single values; see value.h. */
#include "schema/value.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "schema/prefixes.h"

void value_pointer(char buffer[VALUE_POINTER_MAX], const char *base, const char *member)
{
	/* Always fits, as both come from the tables; a cut pointer would still be a string. */
	if (snprintf(buffer, VALUE_POINTER_MAX, "%s/%s", base, member) >= VALUE_POINTER_MAX)
		buffer[VALUE_POINTER_MAX - 1] = '\0';
}

void value_pointer_field(char buffer[VALUE_POINTER_MAX], const char *base, const struct field *field)
{
	char group[VALUE_POINTER_MAX];

	if (!field->group) {
		value_pointer(buffer, base, field->key);
		return;
	}
	value_pointer(group, base, field->group);
	value_pointer(buffer, group, field->key);
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

/* Why a target cannot have this address, or NULL. */
static const char *address_unfit(const struct addr *addr)
{
	static const uint8_t zero[16] = { 0 };

	if (value_is_mapped(addr))
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
		if (field->kind == FIELD_NAMES) {
			r = value_name(list->items[i], item, errs);
			memcpy(canonical, list->items[i], r < 0 ? 0 : strlen(list->items[i]) + 1);
		} else {
			r = value_item(field->item, list->items[i], canonical, item, errs);
		}
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

static int check_name(const struct field *field, const char *text, const char *pointer, struct errs *errs)
{
	if (!(field->flags & FLAG_FIXED))
		return value_row_name(field, text, pointer, errs);
	if (strcmp(text, field->initial_text) == 0)
		return 0;
	errs_add(errs, pointer, "bad_name", "there is only the one row %s", field->initial_text);
	return -EINVAL;
}

static int check_time(const struct field *field, int64_t value, const char *pointer, struct errs *errs)
{
	return value == 0 ? 0 : value_int(field, value, pointer, errs);
}

static int check_prefixes(
        const struct field *field, const struct prefixes *prefixes, const char *pointer, struct errs *errs)
{
	if (check_count(field, prefixes->n, pointer, errs) < 0)
		return -EINVAL;
	if (prefixes_are_canonical(prefixes))
		return 0;
	errs_add(errs, pointer, "bad_value", "not sorted, or a prefix stands twice or has bits behind its length");
	return -EINVAL;
}

int value_check(const struct field *field, const struct row *row, const char *pointer, struct errs *errs)
{
	const char *reference;

	switch (field->kind) {
	case FIELD_NAME:
		return check_name(field, FIELD_AT_CONST(row, field, char), pointer, errs);
	case FIELD_TEXT:
		return value_text(field, *FIELD_AT_CONST(row, field, char *), pointer, errs);
	case FIELD_INT:
	case FIELD_ENUM:
		return value_int(field, *FIELD_AT_CONST(row, field, int64_t), pointer, errs);
	case FIELD_REF:
		reference = *FIELD_AT_CONST(row, field, char *);
		return reference ? value_name(reference, pointer, errs) : 0;
	case FIELD_LIST:
	case FIELD_NAMES:
		return check_list(field, FIELD_AT_CONST(row, field, struct strings), pointer, errs);
	case FIELD_TIME:
		return check_time(field, *FIELD_AT_CONST(row, field, int64_t), pointer, errs);
	case FIELD_PREFIXES:
		return check_prefixes(field, FIELD_AT_CONST(row, field, struct prefixes), pointer, errs);
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

/* ---- time ---- */

/* "+02:00" or "Z" as seconds; -EINVAL for anything else. */
static int parse_offset(const char *text, int64_t *ret)
{
	int hours = 0, minutes = 0, length = 0;

	if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0) {
		*ret = 0;
		return 0;
	}
	if ((*text != '+' && *text != '-') || strspn(text + 1, "0123456789:") != 5 ||
	        sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &length) != 2 || length != 5 || text[6] || hours > 23 ||
	        minutes > 59)
		return -EINVAL;
	*ret = (hours * 60 + minutes) * (*text == '-' ? -60 : 60);
	return 0;
}

int value_time_parse(const char *text, int64_t *ret)
{
	static const char shape[] = "0000-00-00T00:00:00";
	struct tm tm = { 0 }, again;
	int64_t offset, time;
	time_t local;

	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		if (shape[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i])
			return -EINVAL;
	sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
	        &tm.tm_sec);
	tm.tm_year -= 1900;
	tm.tm_mon--;
	again = tm;
	local = timegm(&again);
	if (again.tm_mday != tm.tm_mday || again.tm_mon != tm.tm_mon || again.tm_hour != tm.tm_hour ||
	        again.tm_min != tm.tm_min || again.tm_sec != tm.tm_sec ||
	        parse_offset(text + sizeof(shape) - 1, &offset) < 0)
		return -EINVAL;
	time = (int64_t)local - offset;
	if (time < 1 || time > FIELD_TIME_MAX)
		return -EINVAL;
	*ret = time;
	return 0;
}

const char *value_time_format(int64_t time, char *buffer)
{
	time_t seconds = (time_t)time;
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(buffer, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return buffer;
}
