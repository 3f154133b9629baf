/* Handlers of what has been counted: /stats and what is below it, /metrics. */
#ifndef GW_WEBAPI_FIGURES_H
#define GW_WEBAPI_FIGURES_H

#include "webapi/message.h"

/* ?limit= : how many of the busiest listeners, upstreams and targets. */
#define FIGURES_BUSIEST_DEFAULT 20
/* The default step of the history, in seconds: 360 points. */
#define FIGURES_STEP_DEFAULT 10

/* /stats */
int figures_stats(const struct request *request, struct response *response);
/* /stats/listeners, /stats/upstreams, /stats/targets */
int figures_page(const struct request *request, struct response *response);
/* /stats/history */
int figures_history(const struct request *request, struct response *response);
/* /stats/ledger */
int figures_ledger(const struct request *request, struct response *response);
/* /metrics */
int figures_metrics(const struct request *request, struct response *response);

#endif
