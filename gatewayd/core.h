/*
 * Implementation side of webapi/core.h: the rules of a write (existence,
 * preconditions, references between resources) before it becomes a
 * transaction, and the reads.
 */
#ifndef GW_CORE_H
#define GW_CORE_H

#include "gatewayd/apply.h"
#include "gatewayd/worker.h"
#include "webapi/core.h"

struct core {
	struct apply *apply;
	struct worker *worker;
	struct kernel *kernel;
	const struct options *options;
	uint64_t started_us; /* CLOCK_MONOTONIC */
};

#endif
