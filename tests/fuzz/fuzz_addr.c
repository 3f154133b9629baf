/*
 * Text from outside as addresses, prefixes, ranges, ports, bulk documents and
 * times: what is taken has one canonical text that is taken again as the same;
 * a range's prefixes cover it without gap or overlap.
 */
#include <errno.h>

#include "gatewayd/base/addr.h"
#include "schema/prefixes.h"
#include "schema/value.h"
#include "tests/fuzz/fuzz.h"

static void try_addr(const char *text)
{
	char buffer[ADDR_TEXT_MAX];
	struct addr addr, again;

	if (addr_parse(text, &addr) < 0)
		return;
	FUZZ_EXPECT(addr_parse(addr_format(&addr, buffer), &again) == 0);
	FUZZ_EXPECT(addr_equal(&addr, &again) && addr_compare(&addr, &again) == 0);
}

static void try_prefix(const char *text)
{
	char buffer[ADDR_TEXT_MAX];
	struct prefix prefix, again;
	int r = prefix_parse(text, &prefix);

	FUZZ_EXPECT(r == 0 || r == -EINVAL || r == -ENOTUNIQ);
	if (r == -EINVAL)
		return;
	FUZZ_EXPECT(prefix.length <= addr_bits(prefix.addr.family));
	FUZZ_EXPECT(prefix_parse(prefix_format(&prefix, buffer), &again) == 0);
	FUZZ_EXPECT(again.length == prefix.length && addr_equal(&again.addr, &prefix.addr));
	FUZZ_EXPECT(prefix_contains(&prefix, &prefix.addr));
}

/* The address behind the last of a prefix; false if there is none. */
static bool next_after(const struct prefix *prefix, struct addr *ret)
{
	unsigned bits = prefix->length;

	*ret = prefix->addr;
	while (bits > 0) {
		uint8_t bit = (uint8_t)(0x80 >> ((bits - 1) % 8));

		ret->bytes[(bits - 1) / 8] ^= bit;
		if (ret->bytes[(bits - 1) / 8] & bit)
			return true;
		bits--;
	}
	return false;
}

static void try_range(const char *text)
{
	struct prefix parts[PREFIX_RANGE_MAX];
	int n = prefix_range_parse(text, parts);
	struct addr next;

	FUZZ_EXPECT(n > 0 || n == -EINVAL || n == -ENOTUNIQ);
	FUZZ_EXPECT(n <= PREFIX_RANGE_MAX);
	for (int i = 0; i + 1 < n; i++)
		FUZZ_EXPECT(next_after(&parts[i], &next) && addr_equal(&next, &parts[i + 1].addr));
}

static void try_ports(const char *text)
{
	struct port_range range;

	if (port_range_parse(text, &range) == 0)
		FUZZ_EXPECT(range.lo >= 1 && range.lo <= range.hi);
}

static void try_time(const char *text)
{
	int64_t time, again;
	char buffer[32];

	if (value_time_parse(text, &time) < 0 || time < 1 || time > FIELD_TIME_MAX)
		return;
	FUZZ_EXPECT(value_time_parse(value_time_format(time, buffer), &again) == 0 && again == time);
}

static void try_items(const char *text)
{
	for (int kind = 0; kind < ITEM_KINDS; kind++) {
		_cleanup_errs_ struct errs errs = { 0 };
		char canonical[VALUE_TEXT_MAX], again[VALUE_TEXT_MAX];

		if (value_item((enum item_kind)kind, text, canonical, "/x", &errs) < 0) {
			FUZZ_EXPECT(errs.n > 0);
			continue;
		}
		FUZZ_EXPECT(value_item((enum item_kind)kind, canonical, again, "/x", &errs) == 0);
		FUZZ_EXPECT(strcmp(canonical, again) == 0);
	}
}

static void try_bulk(const char *text, size_t size)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct prefixes set = { 0 }, again = { 0 };
	char *written = NULL;
	size_t length;

	if (prefixes_parse(text, size, &errs, &set) < 0) {
		FUZZ_EXPECT(errs.n > 0);
		return;
	}
	FUZZ_EXPECT(prefixes_are_canonical(&set));
	FUZZ_EXPECT(prefixes_format(&set, &written, &length) == 0);
	FUZZ_EXPECT(prefixes_parse(written, length, &errs, &again) == 0);
	FUZZ_EXPECT(prefixes_equal(&set, &again));
	free(written);
	prefixes_clear(&set);
	prefixes_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);

	try_addr(text);
	try_prefix(text);
	try_range(text);
	try_ports(text);
	try_time(text);
	try_items(text);
	try_bulk(text, size);
	free(text);
	return 0;
}
