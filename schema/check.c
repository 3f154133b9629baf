/* Rules about several fields of one row; see check.h. */
#include "schema/check.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "schema/flow_field.h"
#include "schema/value.h"

/* A row under examination and where it stands in the document. */
struct subject {
	const char *base;
	struct errs *errs;
};

/* Whether the field or something inside it has a fault already: then a rule about it would only mislead. */
static bool is_faulty(const struct subject *subject, const char *member)
{
	char pointer[VALUE_POINTER_MAX];
	size_t length;

	value_pointer(pointer, subject->base, member);
	length = strlen(pointer);
	for (size_t i = 0; i < subject->errs->n; i++) {
		const char *at = subject->errs->items[i].pointer;

		if (strncmp(at, pointer, length) == 0 && (at[length] == '\0' || at[length] == '/'))
			return true;
	}
	return false;
}

#define FAULT(subject, member, code, ...)                                                                              \
	do {                                                                                                           \
		char pointer_[VALUE_POINTER_MAX];                                                                      \
		value_pointer(pointer_, (subject)->base, member);                                                      \
		errs_add((subject)->errs, pointer_, code, __VA_ARGS__);                                                \
	} while (0)

/* The family that all items of a list have, or AF_UNSPEC for an empty or a mixed list. */
static int list_family(const struct strings *prefixes)
{
	int family = AF_UNSPEC;

	for (size_t i = 0; i < prefixes->n; i++) {
		int item = strchr(prefixes->items[i], ':') ? AF_INET6 : AF_INET;

		if (prefixes->items[i][0] == '@') /* what it holds may change */
			return AF_UNSPEC;
		if (family != AF_UNSPEC && family != item)
			return AF_UNSPEC;
		family = item;
	}
	return family;
}

static void check_families(const struct listener *listener, const struct subject *subject)
{
	int sources = list_family(&listener->sources), destinations = list_family(&listener->destinations);

	if (is_faulty(subject, "sources") || is_faulty(subject, "destinations"))
		return;
	if (sources != AF_UNSPEC && destinations != AF_UNSPEC && sources != destinations)
		FAULT(subject, "sources", "family_mismatch",
		        "all sources are %s and all destinations %s: no packet can match",
		        sources == AF_INET ? "IPv4" : "IPv6", destinations == AF_INET ? "IPv4" : "IPv6");
}

static void check_proxy(const struct listener *listener, const struct subject *subject)
{
	if (listener->protocol != PROTOCOL_UDP || is_faulty(subject, "protocol"))
		return;
	if (listener->proxy_protocol == PROXY_PROTOCOL_V1 && !is_faulty(subject, "proxy_protocol"))
		FAULT(subject, "proxy_protocol", "not_applicable",
		        "version 1 is a line at the beginning of a stream; datagrams need v2");
	if (listener->accept_proxy_protocol.n && !is_faulty(subject, "accept_proxy_protocol"))
		FAULT(subject, "accept_proxy_protocol", "not_applicable", "headers are taken from connections only");
}

static void check_listener(const struct row *row, const struct subject *subject)
{
	const struct listener *listener = (const struct listener *)row;

	check_families(listener, subject);
	check_proxy(listener, subject);
	if (listener->routes.n && (listener->action != ACTION_RELAY || listener->protocol != PROTOCOL_TCP) &&
	        !is_faulty(subject, "routes"))
		FAULT(subject, "routes", "not_applicable", "routes are for action relay and protocol tcp");
	if (is_faulty(subject, "action"))
		return;
	if (listener->action != ACTION_RELAY && listener->upstream && !is_faulty(subject, "upstream"))
		FAULT(subject, "upstream", "not_applicable",
		        "an upstream is used by action relay only; set it to null or change the action");
}

static void check_health(const struct upstream *upstream, const struct subject *subject)
{
	int64_t first = upstream->health_http_status ? upstream->health_http_status : 200;

	if (is_faulty(subject, "health"))
		return;
	if (upstream->health_timeout_ms > upstream->health_interval_ms)
		FAULT(subject, "health/timeout_ms", "out_of_range",
		        "%lld ms is longer than interval_ms (%lld): a probe must end before the next one begins",
		        (long long)upstream->health_timeout_ms, (long long)upstream->health_interval_ms);
	if (upstream->health_http_status > 0 && upstream->health_http_status < 100)
		FAULT(subject, "health/http_status", "out_of_range",
		        "a status is 100 to 599, or 0 for any from 200 to 399");
	if (upstream->health_http_status_max != 0 && upstream->health_http_status_max < first)
		FAULT(subject, "health/http_status_max", "out_of_range",
		        "the range begins with http_status, or 200, and ends behind it");
	if (upstream->health_http_method == HEALTH_METHOD_HEAD && *upstream->health_http_body)
		FAULT(subject, "health/http_body", "not_applicable", "the answer to HEAD has no body to look into");
	if (strchr(upstream->health_http_host, ' '))
		FAULT(subject, "health/http_host", "bad_value",
		        "a host is a name or an address, with a port if need be");
	if (upstream->health_http_path[0] != '/' || strpbrk(upstream->health_http_path, " #"))
		FAULT(subject, "health/http_path", "bad_value", "a path begins with / and has no space");
}

static void check_upstream(const struct row *row, const struct subject *subject)
{
	const struct upstream *upstream = (const struct upstream *)row;
	const struct rows *targets = &upstream->targets;

	check_health(upstream, subject);
	if (is_faulty(subject, "targets"))
		return;
	for (size_t i = 1; i < targets->n; i++)
		for (size_t j = 0; j < i; j++) {
			const struct target *a = (const struct target *)targets->items[j];
			const struct target *b = (const struct target *)targets->items[i];

			if (a->port != b->port || strcmp(a->address, b->address) != 0)
				continue;
			FAULT(subject, "targets", "duplicate_item", "items %zu and %zu are the same address and port",
			        j, i);
			return;
		}
}

static void check_route(const struct row *row, const struct subject *subject)
{
	const struct listener_route *route = (const struct listener_route *)row;

	if ((route->sni.n || route->alpn.n) &&
	        (route->http_host.n || route->http_method.n || route->http_path_prefix.n))
		FAULT(subject, "sni", "never_matches", "a connection is TLS or plain HTTP, never both");
	if (route->action != ROUTE_ACTION_RELAY && route->upstream && !is_faulty(subject, "upstream") &&
	        !is_faulty(subject, "action"))
		FAULT(subject, "upstream", "not_applicable", "an upstream is used by action relay only");
}

/* What the kernel can count: packets in whole nanoseconds, a bucket's bytes times nanoseconds in 64 bits, a burst in 32
 * bits; connections are compared one by one with all of their source. */
#define PACKET_RATE_MAX     INT64_C(1000000000)
#define BYTE_RATE_MAX       INT64_C(10000000000)
#define BURST_MAX           INT64_C(4294967295)
#define CONCURRENT_RATE_MAX INT64_C(65535)
/* A source is remembered until its burst is whole again: at most a day. */
#define BURST_TIME_S 86400
/* Bytes per second of a flow: with fewer, what a socket's buffer holds would take many minutes. */
#define FLOW_RATE_MIN INT64_C(10000)

static void check_limit_range(const struct rate_limit *limit, const struct subject *subject)
{
	bool concurrent = limit->metric == METRIC_CONCURRENT_CONNECTIONS, bytes = limit->metric == METRIC_BYTES;
	int64_t most = concurrent ? CONCURRENT_RATE_MAX : bytes ? BYTE_RATE_MAX : PACKET_RATE_MAX;
	int64_t periods = limit->per == PER_MINUTE ? BURST_TIME_S / 60 : BURST_TIME_S;

	if (limit->rate > most) {
		FAULT(subject, "rate", "out_of_range", "at most %lld of this metric", (long long)most);
		return;
	}
	if (concurrent || is_faulty(subject, "burst"))
		return;
	if (limit->burst > BURST_MAX)
		FAULT(subject, "burst", "out_of_range", "at most %lld", (long long)BURST_MAX);
	else if (limit->burst / periods > limit->rate)
		FAULT(subject, "burst", "out_of_range", "a burst is at most what the rate gives in a day");
}

/* The excess of a flow waits in the sockets of the relay, which know a rate and nothing else. */
static void check_shaping(const struct rate_limit *limit, const struct subject *subject)
{
	int64_t least = limit->per == PER_MINUTE ? FLOW_RATE_MIN * 60 : FLOW_RATE_MIN;

	if (limit->key != LIMIT_KEY_FLOW) {
		if (limit->action == LIMIT_ACTION_SHAPE && !is_faulty(subject, "action"))
			FAULT(subject, "action", "not_applicable",
			        "only single flows are shaped (key flow); what is over other limits is dropped or "
			        "rejected");
		return;
	}
	if (limit->action != LIMIT_ACTION_SHAPE && !is_faulty(subject, "action"))
		FAULT(subject, "action", "not_applicable", "a limit of key flow shapes: nothing of a flow is dropped");
	if (limit->metric != METRIC_BYTES && !is_faulty(subject, "metric"))
		FAULT(subject, "metric", "not_applicable", "of single flows only bytes are limited");
	else if (limit->rate < least && !is_faulty(subject, "rate"))
		FAULT(subject, "rate", "out_of_range", "at least %lld bytes per %s for a flow", (long long)least,
		        limit->per == PER_MINUTE ? "minute" : "second");
	if (limit->burst != 0 && !is_faulty(subject, "burst"))
		FAULT(subject, "burst", "not_applicable", "a flow that is shaped has no burst");
	if (limit->escalate_after != 0 && !is_faulty(subject, "escalate"))
		FAULT(subject, "escalate/after", "not_applicable", "a flow that is shaped is never over its limit");
}

static void check_rate_limit(const struct row *row, const struct subject *subject)
{
	const struct rate_limit *limit = (const struct rate_limit *)row;

	if (!is_faulty(subject, "rate") && !is_faulty(subject, "metric"))
		check_limit_range(limit, subject);
	if (!is_faulty(subject, "key"))
		check_shaping(limit, subject);
	if (limit->action == LIMIT_ACTION_REJECT &&
	        (limit->metric == METRIC_PACKETS || limit->metric == METRIC_BYTES) && !is_faulty(subject, "action") &&
	        !is_faulty(subject, "metric"))
		FAULT(subject, "action", "not_applicable",
		        "only connections can be rejected; packets and bytes are dropped");
}

static void check_nothing(const struct row *row, const struct subject *subject)
{
	(void)row;
	(void)subject;
}

/* A name that cannot lead anywhere else, and that no tool takes for an option or something hidden. */
static bool is_file_name(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return *text && *text != '.' && *text != '-' && strspn(text, allowed) == strlen(text);
}

static void check_settings(const struct row *row, const struct subject *subject)
{
	const struct settings *settings = (const struct settings *)row;

	static_assert(FLOW_FIELDS == 25, "flow_log.fields has room for all of them");
	if (!is_file_name(settings->flow_log_file) && !is_faulty(subject, "flow_log/file"))
		FAULT(subject, "flow_log/file", "bad_value",
		        "a name made of a-z A-Z 0-9 . _ -, with a letter, a digit or _ first");
}

void check_rules(const struct row *row, const char *base, struct errs *errs)
{
	static void (*const rules[])(const struct row *, const struct subject *) = {
		[RESOURCE_UPSTREAM] = check_upstream,
		[RESOURCE_TARGET] = check_nothing,
		[RESOURCE_ADDRESS_SET] = check_nothing,
		[RESOURCE_RATE_LIMIT] = check_rate_limit,
		[RESOURCE_LISTENER] = check_listener,
		[RESOURCE_LISTENER_ROUTE] = check_route,
		[RESOURCE_PREFILTER] = check_nothing,
		[RESOURCE_TOKEN] = check_nothing,
		[RESOURCE_SETTINGS] = check_settings,
	};
	struct subject subject = { base, errs };

	static_assert(ARRAY_SIZE(rules) == RESOURCES, "rules for each resource");
	rules[row->resource](row, &subject);
}

static void check_at(const struct row *row, const char *base, struct errs *errs)
{
	const struct resource *resource = resource_get(row->resource);
	char pointer[VALUE_POINTER_MAX], child[VALUE_POINTER_MAX];

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		value_pointer_field(pointer, base, field);
		if (value_check(field, row, pointer, errs) < 0 || field->kind != FIELD_CHILDREN)
			continue;
		for (size_t j = 0; j < FIELD_AT_CONST(row, field, struct rows)->n; j++) {
			value_pointer_item(child, pointer, j);
			check_at(FIELD_AT_CONST(row, field, struct rows)->items[j], child, errs);
		}
	}
	check_rules(row, base, errs);
}

int check_row(const struct row *row, struct errs *errs)
{
	size_t before = errs_count(errs);

	check_at(row, "", errs);
	return errs_count(errs) > before ? -EINVAL : 0;
}
