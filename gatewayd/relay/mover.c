/* Names of why a mover was chosen; see mover.h. */
#include "gatewayd/relay/mover.h"

#include <assert.h>

#include "gatewayd/base/cleanup.h"

const char *mover_reason_name(enum mover_reason reason)
{
	static const char *const names[] = {
		[MOVER_REASON_START] = "start",
		[MOVER_REASON_FORCED] = "forced",
		[MOVER_REASON_MUCH] = "much",
		[MOVER_REASON_LITTLE] = "little",
		[MOVER_REASON_NO_PIPE] = "no_pipe",
		[MOVER_REASON_URGENT] = "urgent",
		[MOVER_REASON_STEADY] = "steady",
		[MOVER_REASON_NO_MAP] = "no_map",
	};

	static_assert(ARRAY_SIZE(names) == MOVER_REASONS, "one name per reason");
	return names[reason < MOVER_REASONS ? reason : MOVER_REASON_START];
}
