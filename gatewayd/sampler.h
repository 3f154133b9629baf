/*
 * Looks at the counters once a second: rates over the last seconds, of the
 * whole and of each listener, upstream and target, and the last hour
 * (trend.h). Started by daemon.c; asked by the documents of the API.
 */
#ifndef GW_SAMPLER_H
#define GW_SAMPLER_H

#include <systemd/sd-event.h>

#include "gatewayd/trend.h"
#include "gatewayd/worker.h"

/* Rates are averages over this many seconds. */
#define SAMPLER_WINDOW_S 5

/* Per second. */
struct sampler_rates {
	double flows_opened, bytes_to_target, bytes_to_client;
};

struct sampler;

/* directory: where the history is kept; NULL: nowhere. 0 or negative errno. */
int sampler_new(sd_event *event, const struct worker *worker, const char *directory, struct sampler **ret);
void sampler_free(struct sampler *sampler);
/* Of everything. Zeros until there is something to compare with. */
void sampler_total(const struct sampler *sampler, struct sampler_rates *ret);
/* Of one object. */
void sampler_object(const struct sampler *sampler, uint32_t slot, uint32_t id, struct sampler_rates *ret);
const struct trend *sampler_trend(const struct sampler *sampler);

#endif
