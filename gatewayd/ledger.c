/* The ledger's rows; see ledger.h. */
#include "gatewayd/ledger.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/log.h"
#include "gatewayd/links.h"

/* What an interface had counted when it was first looked at: the same interface, with the same kind of prefilter. */
struct base {
	char interface[IFNAMSIZ];
	unsigned index; /* of the interface */
	enum xdp_mode mode;
	int64_t since;
	struct ledger_count in;
	struct prefilter_count reasons[PREFILTER_REASONS];
	uint64_t taken;
	bool seen;     /* in this look */
	unsigned gone; /* looks in a row without the interface */
};

struct ledger {
	struct kernel *kernel;
	struct shield *shield;
	const struct shortcut *shortcut;
	sd_event_source *timer;
	struct base *bases;
	size_t n_bases, bases_size;
};

/* What one look has found. */
struct found {
	struct ledger_counts *counts;
	size_t n_counts, counts_size;
	struct link_count *links;
	size_t n_links;
	size_t omitted;
};

static void found_clear(struct found *found)
{
	free(found->counts);
	free(found->links);
}

/* --- sums --- */

static uint64_t sum_of(const struct ledger_row *row, enum ledger_part part)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < LEDGER_OUTCOMES; i++)
		if (ledger_part((enum ledger_outcome)i) == part)
			sum += row->counts.outcome[i].packets;
	return sum;
}

uint64_t ledger_passed(const struct ledger_row *row)
{
	return sum_of(row, LEDGER_PASSED);
}

int64_t ledger_rest_link(const struct ledger_row *row)
{
	int64_t rest = (int64_t)row->link.in.packets;

	for (unsigned i = 0; i < PREFILTER_REASONS; i++)
		rest -= (int64_t)row->link.reasons[i].packets;
	return row->link.filtered ? rest : 0;
}

int64_t ledger_rest_stack(const struct ledger_row *row)
{
	return (int64_t)(row->counts.outcome[LEDGER_in].packets - sum_of(row, LEDGER_ENDED) - ledger_passed(row));
}

int64_t ledger_rest_passed(const struct ledger_row *row)
{
	return (int64_t)(ledger_passed(row) - sum_of(row, LEDGER_FATE));
}

/* --- rows --- */

static const struct link_count *find_link(const struct found *found, const char *interface)
{
	for (size_t i = 0; i < found->n_links; i++)
		if (strcmp(found->links[i].interface, interface) == 0)
			return &found->links[i];
	return NULL;
}

static struct base *base_of(struct ledger *ledger, const char *interface)
{
	for (size_t i = 0; i < ledger->n_bases; i++)
		if (strcmp(ledger->bases[i].interface, interface) == 0)
			return &ledger->bases[i];
	if (array_reserve(&ledger->bases, &ledger->bases_size, ledger->n_bases + 1, sizeof(*ledger->bases)) < 0)
		return NULL;
	ledger->bases[ledger->n_bases] = (struct base){ 0 };
	memcpy(ledger->bases[ledger->n_bases].interface, interface, IFNAMSIZ);
	return &ledger->bases[ledger->n_bases++];
}

/* What the prefilter of the interface has counted, and how it runs; NONE if there is none. */
static enum xdp_mode prefilter_of(
        struct ledger *ledger, const char *interface, struct prefilter_count ret[PREFILTER_REASONS])
{
	enum xdp_mode mode = ledger->shield ? shield_mode(ledger->shield, interface, ret) : XDP_MODE_NONE;

	if (mode == XDP_MODE_NONE)
		memset(ret, 0, PREFILTER_REASONS * sizeof(*ret));
	return mode;
}

/* Whether what was noted is of something else than what is there now. */
static bool is_stale(const struct base *base, const struct base *now)
{
	bool stale = base->index != now->index || base->mode != now->mode || now->in.packets < base->in.packets ||
	             now->taken < base->taken;

	for (unsigned i = 0; i < PREFILTER_REASONS; i++)
		stale |= now->reasons[i].packets < base->reasons[i].packets;
	return stale;
}

static void fill_link(struct ledger_link *link, const struct base *base, const struct base *now)
{
	link->present = true;
	link->since = base->since;
	link->in = (struct ledger_count){ now->in.packets - base->in.packets, now->in.bytes - base->in.bytes };
	link->filtered = now->mode != XDP_MODE_NONE;
	link->taken = now->taken - base->taken;
	link->to_stack = link->filtered ? 0 : link->in.packets;
	for (unsigned i = 0; i < PREFILTER_REASONS; i++) {
		link->reasons[i].packets = now->reasons[i].packets - base->reasons[i].packets;
		link->reasons[i].bytes = now->reasons[i].bytes - base->reasons[i].bytes;
		if (link->filtered && !shield_reason_drops((enum prefilter_reason)i))
			link->to_stack += link->reasons[i].packets;
	}
}

/* -ENOMEM. */
static int compare_link(struct ledger *ledger, const struct found *found, struct ledger_row *row)
{
	const struct link_count *link = find_link(found, row->counts.interface);
	struct base *base = base_of(ledger, row->counts.interface), now = { .since = time(NULL) };

	if (!base)
		return -ENOMEM;
	base->seen = link != NULL;
	if (!link)
		return 0;
	memcpy(now.interface, row->counts.interface, sizeof(now.interface));
	now.index = if_nametoindex(row->counts.interface);
	now.mode = prefilter_of(ledger, row->counts.interface, now.reasons);
	now.in = (struct ledger_count){ link->packets, link->bytes };
	now.taken = row->counts.outcome[LEDGER_in].packets;
	now.seen = true;
	if (is_stale(base, &now))
		*base = now;
	fill_link(&row->link, base, &now);
	return 0;
}

static bool is_text(const char *name)
{
	for (const char *at = name; *at; at++)
		if (!isgraph((unsigned char)*at) || *at == '"' || *at == '\\')
			return false;
	return true;
}

static bool has_row(const struct ledger_row *rows, size_t n, const char *interface)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].counts.interface, interface) == 0)
			return true;
	return false;
}

/* Those that have counted anything, and those that have a prefilter: nothing may have come through that. */
static size_t pick(struct ledger *ledger, struct found *found, struct ledger_row *rows)
{
	struct prefilter_count reasons[PREFILTER_REASONS];
	size_t n = 0;

	for (size_t i = 0; i < found->n_counts; i++) {
		if (n < LEDGER_INTERFACES_MAX && is_text(found->counts[i].interface))
			rows[n++].counts = found->counts[i];
		else
			found->omitted++;
	}
	for (size_t i = 0; i < found->n_links && n < LEDGER_INTERFACES_MAX; i++)
		if (!has_row(rows, n, found->links[i].interface) && is_text(found->links[i].interface) &&
		        prefilter_of(ledger, found->links[i].interface, reasons) != XDP_MODE_NONE)
			memcpy(rows[n++].counts.interface, found->links[i].interface, IFNAMSIZ);
	return n;
}

static int compare_rows(const void *a, const void *b)
{
	const struct ledger_row *x = a, *y = b;

	return strcmp(x->counts.interface, y->counts.interface);
}

static_assert((int)LEDGER_OUTCOMES - (int)LEDGER_IN_TABLE == (int)BPF_SHORTCUT_KINDS,
        "an outcome for each of the program's kinds");

/* The counts of an interface, new ones if there are none; NULL: no memory. */
static struct ledger_counts *counts_of(struct found *found, const char *interface)
{
	for (size_t i = 0; i < found->n_counts; i++)
		if (strcmp(found->counts[i].interface, interface) == 0)
			return &found->counts[i];
	if (array_reserve(&found->counts, &found->counts_size, found->n_counts + 1, sizeof(*found->counts)) < 0)
		return NULL;
	found->counts[found->n_counts] = (struct ledger_counts){ 0 };
	snprintf(found->counts[found->n_counts].interface, IFNAMSIZ, "%s", interface);
	return &found->counts[found->n_counts++];
}

/* What has gone past our table has come all the same. */
static void add_shortcut(void *userdata, const char *interface, unsigned kind, uint64_t packets, uint64_t bytes)
{
	struct ledger_counts *counts = kind < BPF_SHORTCUT_KINDS ? counts_of(userdata, interface) : NULL;

	if (!counts)
		return;
	counts->outcome[LEDGER_IN_TABLE + kind] = (struct ledger_count){ packets, bytes };
	counts->outcome[LEDGER_in].packets += packets;
	counts->outcome[LEDGER_in].bytes += bytes;
}

/* What a packet meets last is read first: what comes in between is in no sum, or in those before. */
static int read_all(struct ledger *ledger, struct found *ret)
{
	int r = kernel_nft_ledger(ledger->kernel, &ret->counts, &ret->n_counts);

	ret->counts_size = ret->n_counts;
	if (r == 0)
		shortcut_tally(ledger->shortcut, add_shortcut, ret);
	return r < 0 ? r : links_read(&ret->links, &ret->n_links);
}

int ledger_look(struct ledger *ledger, struct ledger_row **ret, size_t *ret_n, size_t *ret_omitted)
{
	_cleanup_(found_clear) struct found found = { 0 };
	_cleanup_free_ struct ledger_row *rows = calloc(LEDGER_INTERFACES_MAX, sizeof(*rows));
	size_t n;
	int r = rows ? read_all(ledger, &found) : -ENOMEM;

	if (r < 0)
		return r;
	n = pick(ledger, &found, rows);
	for (size_t i = 0; i < ledger->n_bases; i++)
		ledger->bases[i].seen = false;
	for (size_t i = 0; i < n && r == 0; i++)
		r = compare_link(ledger, &found, &rows[i]);
	if (r < 0)
		return r;
	if (n > 1)
		qsort(rows, n, sizeof(*rows), compare_rows);
	*ret = TAKE_PTR(rows);
	*ret_n = n;
	*ret_omitted = found.omitted;
	return 0;
}

/* --- beside --- */

static void forget(struct ledger *ledger, const struct ledger_counts *counts)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return;
	ledger_put_forget(out, counts);
	if (fclose(out) == 0 && kernel_nft_commit(ledger->kernel, text, &error) < 0)
		log_debug("what was counted of %s cannot be forgotten: %s", counts->interface, error ? error : "");
}

/* Interfaces that have gone: in the kernel if they had counted anything, and here. */
static void tidy(struct ledger *ledger, const struct ledger_row *rows, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < ledger->n_bases; i++) {
		struct base *base = &ledger->bases[i];

		base->gone = base->seen ? 0 : base->gone + 1;
		if (base->gone < LEDGER_LOOKS_GONE) {
			ledger->bases[kept++] = *base;
			continue;
		}
		for (size_t k = 0; k < n; k++)
			if (strcmp(rows[k].counts.interface, base->interface) == 0)
				forget(ledger, &rows[k].counts);
	}
	ledger->n_bases = kept;
}

void ledger_tend(struct ledger *ledger)
{
	_cleanup_free_ struct ledger_row *rows = NULL;
	size_t n = 0, omitted;

	if (ledger_look(ledger, &rows, &n, &omitted) == 0)
		tidy(ledger, rows, n);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	ledger_tend(userdata);
	(void)sd_event_source_set_time_relative(source, LEDGER_LOOK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int ledger_new(sd_event *event, struct kernel *kernel, struct shield *shield, const struct shortcut *shortcut,
        struct ledger **ret)
{
	struct ledger *ledger = calloc(1, sizeof(*ledger));

	if (!ledger)
		return -ENOMEM;
	ledger->kernel = kernel;
	ledger->shield = shield;
	ledger->shortcut = shortcut;
	if (event && sd_event_add_time_relative(event, &ledger->timer, CLOCK_MONOTONIC, 0, 0, on_timer, ledger) < 0) {
		free(ledger);
		return -ENOMEM;
	}
	*ret = ledger;
	return 0;
}

void ledger_free(struct ledger *ledger)
{
	if (!ledger)
		return;
	sd_event_source_disable_unref(ledger->timer);
	free(ledger->bases);
	free(ledger);
}
