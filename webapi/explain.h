/* POST /explain: what would happen to a packet. Called through routes.def. */
#ifndef GW_WEBAPI_EXPLAIN_H
#define GW_WEBAPI_EXPLAIN_H

#include "webapi/message.h"

/* Route handler: 0 with the response filled, -ENOMEM. */
int explain_post(const struct request *request, struct response *response);
/* Reads a packet's members from a body that may have n_more others, named in `more`; what they say is the caller's.
 * Faults go to errs. */
void explain_read_packet(const json_t *body, const char *const *more, size_t n_more, struct match_packet *packet,
        uint16_t *ret_port, struct errs *errs);

#endif
