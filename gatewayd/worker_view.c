/* What is told of the relay and its worker; see worker.h. */
#include "gatewayd/worker_private.h"

#include <assert.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"

enum worker_state worker_state(const struct worker *worker)
{
	return worker->state;
}

const char *worker_state_name(enum worker_state state)
{
	static const char *const names[] = { "down", "starting", "configuring", "running" };

	static_assert(ARRAY_SIZE(names) == WORKER_STATES, "one name for each state");
	return names[state];
}

int32_t worker_pid(const struct worker *worker)
{
	return worker->pid;
}

int64_t worker_generation(const struct worker *worker)
{
	return worker->generation;
}

bool worker_overloaded(const struct worker *worker)
{
	return worker->overloaded;
}

bool worker_found_serves(const struct worker *worker)
{
	return !worker->is_child && !worker->foreign && !worker->handing_over &&
	       (worker->state == WORKER_STARTING || worker->state == WORKER_CONFIGURING);
}

const struct proto_enclosed *worker_enclosed(const struct worker *worker)
{
	return &worker->enclosed;
}

uint64_t worker_restarts(const struct worker *worker)
{
	return worker->restarts;
}

uint64_t worker_handovers(const struct worker *worker)
{
	return worker->handovers;
}

uint64_t worker_uptime_s(const struct worker *worker)
{
	return worker->pid ? (clock_us() - worker->started_us) / 1000000 : 0;
}

const struct stats_memory *worker_stats(const struct worker *worker)
{
	return meter_memory(worker->meter);
}

const struct meter *worker_meter(const struct worker *worker)
{
	return worker->meter;
}

const struct movers *worker_movers(const struct worker *worker)
{
	return worker->movers;
}

unsigned worker_threads(const struct worker *worker)
{
	return worker->threads;
}
