/*
 * Bodies of answers that are asked for again and again: a row as JSON text.
 * Rows never change, a write makes another one: as long as a row is referred
 * to from here, its address says that it is the same. Called by rest.c; freed
 * by http.c. Bounded: what does not fit is encoded each time.
 */
#ifndef GW_WEBAPI_KEPT_H
#define GW_WEBAPI_KEPT_H

#include "webapi/message.h"

/* A server's bodies, at most KEPT_BODIES of KEPT_BODY_MAX bytes: 256 KiB. */
#define KEPT_BODIES   64
#define KEPT_BODY_MAX ((size_t)4096)

struct kept;

/* NULL when memory is out. */
struct kept *kept_new(void);
void kept_free(struct kept *kept);

/* Fills the response (200, JSON) with a copy of the row's body. 1, 0 (there is none), -ENOMEM. */
int kept_answer(const struct kept *kept, const struct row *row, struct response *response);
/* Keeps a copy of the response's body as the row's; when memory is out nothing is kept. */
void kept_put(struct kept *kept, const struct row *row, const struct response *response);

#endif
