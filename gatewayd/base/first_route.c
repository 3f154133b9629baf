/* Routes by first bytes; see first_route.h. */
#include "gatewayd/base/first_route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

void first_route_clear(struct first_route *route)
{
	for (size_t c = 0; c < FIRST_CONDITIONS; c++) {
		for (uint32_t i = 0; i < route->condition[c].n; i++)
			free(route->condition[c].values[i]);
		free(route->condition[c].values);
	}
	*route = (struct first_route){ 0 };
}

static bool is_host_pattern(const char *value)
{
	const char *name = strncmp(value, "*.", 2) == 0 ? value + 2 : value;
	char canonical[FIRST_HOST_MAX + 1];

	return first_host((const uint8_t *)name, strlen(name), canonical) && strcmp(name, canonical) == 0;
}

static bool is_good(enum first_condition condition, const char *value)
{
	switch (condition) {
	case FIRST_SNI:
	case FIRST_HTTP_HOST:
		return is_host_pattern(value);
	case FIRST_HTTP_PATH:
		return value[0] == '/';
	case FIRST_ALPN:
	case FIRST_HTTP_METHOD:
		return value[0] != '\0';
	case FIRST_CONDITIONS:
		break;
	}
	return false;
}

bool first_route_takes(enum first_condition condition, const char *value)
{
	return condition < FIRST_CONDITIONS && strnlen(value, FIRST_ROUTE_VALUE_MAX + 1) <= FIRST_ROUTE_VALUE_MAX &&
	       is_good(condition, value);
}

int first_route_add(struct first_route *route, enum first_condition condition, const char *value)
{
	_cleanup_free_ char *copy = NULL;
	char **grown;
	uint32_t n;

	if (!first_route_takes(condition, value))
		return -EINVAL;
	n = route->condition[condition].n;
	if (n == FIRST_ROUTE_VALUES_MAX)
		return -E2BIG;
	copy = strdup(value);
	grown = copy ? realloc(route->condition[condition].values, (n + 1) * sizeof(*grown)) : NULL;
	if (!grown)
		return -ENOMEM;
	grown[n] = TAKE_PTR(copy);
	route->condition[condition].values = grown;
	route->condition[condition].n = n + 1;
	return 0;
}

/* --- matching --- */

static bool span_equals(struct first_span span, const char *value)
{
	return span.length == strlen(value) && memcmp(span.bytes, value, span.length) == 0;
}

bool first_route_host_matches(const char *host, const char *pattern)
{
	size_t length = strlen(host), tail;

	if (strncmp(pattern, "*.", 2) != 0)
		return strcmp(host, pattern) == 0;
	tail = strlen(++pattern);
	return length > tail && strcmp(host + length - tail, pattern) == 0;
}

static bool alpn_offers(const struct first *first, const char *value)
{
	const struct first_span *list = &first->alpn;

	if (first->kind == FIRST_HTTP2)
		return strcmp(value, "h2c") == 0;
	for (size_t at = 0; at < list->length; at += 1U + list->bytes[at])
		if (span_equals((struct first_span){ list->bytes + at + 1, list->bytes[at] }, value))
			return true;
	return false;
}

static bool value_matches(const struct first *first, enum first_condition condition, const char *value)
{
	switch (condition) {
	case FIRST_SNI:
		return first->kind == FIRST_TLS && first_route_host_matches(first->host, value);
	case FIRST_ALPN:
		return (first->kind == FIRST_TLS || first->kind == FIRST_HTTP2) && alpn_offers(first, value);
	case FIRST_HTTP_HOST:
		return first->kind == FIRST_HTTP && first_route_host_matches(first->host, value);
	case FIRST_HTTP_METHOD:
		return first->kind == FIRST_HTTP && span_equals(first->method, value);
	case FIRST_HTTP_PATH:
		return first->kind == FIRST_HTTP && first->path.length >= strlen(value) &&
		       memcmp(first->path.bytes, value, strlen(value)) == 0;
	case FIRST_CONDITIONS:
		break;
	}
	return false;
}

static bool condition_holds(const struct first_route *route, enum first_condition condition, const struct first *first)
{
	uint32_t n = route->condition[condition].n;

	for (uint32_t i = 0; first && i < n; i++)
		if (value_matches(first, condition, route->condition[condition].values[i]))
			return true;
	return n == 0;
}

bool first_route_matches(const struct first_route *route, const struct first *first)
{
	for (size_t c = 0; c < FIRST_CONDITIONS; c++)
		if (!condition_holds(route, (enum first_condition)c, first))
			return false;
	return true;
}
