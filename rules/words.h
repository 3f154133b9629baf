/*
 * Words in nft's JSON, and words that may go into a command. For the readers of
 * others' and our own listings (kernel_parse.c, kernel_chains.c, forward_fate.c)
 * and for who tells people what to type (doctor.c).
 */
#ifndef GW_RULES_WORDS_H
#define GW_RULES_WORDS_H

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

/* A string member, borrowed; "" if there is none. */
static inline const char *member_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static inline bool member_is(const json_t *object, const char *key, const char *text)
{
	return strcmp(member_text(object, key), text) == 0;
}

/* Whether a shell, and nft, take a name as it is. */
static inline bool word_is_plain(const char *name)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

	return name[strspn(name, plain)] == '\0';
}

#endif
