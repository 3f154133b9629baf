/*
 * The inside of the model: contenders (compiled listeners) and cells, the
 * index of which contenders meet where. Private to plan.c, cells.c,
 * contender.c and pieces.c; everybody else knows plan.h only.
 *
 * Ownership: the model owns contenders (one per listener row of the snapshot
 * in force, in the snapshot's order) and cells; both point at each other
 * without references. During a plan the next state of every touched cell lies
 * beside its present one (struct cell_state), so that commit is a swap of
 * pointers and abort a release.
 */
#ifndef GW_RULES_CELLS_H
#define GW_RULES_CELLS_H

#include "rules/plan.h"

struct cell;

/* A listener, compiled: everything the cutting of ports needs without parsing text again. */
struct contender {
	struct row *row; /* a reference */
	const char *name;
	int64_t priority;
	uint32_t listener; /* row id */
	enum verdict verdict;
	struct port_range *ports; /* none: any port */
	size_t n_ports;
	struct cell **cells; /* where it takes part; none for a disabled listener */
	size_t n_cells;
	bool leaving; /* the plan in hand removes it */
};

/* A stretch of ports of a cell and who owns it; sorted by kind, then port; disjoint within a kind. */
struct piece {
	uint8_t kind; /* enum match_port_kind */
	uint16_t lo, hi;
	enum verdict verdict;
	uint32_t listener;
};

struct cell_state {
	struct contender **contenders;
	size_t n_contenders, contenders_size;
	struct piece *pieces;
	size_t n_pieces;
};

struct cell {
	struct cell *chain;   /* in its bucket */
	struct match_key key; /* port_kind, port_lo and port_hi are 0 */
	struct cell_state now, next;
	bool staged; /* next holds what the plan in hand makes of it */
};

struct cell_index {
	struct cell **buckets;
	size_t n_buckets, n_cells;
};

/* How many elements of a shape there are; sorted in order of precedence, none with 0. */
struct shape_count {
	struct match_shape shape;
	size_t count;
};

/* What a plan prepared and its commit or abort takes up. */
struct stage {
	struct cell **cells;
	size_t n_cells, cells_size;
	struct contender **contenders; /* parallel to the target's listeners; shares those that stay */
	size_t n_contenders;
	struct contender **arriving; /* those of them that are new */
	size_t n_arriving, arriving_size;
	struct shape_count *shapes;
	size_t n_shapes;
};

struct model {
	struct cell_index cells;
	struct contender **contenders; /* parallel to the listeners of the snapshot in force */
	size_t n_contenders;
	struct shape_count *shapes;
	size_t n_shapes;
	struct stage stage;
	bool planning;
};

/* Makes *items (of item_size bytes each) hold at least `need`; 0 or -ENOMEM. */
int array_reserve(void *items, size_t *size, size_t need, size_t item_size);

/* The cell of this key, made if there is none. -ENOMEM. */
int cells_get(struct cell_index *index, const struct match_key *key, struct cell **ret);
/* Unlinks and frees the cell. */
void cells_remove(struct cell_index *index, struct cell *cell);
void cells_free(struct cell_index *index);
void cell_state_clear(struct cell_state *state);
/* The element that a piece of this cell is. */
void cell_element(const struct cell *cell, const struct piece *piece, struct element *ret);

/* Compiles a listener and finds (or makes) its cells, without telling the cells. -EINVAL with a fault in
 * errs ("too_complex", "invalid"), -ENOMEM. */
int contender_new(struct cell_index *index, struct row *row, struct errs *errs, struct contender **ret);
void contender_free(struct contender *contender);

/* Two contenders that tie, and the ports they share. */
struct tie {
	const struct contender *a, *b;
	uint8_t kind;
	uint16_t lo, hi;
};

/* Cuts the ports of the state's contenders into state->pieces (must be NULL before). -ENOMEM; -EEXIST and the
 * first tie. */
int pieces_cut(struct cell_state *state, struct tie *ret_tie);

#endif
