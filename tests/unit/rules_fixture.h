/*
 * For the tests of rules/: listeners from a few words, random listeners that
 * overlap a lot, and comparing models. Included by one .c file per test.
 */
#ifndef GW_TESTS_RULES_FIXTURE_H
#define GW_TESTS_RULES_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "rules/plan.h"
#include "rules/render_nft.h"
#include "tests/unit/amount.h"

#define FIXTURE static __attribute__((unused))

/* A deterministic generator, so that a failure can be run again. */
static uint64_t fixture_state = 1;

FIXTURE unsigned fixture_random(unsigned below)
{
	uint64_t word = fixture_state += 0x9e3779b97f4a7c15ULL; /* splitmix64 */

	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ULL;
	word = (word ^ (word >> 27)) * 0x94d049bb133111ebULL;
	return (unsigned)((word ^ (word >> 31)) % below);
}

FIXTURE double fixture_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Appends the words of a list separated by blanks. */
FIXTURE void fixture_words(struct strings *strings, const char *words)
{
	char copy[512], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", words);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		assert_int_equal(strings_append(strings, word), 0);
}

FIXTURE struct listener *fixture_listener(const char *name, int64_t id, const char *interfaces, const char *sources,
        const char *destinations, const char *ports)
{
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

	assert_non_null(listener);
	snprintf(listener->name, sizeof(listener->name), "%s", name);
	listener->row.id = id;
	fixture_words(&listener->interfaces, interfaces);
	fixture_words(&listener->sources, sources);
	fixture_words(&listener->destinations, destinations);
	fixture_words(&listener->ports, ports);
	return listener;
}

/* Puts the listener in, taking over the caller's reference. */
FIXTURE void fixture_put(struct snapshot *snapshot, struct listener *listener)
{
	assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
	row_unref(&listener->row);
}

FIXTURE const char *fixture_pick(const char *const *words, unsigned n)
{
	return words[fixture_random(n)];
}

/* Lists that overlap in every way: nested and equal prefixes, ranges, both families. */
FIXTURE struct listener *fixture_random_listener(unsigned number)
{
	static const char *const interfaces[] = { "", "", "", "eth0", "eth1", "eth0 lan.5" };
	static const char *const sources[] = { "", "", "", "", "10.9.0.0/16", "10.9.1.0/24", "10.9.1.7",
		"10.9.1.0-10.9.1.9", "fd00:9::/32", "fd00:9::1 10.9.1.7" };
	static const char *const destinations[] = { "", "", "", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1",
		"10.1.1.0-10.1.1.6", "fd00:1::/32", "fd00:1:2::/48", "fd00:1::1", "10.1.0.0/16 fd00:1::/32",
		"10.1.1.0/25 10.1.1.0/24" };
	static const char *const ports[] = { "", "80", "443", "80 443", "1-100", "80-90", "85-95", "81 85-86",
		"400-500", "430-450 443", "1-65535", "79-80 90-101" };
	struct listener *listener;
	char name[32];

	snprintf(name, sizeof(name), "listener-%u", number);
	listener = fixture_listener(name, number + 1, fixture_pick(interfaces, ARRAY_SIZE(interfaces)),
	        fixture_pick(sources, ARRAY_SIZE(sources)), fixture_pick(destinations, ARRAY_SIZE(destinations)),
	        fixture_pick(ports, ARRAY_SIZE(ports)));
	listener->enabled = fixture_random(10) > 0;
	listener->protocol = fixture_random(5) > 0 ? PROTOCOL_TCP : PROTOCOL_UDP;
	listener->action =
	        listener->protocol == PROTOCOL_TCP ? fixture_random(ACTION_WORDS) : ACTION_REJECT + fixture_random(3);
	listener->on_worker_down = fixture_random(2);
	listener->priority = fixture_random(2);
	return listener;
}

/* Plans from one snapshot to the other and commits; the plan's result if it is refused. */
FIXTURE int fixture_apply(struct model *model, struct snapshot *from, struct snapshot *to)
{
	struct errs errs = { 0 };
	struct plan *plan = NULL;
	int r = plan_new(model, from, to, &errs, &plan);

	if (r == 0)
		plan_commit(model, plan);
	else
		assert_true(errs.n > 0);
	errs_clear(&errs);
	return r;
}

/* A model of this snapshot from nothing. */
FIXTURE struct model *fixture_model(struct snapshot *snapshot)
{
	struct snapshot *empty = snapshot_new();
	struct model *model;

	assert_int_equal(model_new(&model), 0);
	assert_int_equal(fixture_apply(model, empty, snapshot), 0);
	snapshot_unref(empty);
	return model;
}

FIXTURE bool fixture_same_element(const struct element *a, const struct element *b, bool listeners)
{
	return match_key_compare(&a->key, &b->key) == 0 && a->verdict == b->verdict && a->own_range == b->own_range &&
	       (!listeners || a->listener == b->listener);
}

FIXTURE void fixture_same_elements(const struct elements *a, const struct elements *b, bool listeners)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++)
		assert_true(fixture_same_element(&a->items[i], &b->items[i], listeners));
}

/* Adds, replaces or removes one random listener in an edit of the snapshot; returns the edit. */
FIXTURE struct snapshot *fixture_random_edit(const struct snapshot *from, unsigned names)
{
	struct snapshot *to = snapshot_edit(from, from->revision + 1);
	struct listener *listener = fixture_random_listener(fixture_random(names));

	assert_non_null(to);
	if (fixture_random(4) == 0) {
		(void)snapshot_remove(to, RESOURCE_LISTENER, listener->name);
		row_unref(&listener->row);
	} else {
		fixture_put(to, listener);
	}
	return to;
}

#endif
