/*
 * Putting a JSON document together member by member, with one look at the end
 * whether memory was out: what core_*.c have in common.
 */
#ifndef GW_DOCUMENT_H
#define GW_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Takes value over, also on failure; a NULL value or object makes the document NULL in the end through `failed`. */
static inline void document_set(json_t *object, const char *key, json_t *value, bool *failed)
{
	if (json_object_set_new(object, key, value) < 0)
		*failed = true;
}

/* The document, or NULL (then it is released). */
static inline json_t *document_done(json_t *document, bool failed)
{
	if (!failed)
		return document;
	json_decref(document);
	return NULL;
}

/* A counter, new; those beyond what JSON's integers hold stay at the greatest. */
static inline json_t *document_number(uint64_t value)
{
	return json_integer((json_int_t)(value < INT64_MAX ? value : INT64_MAX));
}

#endif
