/* The documents of traces and their packets, with our names in the place of handles; see tracer.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/document.h"
#include "gatewayd/tracer_private.h"
#include "rules/nftset.h"
#include "schema/value.h"

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_UDP ? "udp" : "tcp";
}

/* --- a packet --- */

/* "syn ack", as tcpdump's letters in words. */
static const char *flags_text(uint8_t flags, char text[32])
{
	static const char *const names[] = { "fin", "syn", "rst", "psh", "ack", "urg" };
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags >> i & 1)
			at += (size_t)snprintf(text + at, 32 - at, "%s%s", at ? " " : "", names[i]);
	return text;
}

static json_t *packet_head(
        uint8_t protocol, enum trace_way way, const struct trace_packet *packet, const char *interface)
{
	char at[32], src[ADDR_TEXT_MAX], dst[ADDR_TEXT_MAX], flags[32];

	return json_pack("{s:s, s:s, s:s?, s:s, s:s, s:i, s:s, s:i, s:s, s:i}", "at", value_time_format(time(NULL), at),
	        "direction", way == TRACE_TO_SERVER ? "to_server" : "to_client", "interface",
	        *interface ? interface : NULL, "protocol", protocol_name(protocol), "source",
	        addr_format(&packet->src, src), "source_port", (int)packet->src_port, "destination",
	        addr_format(&packet->dst, dst), "destination_port", (int)packet->dst_port, "flags",
	        flags_text(packet->flags, flags), "bytes", (int)packet->length);
}

/* The listener of the element that the packet found in this set, or that the other engine had found before; 0: none
 * (any more). */
static uint32_t listener_of_rule(struct core *core, const struct gathered *gathered, const char *to, const char *rule)
{
	struct match_packet packet = { .protocol = gathered->packet.protocol,
		.src = gathered->packet.src,
		.dst = gathered->packet.dst,
		.dst_port = gathered->packet.dst_port,
		.interface = gathered->interface };
	struct element element;
	struct group group;
	char set[64];

	if (strcmp(to, "act_handed") == 0)
		return model_decide(apply_model(core->apply), &packet, false, &element) == 1 ? element.listener : 0;
	if (!trace_rule_set(rule, set, sizeof(set)) || nftset_group_of_name(set, &group) < 0 ||
	        group.shape.protocol != packet.protocol || group.shape.family != packet.dst.family ||
	        model_find(apply_model(core->apply), &group, &packet, &element) != 1)
		return 0;
	return element.listener;
}

static const char *listener_name(struct core *core, uint32_t id)
{
	const struct name *name = id && names_follow(&core->names, apply_snapshot(core->apply)) == 0
	                                  ? names_find(&core->names, STATS_LISTENER, id)
	                                  : NULL;

	return name ? row_name(name->row) : NULL;
}

/* A name that is gone is null. */
static json_t *name_document(const char *name)
{
	return name ? json_string(name) : json_null();
}

static json_t *step_document(const struct trace_step *step, const char *rule)
{
	char table[TRACE_NAME_MAX + 16];
	json_t *object;

	snprintf(table, sizeof(table), "%s %s", step->family, step->table);
	object = json_pack(
	        "{s:s, s:s, s:s}", "table", table, "chain", step->chain, "verdict", trace_verdict_name(step->verdict));
	if (!object)
		return NULL;
	if (step->kind == TRACE_POLICY)
		json_object_set_new(object, "policy", json_true());
	if (step->handle)
		json_object_set_new(object, "handle", json_integer((json_int_t)step->handle));
	if (*step->to)
		json_object_set_new(object, "to", json_string(step->to));
	if (rule)
		json_object_set_new(object, "rule", json_string(rule));
	return object;
}

/* One of ours is told with its text, and one that leads to a listener's action with the listener. */
static json_t *steps_document(struct core *core, const struct trace_rules *rules, const struct gathered *gathered,
        uint32_t *listener, bool *failed)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < gathered->n; i++) {
		const struct trace_step *step = &gathered->steps[i];
		const char *rule = rules && trace_step_is_ours(step) ? trace_rules_find(rules, step->handle) : NULL;
		json_t *object = step_document(step, rule);

		if (!*listener && rule && (step->verdict == TRACE_GOTO || step->verdict == TRACE_JUMP)) {
			*listener = listener_of_rule(core, gathered, step->to, rule);
			if (*listener && object)
				json_object_set_new(object, "listener", name_document(listener_name(core, *listener)));
		}
		*failed |= json_array_append_new(array, object) < 0;
	}
	*failed |= !array;
	return array;
}

json_t *tracer_packet_document(struct core *core, const struct trace_rules *rules, const struct gathered *gathered)
{
	struct trace_outcome outcome;
	bool failed = false;
	uint32_t listener;
	json_t *object, *steps;

	trace_judge(gathered->steps, gathered->n, &outcome);
	listener = outcome.listener;
	steps = steps_document(core, rules, gathered, &listener, &failed);
	object = packet_head(gathered->packet.protocol, gathered->way, &gathered->packet, gathered->interface);
	failed |= !object;
	document_set(object, "verdict", json_string(outcome.verdict), &failed);
	document_set(object, "listener", name_document(listener_name(core, listener)), &failed);
	document_set(object, "limit", name_document(*outcome.limit ? outcome.limit : NULL), &failed);
	document_set(object, "more", json_boolean(gathered->more), &failed);
	document_set(object, "steps", steps, &failed);
	return document_done(object, failed);
}

json_t *tracer_drop_document(const struct trace *trace, enum trace_way way, const struct trace_packet *packet,
        const char *interface, const char *reason, const char *limit)
{
	json_t *object = packet_head(trace->filter.protocol, way, packet, interface);
	bool failed = !object;

	document_set(object, "verdict", json_string("prefilter"), &failed);
	document_set(object, "listener", json_null(), &failed);
	document_set(object, "limit", name_document(limit), &failed);
	document_set(object, "more", json_false(), &failed);
	document_set(object, "steps",
	        json_pack("[{s:s, s:s, s:s, s:s}]", "table", "xdp", "chain", interface, "verdict", "drop", "reason",
	                reason),
	        &failed);
	return document_done(object, failed);
}

/* --- a trace --- */

json_t *tracer_document(const struct trace *trace, bool with_packets)
{
	char start[32], end[32], src[ADDR_TEXT_MAX], dst[ADDR_TEXT_MAX];
	json_t *object = json_pack("{s:I, s:s, s:s?, s:s, s:s, s:o, s:s, s:i, s:s, s:s, s:i, s:s, s:I}", "id",
	        (json_int_t)trace->number, "state", trace->hold ? "armed" : "over", "why",
	        trace->hold ? NULL : trace->why, "protocol", protocol_name(trace->filter.protocol), "source",
	        addr_format(&trace->filter.src, src), "source_port",
	        trace->filter.src_port ? json_integer(trace->filter.src_port) : json_null(), "destination",
	        addr_format(&trace->filter.dst, dst), "destination_port", (int)trace->filter.dst_port, "started_at",
	        value_time_format(trace->started_at, start), "ends_at",
	        value_time_format(trace->started_at + trace->seconds, end), "packets_max", (int)trace->packets_max,
	        "actor", trace->actor, "seen", (json_int_t)json_array_size(trace->packets));

	if (object && with_packets && json_object_set(object, "packets", trace->packets) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}
