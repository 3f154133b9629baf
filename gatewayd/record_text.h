/*
 * A record of a flow as one line of JSON (docs/records.md), put together by
 * hand: a busy gateway has twenty thousand a second. Pure.
 */
#ifndef GW_RECORD_TEXT_H
#define GW_RECORD_TEXT_H

#include <net/if.h>
#include <stddef.h>

#include "gatewayd/base/stats_record.h"
#include "schema/flow_field.h"

/* The longest line: a name of which every byte is escaped, three addresses, all the rest. */
#define RECORD_TEXT_MAX 2048

/* A record with what its numbers mean now. */
struct record_view {
	const struct stats_record *record;
	const char *listener, *upstream; /* NULL: none, or gone */
	char interface[IF_NAMESIZE];     /* "": not known */
	int64_t clock_ms;                /* what CLOCK_MONOTONIC lags behind the time of day */
};

/* Bits 1 << enum flow_field. */
#define RECORD_TEXT_ALL ((UINT32_C(1) << FLOW_FIELDS) - 1)

/* Writes the line, with its line break and a terminator. Its length without that. */
size_t record_text(const struct record_view *view, uint32_t fields, char ret[RECORD_TEXT_MAX]);

#endif
