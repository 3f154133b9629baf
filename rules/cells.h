/*
 * The inside of the model: contenders (compiled listeners) and cells, the
 * index of which contenders meet where. Private to plan.c, stage.c, cells.c,
 * contender.c and pieces.c; everybody else knows plan.h only.
 *
 * Ownership: the model owns contenders (one per listener row of the snapshot
 * in force, in the snapshot's order) and cells. A cell points at its
 * contenders; a contender's cells follow from its row (reach.h) and are not
 * kept. During a plan the next state of every touched cell lies in the stage,
 * so that commit is a swap of states and abort a release.
 *
 * Memory counts: with an address set of 100,000 entries there are as many
 * cells, nearly all of them with one contender. Such a cell has no arrays of
 * its own: its pieces are those that its contender's ports make alone.
 */
#ifndef GW_RULES_CELLS_H
#define GW_RULES_CELLS_H

#include "rules/plan.h"

/* A stretch of ports of a cell and who owns it; sorted by kind, then port; disjoint within a kind. */
struct piece {
	uint8_t kind; /* enum match_port_kind */
	uint16_t lo, hi;
	enum verdict verdict;
	uint32_t listener;
	bool limited;
	bool own_range; /* see PLAN_OWN_RANGE_MIN */
};

/* A listener, compiled: everything the cutting of ports needs without parsing text again. */
struct contender {
	struct row *row; /* a reference */
	const char *name;
	int64_t priority;
	uint32_t listener; /* row id */
	enum verdict verdict;
	bool has_sets;
	bool limited;
	bool own_ranges;          /* its ranges have sets of their own */
	bool leaving;             /* the plan in hand removes it */
	struct port_range *ports; /* none: any port */
	size_t n_ports;
	struct piece *pieces; /* of a cell where nobody else is */
	size_t n_pieces;
	size_t n_elements, next_elements; /* its part of the limits, and after the plan in hand */
};

/* Several contenders of one cell. */
struct crowd {
	struct contender **items;
	size_t n, size;
	struct piece *pieces;
	size_t n_pieces;
};

/* Who is in a cell: nobody, one, or several. At most one of the two is set. */
struct cell_state {
	struct contender *one;
	struct crowd *crowd;
};

struct cell {
	struct match_key key; /* port_kind, port_lo and port_hi are 0 */
	uint32_t staged;      /* index in the stage and 1, or 0 */
	struct cell *chain;   /* in its bucket */
	struct cell_state now;
};

struct cell_index {
	struct cell **buckets;
	size_t n_buckets, n_cells;
};

/* How many elements of a group there are; sorted by group_compare, none with 0. */
struct group_count {
	struct group group;
	size_t count;
	size_t blocks; /* of ports, of ranges; see PLAN_BLOCKS_MAX */
};

struct staged_cell {
	struct cell *cell;
	struct cell_state next;
};

/* What a plan prepared and its commit or abort takes up. */
struct stage {
	struct staged_cell *cells;
	size_t n_cells, cells_size;
	struct contender **contenders; /* parallel to the target's listeners; shares those that stay */
	size_t n_contenders;
	struct contender **arriving; /* those of them that are new */
	size_t n_arriving, arriving_size;
	struct group_count *groups;
	size_t n_groups;
	size_t total; /* elements of all contenders together */
	struct limits *limits;
};

struct model {
	struct cell_index cells;
	struct contender **contenders; /* parallel to the listeners of the snapshot in force */
	size_t n_contenders;
	struct group_count *groups;
	size_t n_groups;
	size_t total;
	struct limits *limits; /* NULL: nothing is in force yet */
	struct stage stage;
	bool planning;
};

/* The cell of this key, made if there is none. -ENOMEM. */
int cells_get(struct cell_index *index, const struct match_key *key, struct cell **ret);
/* The same, NULL if there is none. */
const struct cell *cells_find(const struct cell_index *index, const struct match_key *key);
/* Unlinks and frees the cell. */
void cells_remove(struct cell_index *index, struct cell *cell);
void cells_free(struct cell_index *index);
/* The element that a piece of this cell is. */
void cell_element(const struct cell *cell, const struct piece *piece, struct element *ret);

/* Who is in, and the pieces of all; borrowed. pieces of a crowd are there after state_cut. */
struct contender *const *state_contenders(const struct cell_state *state, size_t *ret_n);
const struct piece *state_pieces(const struct cell_state *state, size_t *ret_n);
/* Adds a contender, unless it was the last one added. -ENOMEM. */
int state_join(struct cell_state *state, struct contender *contender);
/* Takes it out, if it is in. */
void state_leave(struct cell_state *state, const struct contender *contender);
void state_clear(struct cell_state *state);

/* Longest pointer to a field of a listener, with its terminator. */
#define CONTENDER_POINTER_MAX 128
/* "/listeners/NAME" with what is behind it. */
void contender_pointer(const struct contender *contender, const char *behind, char buffer[CONTENDER_POINTER_MAX]);

/* Two contenders that tie, and the ports they share. */
struct tie {
	const struct contender *a, *b;
	uint8_t kind;
	uint16_t lo, hi;
};

/* Makes the pieces of a state that is complete. -ENOMEM; -EEXIST and the first tie. */
int state_cut(struct cell_state *state, struct tie *ret_tie);
/* Cuts the ports of contenders into disjoint pieces, a new array. Errors as above. */
int pieces_cut(struct contender *const *contenders, size_t n_contenders, struct piece **ret, size_t *ret_n,
        struct tie *ret_tie);

/* Compiles a listener. -EINVAL with a fault in errs ("invalid"), -ENOMEM. */
int contender_new(struct row *row, struct errs *errs, struct contender **ret);
/* Gives its ranges sets of their own, before it joins a cell. */
void contender_own_ranges(struct contender *contender);
void contender_free(struct contender *contender);

/* Stages what leads from one snapshot's listeners and address sets to the other's: contenders, and the cells they
 * join or leave. Goes on after a refused listener, so that all faults are told at once. -EINVAL with faults in errs,
 * -ENOMEM; what was staged so far is for stage_abort. */
int stage_listeners(struct model *model, const struct snapshot *from, const struct snapshot *to, struct errs *errs);
/* Ends of a stage: the next state becomes the present one, or is forgotten. */
void stage_commit(struct model *model);
void stage_abort(struct model *model);

#endif
