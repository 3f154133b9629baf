/* Live flows, see flowlist.h. */
#include "webapi/flowlist.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "gatewayd/base/first_route.h"
#include "webapi/problem.h"
#include "webapi/query.h"
#include "webapi/rest.h"

enum parameter {
	PARAMETER_LIMIT,
	PARAMETER_AFTER,
	PARAMETER_SORT,
	PARAMETER_GROUP,
	PARAMETER_LISTENER,
	PARAMETER_UPSTREAM,
	PARAMETER_TARGET,
	PARAMETER_CLIENT,
	PARAMETER_PROTOCOL,
	PARAMETER_SNI,
	PARAMETER_INCLUDE,
	PARAMETERS
};
static const char *const known[] = { "limit", "after", "sort", "group", "listener", "upstream", "target", "client",
	"protocol", "sni", "include" };
static_assert(ARRAY_SIZE(known) == PARAMETERS, "one name per parameter");

/* In the order of the enums of core.h, behind the first entry of each. */
static const char *const sorts[] = { "bytes", "age", "rtt" };
static const char *const protocols[] = { "tcp", "udp" };

const char *const core_flows_keys[CORE_FLOWS_KEYS] = { "client", "listener", "upstream", "target", "sni",
	"destination" };

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80". */
static int target_parse(const char *text, struct core_flows_query *query)
{
	const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
	char host[ADDR_TEXT_MAX + 2];
	unsigned long port;
	size_t length;

	query->has_target = true;
	if (addr_parse(text, &query->target) == 0)
		return 0;
	if (!colon || (bracket && bracket + 1 != colon) || (size_t)(colon - text) >= sizeof(host) || !colon[1] ||
	        strlen(colon) > 6 || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return -EINVAL;
	length = (size_t)(colon - text) - (bracket ? 2 : 0);
	if (bracket && *text != '[')
		return -EINVAL;
	memcpy(host, text + (bracket != NULL), length);
	host[length] = '\0';
	port = strtoul(colon + 1, NULL, 10);
	query->target_port = (uint16_t)port;
	return port < 1 || port > UINT16_MAX || (!bracket && strchr(host, ':')) ? -EINVAL
	                                                                        : addr_parse(host, &query->target);
}

/* As query_parse, for the parameters that are addresses. */
static int parse_addresses(
        const struct request *request, char **values, struct core_flows_query *query, struct response *response)
{
	const char *client = values[PARAMETER_CLIENT], *target = values[PARAMETER_TARGET];

	if (client && prefix_parse(client, &query->client) < 0)
		return query_refuse(request, "client", "an address or a prefix", response);
	query->has_client = client != NULL;
	if (target && target_parse(target, query) < 0)
		return query_refuse(request, "target", "an address, or an address and a port", response);
	return 0;
}

/* As query_parse: a server name as routes have it, in any case of letters. */
static int parse_sni(
        const struct request *request, char *sni, struct core_flows_query *query, struct response *response)
{
	for (char *c = sni; c && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	query->sni = sni;
	if (sni && !first_route_takes(FIRST_SNI, sni))
		return query_refuse(request, "sni", "a name, or \"*.\" and a name for all names below it", response);
	return 0;
}

/* As query_parse: one key or several, with commas between. `keys` is cut up. */
static int parse_group(
        const struct request *request, char *keys, struct core_flows_query *query, struct response *response)
{
	char *key;
	int r = 0;

	while (!r && (key = strsep(&keys, ",")) != NULL) {
		size_t at = SIZE_MAX;

		r = query_word(request, "group", key, core_flows_keys, CORE_FLOWS_KEYS, &at, response);
		if (r)
			break;
		if (query->group & (1U << at))
			r = query_refuse(request, "group", "without repetitions", response);
		query->group |= 1U << at;
	}
	return r;
}

/* As query_parse, for those that are words. */
static int parse_words(
        const struct request *request, char **values, struct core_flows_query *query, struct response *response)
{
	size_t sort = SIZE_MAX, protocol = SIZE_MAX;
	int r = query_word(request, "sort", values[PARAMETER_SORT], sorts, ARRAY_SIZE(sorts), &sort, response);

	if (!r)
		r = parse_group(request, values[PARAMETER_GROUP], query, response);
	if (!r)
		r = query_word(request, "protocol", values[PARAMETER_PROTOCOL], protocols, ARRAY_SIZE(protocols),
		        &protocol, response);
	query->sort = (enum core_flows_sort)(sort + 1);
	query->protocol = protocol == SIZE_MAX ? 0 : protocol == 0 ? IPPROTO_TCP : IPPROTO_UDP;
	if (!r && query->group && (query->sort || query->after))
		r = query_refuse(request, "group", "not possible together with \"sort\" or \"after\"", response);
	return r;
}

/* As query_parse: flows that have ended, of which only sums are kept, and not of each target. */
static int parse_include(
        const struct request *request, const char *include, struct core_flows_query *query, struct response *response)
{
	static const char *const words[] = { "ended" };
	size_t which = SIZE_MAX;
	int r = query_word(request, "include", include, words, ARRAY_SIZE(words), &which, response);

	query->ended = which == 0;
	if (r || !query->ended)
		return r;
	if (!query->group)
		return query_refuse(request, "include", "only possible together with \"group\"", response);
	if (query->has_target || (query->group & (1U << CORE_FLOWS_TARGET)))
		return query_refuse(request, "include",
		        "not possible together with targets: of what has ended the destination is kept", response);
	return 0;
}

static int answer(const struct request *request, char **values, struct response *response)
{
	struct core_flows_query query = { .after = values[PARAMETER_AFTER],
		.listener = values[PARAMETER_LISTENER],
		.upstream = values[PARAMETER_UPSTREAM] };
	uint64_t limit = REST_PAGE_DEFAULT;
	json_t *document;
	int r = query_number(request, "limit", values[PARAMETER_LIMIT], 1, REST_PAGE_MAX, &limit, response);

	query.limit = limit;
	if (!r)
		r = parse_words(request, values, &query, response);
	if (!r)
		r = parse_addresses(request, values, &query, response);
	if (!r)
		r = parse_sni(request, values[PARAMETER_SNI], &query, response);
	if (!r)
		r = parse_include(request, values[PARAMETER_INCLUDE], &query, response);
	if (r)
		return r < 0 ? r : 0;
	r = core_flows(request->core, &query, &document);
	if (r == -EINVAL)
		r = query_refuse(
		        request, "after", "what \"next\" of an earlier page was, with the same \"sort\"", response);
	else if (r == 0)
		r = response_json(response, 200, CONTENT_JSON, document);
	return r < 0 ? r : 0;
}

int flowlist_get(const struct request *request, struct response *response)
{
	char *values[PARAMETERS];
	int r = query_parse(request, known, PARAMETERS, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = answer(request, values, response);
	query_free(values, PARAMETERS);
	return r;
}

/* The id in the path; 0 if it is none. */
static uint64_t id_of(const struct request *request)
{
	if (strlen(request->name) != FLOWLIST_ID_DIGITS ||
	        strspn(request->name, "0123456789abcdef") != FLOWLIST_ID_DIGITS)
		return 0;
	return strtoull(request->name, NULL, 16);
}

static int not_found(const struct request *request, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no such flow, or it has ended.");
}

int flowlist_one(const struct request *request, struct response *response)
{
	uint64_t id = id_of(request);
	json_t *document;
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = id ? core_flow_get(request->core, id, &document) : -ENOENT;
	if (r == -ENOENT)
		return not_found(request, response);
	return r < 0 ? r : response_json(response, 200, CONTENT_JSON, document);
}

int flowlist_kill(const struct request *request, struct response *response)
{
	uint64_t id = id_of(request);
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = id ? core_flow_kill(request->core, id) : -ENOENT;
	if (r == -ENOENT)
		return not_found(request, response);
	if (r < 0)
		return problem_answer(
		        response, PROBLEM_UNAVAILABLE, request, NULL, "The relay does not answer: %s.", strerror(-r));
	response->status = 204;
	return 0;
}
