/* Records of flows as text; see record_text.h. */
#include "gatewayd/record_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static_assert(FLOW_FIELDS < 32, "a bit each");

struct text {
	char *at, *end; /* room is left for the line's end */
};

static void put(struct text *text, const char *bytes, size_t n)
{
	if (n > (size_t)(text->end - text->at))
		n = (size_t)(text->end - text->at);
	memcpy(text->at, bytes, n);
	text->at += n;
}

__attribute__((format(printf, 2, 3))) static void put_format(struct text *text, const char *format, ...)
{
	char piece[64];
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(piece, sizeof(piece), format, arguments);
	va_end(arguments);
	if (n > 0)
		put(text, piece, (size_t)n < sizeof(piece) ? (size_t)n : sizeof(piece) - 1);
}

static void put_number(struct text *text, uint64_t number)
{
	char digits[20], *at = digits + sizeof(digits);

	do
		*--at = (char)('0' + number % 10);
	while (number /= 10);
	put(text, at, (size_t)(digits + sizeof(digits) - at));
}

/* A string in quotes. Nothing in it is trusted: what is not plain ASCII is escaped. */
static void put_string(struct text *text, const char *string)
{
	put(text, "\"", 1);
	for (; *string; string++) {
		unsigned char c = (unsigned char)*string;

		if (c < ' ' || c > '~' || c == '"' || c == '\\')
			put_format(text, "\\u%04x", c);
		else
			put(text, string, 1);
	}
	put(text, "\"", 1);
}

static void put_string_or_null(struct text *text, const char *string)
{
	if (string && *string)
		put_string(text, string);
	else
		put(text, "null", 4);
}

static void put_address(struct text *text, const struct addr *addr)
{
	char string[ADDR_TEXT_MAX] = "";

	if (addr->family)
		addr_format(addr, string);
	put_string_or_null(text, string);
}

/* RFC 3339, in UTC. */
static void put_time(struct text *text, const struct record_view *view, uint64_t at_ms)
{
	int64_t ms = (int64_t)at_ms + view->clock_ms;
	time_t seconds = (time_t)(ms / 1000);
	char string[32];
	struct tm tm;

	if (ms < 0 || !gmtime_r(&seconds, &tm) || strftime(string, sizeof(string), "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
		put(text, "null", 4);
		return;
	}
	put_format(text, "\"%s.%03dZ\"", string, (int)(ms % 1000));
}

/* Of a number that may not be known: null for 0. */
static void put_known(struct text *text, uint64_t number, uint64_t less)
{
	if (number)
		put_number(text, number - less);
	else
		put(text, "null", 4);
}

/* What is moved by a mover: not UDP. */
static void put_mover(struct text *text, uint8_t mover)
{
	put_string_or_null(text, stats_mover_name(mover));
}

static void put_value(struct text *text, const struct record_view *view, enum flow_field field)
{
	const struct stats_record *record = view->record;
	const struct stats_flow *flow = &record->flow;

	switch (field) {
	case FLOW_FIELD_event:
		put_string(text, record->kind == STATS_RECORD_START ? "start" : "end");
		return;
	case FLOW_FIELD_time:
		put_time(text, view, record->at_ms);
		return;
	case FLOW_FIELD_id:
		put_format(text, "\"%016" PRIx64 "\"", flow->id);
		return;
	case FLOW_FIELD_started:
		put_time(text, view, flow->started_ms);
		return;
	case FLOW_FIELD_protocol:
		put_string(text, flow->protocol == IPPROTO_UDP ? "udp" : "tcp");
		return;
	case FLOW_FIELD_client:
		put_address(text, &flow->client);
		return;
	case FLOW_FIELD_client_port:
		put_number(text, flow->client_port);
		return;
	case FLOW_FIELD_original:
		put_address(text, &flow->original);
		return;
	case FLOW_FIELD_original_port:
		put_number(text, flow->original_port);
		return;
	case FLOW_FIELD_target:
		put_address(text, &flow->target);
		return;
	case FLOW_FIELD_target_port:
		put_known(text, flow->target_port, 0);
		return;
	case FLOW_FIELD_interface:
		put_string_or_null(text, view->interface);
		return;
	case FLOW_FIELD_listener:
		put_string_or_null(text, view->listener);
		return;
	case FLOW_FIELD_upstream:
		put_string_or_null(text, view->upstream);
		return;
	case FLOW_FIELD_route:
		put_known(text, flow->route, 1);
		return;
	case FLOW_FIELD_sni:
		put_string_or_null(text, flow->sni);
		return;
	case FLOW_FIELD_connect_us:
		put_known(text, flow->status.connect_us, 0);
		return;
	case FLOW_FIELD_retries:
		put_number(text, flow->status.retries);
		return;
	case FLOW_FIELD_duration_ms:
		put_number(text, record->at_ms > flow->started_ms ? record->at_ms - flow->started_ms : 0);
		return;
	case FLOW_FIELD_bytes_to_target:
		put_number(text, flow->bytes[STATS_TO_TARGET]);
		return;
	case FLOW_FIELD_bytes_to_client:
		put_number(text, flow->bytes[STATS_TO_CLIENT]);
		return;
	case FLOW_FIELD_mover_to_target:
		put_mover(text, flow->status.mover[STATS_TO_TARGET]);
		return;
	case FLOW_FIELD_mover_to_client:
		put_mover(text, flow->status.mover[STATS_TO_CLIENT]);
		return;
	case FLOW_FIELD_reason:
		put_string_or_null(text, flow_end_reason((enum flow_why)record->end));
		return;
	case FLOW_FIELD_closed_by:
		put_string_or_null(text, flow_end_who((enum flow_why)record->end));
		return;
	case FLOW_FIELDS:
		return;
	}
}

size_t record_text(const struct record_view *view, uint32_t fields, char ret[RECORD_TEXT_MAX])
{
	struct text text = { ret, ret + RECORD_TEXT_MAX - 3 };
	bool end = view->record->kind == STATS_RECORD_END;

	for (int i = 0; i < FLOW_FIELDS; i++) {
		const char *word = flow_field_word((enum flow_field)i);

		if (!(fields >> i & 1) || (flow_field_is_of_end((enum flow_field)i) && !end))
			continue;
		put(&text, text.at == ret ? "{\"" : ",\"", 2);
		put(&text, word, strlen(word));
		put(&text, "\":", 2);
		put_value(&text, view, (enum flow_field)i);
	}
	if (text.at == ret)
		put(&text, "{", 1);
	memcpy(text.at, "}\n", 3);
	return (size_t)(text.at + 2 - ret);
}
