/*
 * A growing text, for documents that are written at one go and need no tree
 * in memory. A lack of memory is remembered and asked for once, at the end.
 */
#ifndef GW_SCHEMA_TEXT_H
#define GW_SCHEMA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/cleanup.h"

struct text {
	char *bytes; /* with a terminator, or NULL if nothing was written yet */
	size_t n, capacity;
	bool failed; /* memory was out: what follows is dropped */
};

/* Each appends: bytes as they are, a string, a number in decimal. */
void text_bytes(struct text *text, const char *bytes, size_t n);
void text_add(struct text *text, const char *string);
void text_number(struct text *text, int64_t value);
/* As a JSON string with quotes; UTF-8 stays as it is. */
void text_json(struct text *text, const char *string);
/* Empties the text and keeps the memory for the next one. */
void text_restart(struct text *text);
void text_clear(struct text *text);

#define _cleanup_text_ _cleanup_(text_clear)

#endif
