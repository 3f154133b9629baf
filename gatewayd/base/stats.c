/* Names and docs of the counters; see stats.h. */
#include "gatewayd/base/stats.h"

#include <assert.h>

#include "gatewayd/base/cleanup.h"

static const struct {
	const char *name, *doc;
} stats_rows[] = {
#define STAT(member, unit, doc) { #member, doc },
#include "gatewayd/base/stats.def"
#undef STAT
};
static_assert(ARRAY_SIZE(stats_rows) == STATS_COUNTERS, "one row per counter");

const char *stats_name(enum stats_counter counter)
{
	return stats_rows[counter].name;
}

const char *stats_doc(enum stats_counter counter)
{
	return stats_rows[counter].doc;
}
