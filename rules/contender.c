/* Compiling one listener: its verdict, its ports and their pieces; see cells.h. */
#include "rules/cells.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rules/reach.h"

enum verdict listener_verdict(const struct listener *listener)
{
	switch ((enum action)listener->action) {
	case ACTION_RELAY:
		return listener->on_worker_down == ON_WORKER_DOWN_DIRECT ? VERDICT_RELAY_DIRECT : VERDICT_RELAY;
	case ACTION_REJECT:
		return VERDICT_REJECT;
	case ACTION_BYPASS:
		return VERDICT_BYPASS;
	case ACTION_DROP:
	case ACTION_WORDS:
		break;
	}
	return VERDICT_DROP;
}

static int parse_ports(const struct strings *texts, struct contender *contender)
{
	contender->ports = calloc(texts->n ? texts->n : 1, sizeof(*contender->ports));
	if (!contender->ports)
		return -ENOMEM;
	for (size_t i = 0; i < texts->n; i++) {
		int r = port_range_parse(texts->items[i], &contender->ports[i]);

		if (r < 0)
			return r;
	}
	contender->n_ports = texts->n;
	return 0;
}

static bool interfaces_fit(const struct strings *interfaces)
{
	for (size_t i = 0; i < interfaces->n; i++)
		if (interfaces->items[i][0] == '\0' || strlen(interfaces->items[i]) >= IFNAMSIZ)
			return false;
	return true;
}

int contender_new(struct row *row, struct errs *errs, struct contender **ret)
{
	const struct listener *listener = (const struct listener *)row;
	struct contender *contender = calloc(1, sizeof(*contender));
	char pointer[CONTENDER_POINTER_MAX];
	struct tie none;
	int r;

	if (!contender)
		return -ENOMEM;
	*contender = (struct contender){ .row = row_ref(row),
		.name = listener->name,
		.priority = listener->priority,
		.listener = (uint32_t)row->id,
		.verdict = listener_verdict(listener),
		.limited = listener->rate_limits.n > 0,
		.has_sets = reach_has_sets(listener) };
	r = interfaces_fit(&listener->interfaces) ? parse_ports(&listener->ports, contender) : -EINVAL;
	if (r == 0)
		r = pieces_cut(&contender, 1, &contender->pieces, &contender->n_pieces, &none);
	if (r == 0) {
		*ret = contender;
		return 0;
	}
	contender_pointer(contender, "", pointer);
	if (r != -ENOMEM)
		errs_add(errs, pointer, "invalid", "listener \"%s\": a port or interface is not valid", listener->name);
	contender_free(contender);
	return r == -ENOMEM ? r : -EINVAL;
}

void contender_own_ranges(struct contender *contender)
{
	contender->own_ranges = true;
	for (size_t i = 0; i < contender->n_pieces; i++)
		contender->pieces[i].own_range = contender->pieces[i].kind == MATCH_PORT_RANGE;
}

void contender_pointer(const struct contender *contender, const char *behind, char buffer[CONTENDER_POINTER_MAX])
{
	snprintf(buffer, CONTENDER_POINTER_MAX, "/listeners/%s%s", contender->name, behind);
}

void contender_free(struct contender *contender)
{
	if (!contender)
		return;
	row_unref(contender->row);
	free(contender->ports);
	free(contender->pieces);
	free(contender);
}
