/* The hash index of cells; see cells.h. */
#include "rules/cells.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"

/* First number of buckets; doubled when there are as many cells. A power of two. */
#define BUCKETS_MIN 64U

/* Keys are hashed and compared as bytes. */
static_assert(sizeof(struct match_key) == 6 + 2 * sizeof(struct addr) + IFNAMSIZ + 2 * sizeof(uint16_t), "no padding");

/* FNV-1a: keys are short, and come from an administrator, not from packets. */
static size_t hash_key(const struct match_key *key)
{
	const unsigned char *bytes = (const unsigned char *)key;
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < sizeof(*key); i++)
		hash = (hash ^ bytes[i]) * 1099511628211ULL;
	return (size_t)(hash ^ (hash >> 32));
}

static struct cell **bucket_of(const struct cell_index *index, const struct match_key *key)
{
	return &index->buckets[hash_key(key) & (index->n_buckets - 1)];
}

static int grow(struct cell_index *index)
{
	struct cell_index larger = { .n_buckets = index->n_buckets ? index->n_buckets * 2 : BUCKETS_MIN };

	larger.buckets = calloc(larger.n_buckets, sizeof(struct cell *));
	if (!larger.buckets)
		return -ENOMEM;
	for (size_t i = 0; i < index->n_buckets; i++)
		for (struct cell *cell = index->buckets[i], *chain; cell; cell = chain) {
			struct cell **bucket = bucket_of(&larger, &cell->key);

			chain = cell->chain;
			cell->chain = *bucket;
			*bucket = cell;
		}
	free(index->buckets);
	index->buckets = larger.buckets;
	index->n_buckets = larger.n_buckets;
	return 0;
}

int cells_get(struct cell_index *index, const struct match_key *key, struct cell **ret)
{
	struct cell *cell, **bucket;

	if (index->n_cells >= index->n_buckets && grow(index) < 0)
		return -ENOMEM;
	bucket = bucket_of(index, key);
	for (cell = *bucket; cell; cell = cell->chain)
		if (memcmp(&cell->key, key, sizeof(*key)) == 0) {
			*ret = cell;
			return 0;
		}
	cell = calloc(1, sizeof(*cell));
	if (!cell)
		return -ENOMEM;
	cell->key = *key;
	cell->chain = *bucket;
	*bucket = cell;
	index->n_cells++;
	*ret = cell;
	return 0;
}

const struct cell *cells_find(const struct cell_index *index, const struct match_key *key)
{
	const struct cell *cell = index->n_buckets > 0 ? *bucket_of(index, key) : NULL;

	while (cell && memcmp(&cell->key, key, sizeof(*key)) != 0)
		cell = cell->chain;
	return cell;
}

struct contender *const *state_contenders(const struct cell_state *state, size_t *ret_n)
{
	*ret_n = state->crowd ? state->crowd->n : state->one ? 1 : 0;
	return state->crowd ? state->crowd->items : &state->one;
}

const struct piece *state_pieces(const struct cell_state *state, size_t *ret_n)
{
	*ret_n = state->crowd ? state->crowd->n_pieces : state->one ? state->one->n_pieces : 0;
	return state->crowd ? state->crowd->pieces : state->one ? state->one->pieces : NULL;
}

static int make_crowd(struct cell_state *state)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	if (!crowd || array_reserve(&crowd->items, &crowd->size, 2, sizeof(struct contender *)) < 0) {
		free(crowd);
		return -ENOMEM;
	}
	crowd->items[crowd->n++] = TAKE_PTR(state->one);
	state->crowd = crowd;
	return 0;
}

int state_join(struct cell_state *state, struct contender *contender)
{
	struct crowd *crowd;

	if (!state->one && !state->crowd)
		state->one = contender;
	if (state->one == contender)
		return 0;
	if (!state->crowd && make_crowd(state) < 0)
		return -ENOMEM;
	crowd = state->crowd;
	if (crowd->items[crowd->n - 1] == contender)
		return 0;
	if (array_reserve(&crowd->items, &crowd->size, crowd->n + 1, sizeof(contender)) < 0)
		return -ENOMEM;
	crowd->items[crowd->n++] = contender;
	return 0;
}

void state_leave(struct cell_state *state, const struct contender *contender)
{
	struct crowd *crowd = state->crowd;

	if (state->one == contender)
		state->one = NULL;
	for (size_t i = 0; crowd && i < crowd->n; i++)
		if (crowd->items[i] == contender)
			crowd->items[i] = crowd->items[--crowd->n];
	if (!crowd || crowd->n > 1)
		return;
	if (crowd->n == 1)
		state->one = crowd->items[0];
	free(crowd->items);
	free(crowd);
	state->crowd = NULL;
}

int state_cut(struct cell_state *state, struct tie *ret_tie)
{
	struct crowd *crowd = state->crowd;

	return crowd ? pieces_cut(crowd->items, crowd->n, &crowd->pieces, &crowd->n_pieces, ret_tie) : 0;
}

void state_clear(struct cell_state *state)
{
	if (state->crowd) {
		free(state->crowd->items);
		free(state->crowd->pieces);
		free(state->crowd);
	}
	*state = (struct cell_state){ 0 };
}

static void cell_free(struct cell *cell)
{
	state_clear(&cell->now);
	free(cell);
}

void cells_remove(struct cell_index *index, struct cell *cell)
{
	struct cell **link = bucket_of(index, &cell->key);

	while (*link != cell)
		link = &(*link)->chain;
	*link = cell->chain;
	index->n_cells--;
	cell_free(cell);
}

void cells_free(struct cell_index *index)
{
	for (size_t i = 0; i < index->n_buckets; i++)
		for (struct cell *cell = index->buckets[i], *chain; cell; cell = chain) {
			chain = cell->chain;
			cell_free(cell);
		}
	free(index->buckets);
	*index = (struct cell_index){ 0 };
}

void cell_element(const struct cell *cell, const struct piece *piece, struct element *ret)
{
	*ret = (struct element){ .key = cell->key,
		.verdict = piece->verdict,
		.listener = piece->listener,
		.limited = piece->limited,
		.own_range = piece->own_range };
	ret->key.shape.port_kind = piece->kind;
	ret->key.port_lo = piece->lo;
	ret->key.port_hi = piece->hi;
}
