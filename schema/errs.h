/*
 * A collection of faults in somebody's input, gathered so that all of them
 * can be answered at once (RFC 9457 `errors`). Filled by decode, check, plan
 * and the core; rendered by webapi. Never logged.
 */
#ifndef GW_SCHEMA_ERRS_H
#define GW_SCHEMA_ERRS_H

#include <stddef.h>

#include "gatewayd/base/cleanup.h"

/* More faults than this in one request are counted, but not told one by one: an answer must stay readable. */
#define ERRS_MAX 64
/* Longest pointer or detail in bytes; longer ones are cut between characters. Keeps the answer to a hostile request
 * small. */
#define ERRS_TEXT_MAX 1024

struct err {
	char *pointer; /* RFC 6901, e.g. "/ports/0"; "" for the whole document */
	char *code;    /* stable word for programs, e.g. "out_of_range" */
	char *detail;  /* sentence for people */
};

struct errs {
	struct err items[ERRS_MAX];
	size_t n;       /* items filled */
	size_t dropped; /* faults beyond ERRS_MAX, or lost to a lack of memory */
};

/* Records a fault; the pointer is copied, the detail formatted. Out of memory only counts it as dropped. */
void errs_add(struct errs *errs, const char *pointer, const char *code, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/* Frees the texts and empties the collection; a zeroed struct is an empty one. */
void errs_clear(struct errs *errs);

/* How many faults were added, told or dropped. */
static inline size_t errs_count(const struct errs *errs)
{
	return errs->n + errs->dropped;
}

#define _cleanup_errs_ _cleanup_(errs_clear)

#endif
