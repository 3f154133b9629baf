/*
 * A kernel in memory, for tests of the core: counts calls, fails on request,
 * keeps the last committed text, and follows the lines that our own renderer
 * writes well enough to answer kernel_nft_read (sets, elements, generation).
 * It trusts the text: whether nft would take it is for test_kernel_nft to say.
 */
#include "gatewayd/base/array.h"
#include "rules/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/kernel_ops.h"
#include "rules/ledger.h"
#include "rules/render_chains.h"
#include "rules/nftset.h"

#define PREFIX " inet " NFT_TABLE " "

struct fault {
	unsigned countdown; /* 0: none */
	unsigned times;     /* that fail, from the one at the end of it on */
	int error;
};

struct fake_kernel {
	struct kernel kernel;
	unsigned calls[KERNEL_CALLS];
	struct fault faults[KERNEL_CALLS];
	char *committed;
	struct kernel_state state;
	size_t elements_size, groups_size;
	struct route_params routes;
	bool has_routes;
	const struct ledger_counts *ledger;
	size_t n_ledger;
};

static struct fake_kernel *fake_of(struct kernel *kernel)
{
	return (struct fake_kernel *)kernel;
}

/* Counts the call; the error to fail with, or 0. */
static int enter(struct fake_kernel *fake, enum kernel_call call)
{
	struct fault *fault = &fake->faults[call];

	fake->calls[call]++;
	if (fault->countdown == 0 || --fault->countdown > 0)
		return 0;
	fault->countdown = --fault->times > 0;
	return fault->error;
}

static int refuse(int error, char **ret_error)
{
	if (ret_error)
		*ret_error = error < 0 ? strdup("simulated failure") : NULL;
	return error;
}

static void forget_table(struct fake_kernel *fake)
{
	kernel_state_clear(&fake->state);
	fake->elements_size = 0;
	fake->groups_size = 0;
}

static bool is_same_key(const struct element *a, const struct element *b)
{
	struct group one = element_group(a), other = element_group(b);

	return group_compare(&one, &other) == 0 && match_key_compare(&a->key, &b->key) == 0;
}

static size_t find_element(const struct elements *elements, const struct element *element)
{
	size_t i = 0;

	/* By the key alone: that is how one is deleted, wherever it leads. */
	while (i < elements->n && !is_same_key(&elements->items[i], element))
		i++;
	return i;
}

static int change_element(struct fake_kernel *fake, const struct element *element, bool add)
{
	struct elements *all = &fake->state.elements;
	size_t at = find_element(all, element);

	if (add != (at == all->n))
		return add ? -EEXIST : -ENOENT;
	if (add) {
		if (array_reserve(&all->items, &fake->elements_size, all->n + 1, sizeof(*element)) < 0)
			return -ENOMEM;
		all->items[all->n++] = *element;
		return 0;
	}
	memmove(&all->items[at], &all->items[at + 1], (all->n - at - 1) * sizeof(*element));
	all->n--;
	return 0;
}

/* One line within an element statement: "10.0.0.0 . 443,". */
static int take_element(struct fake_kernel *fake, char *line, const struct group *group, bool add)
{
	struct element element;
	int r = nftset_parse_element(line, group, &element);

	return r < 0 ? r : change_element(fake, &element, add);
}

static int add_set(struct fake_kernel *fake, const struct group *group)
{
	struct kernel_state *state = &fake->state;

	if (array_reserve(&state->groups, &fake->groups_size, state->n_groups + 1, sizeof(*group)) < 0)
		return -ENOMEM;
	state->groups[state->n_groups++] = *group;
	return 0;
}

static void delete_set(struct fake_kernel *fake, const struct group *group)
{
	struct kernel_state *state = &fake->state;
	size_t kept = 0;

	for (size_t i = 0; i < state->n_groups; i++)
		if (group_compare(&state->groups[i], group) != 0)
			state->groups[kept++] = state->groups[i];
	state->n_groups = kept;
	kept = 0;
	for (size_t i = 0; i < state->elements.n; i++) {
		struct group of = element_group(&state->elements.items[i]);

		if (group_compare(&of, group) != 0)
			state->elements.items[kept++] = state->elements.items[i];
	}
	state->elements.n = kept;
}

/* A line that is a command; *in_set says whether the lines up to "}" are elements of *group. */
static int take_command(struct fake_kernel *fake, const char *line, struct group *group, bool *in_set)
{
	char name[64] = "";
	unsigned generation;

	if (strcmp(line, "delete table inet " NFT_TABLE) == 0) {
		forget_table(fake);
	} else if (sscanf(line, "add element" PREFIX "generation { %x }", &generation) == 1) {
		fake->state.generation = generation;
	} else if (sscanf(line, "add set" PREFIX "%63s", name) == 1 ||
	           sscanf(line, "add map" PREFIX "%63s", name) == 1) {
		/* The others are of the skeleton. */
		return nftset_group_of_name(name, group) == 0 ? add_set(fake, group) : 0;
	} else if (sscanf(line, "delete set" PREFIX "%63s", name) == 1 ||
	           sscanf(line, "delete map" PREFIX "%63s", name) == 1) {
		if (nftset_group_of_name(name, group) == 0)
			delete_set(fake, group);
	} else if (sscanf(line, "%*[a-z] element" PREFIX "%63s {", name) == 1 && !strchr(line, '}')) {
		*in_set = nftset_group_of_name(name, group) == 0;
	}
	return 0;
}

static int follow(struct fake_kernel *fake, char *text)
{
	struct group group;
	bool in_set = false, add = false;
	char *save = NULL;
	int r = 0;

	for (char *line = strtok_r(text, "\n", &save); r == 0 && line; line = strtok_r(NULL, "\n", &save)) {
		if (strcmp(line, "}") == 0) {
			in_set = false;
		} else if (in_set) {
			r = take_element(fake, line, &group, add);
		} else {
			add = line[0] == 'a';
			r = take_command(fake, line, &group, &in_set);
		}
	}
	fake->state.present = true;
	fake->state.compatible = true;
	return r;
}

static int fake_check(struct kernel *kernel, const char *text, char **ret_error)
{
	(void)text;
	return refuse(enter(fake_of(kernel), KERNEL_NFT_CHECK), ret_error);
}

static int fake_commit(struct kernel *kernel, const char *text, char **ret_error)
{
	struct fake_kernel *fake = fake_of(kernel);
	_cleanup_free_ char *work = NULL;
	int r = enter(fake, KERNEL_NFT_COMMIT);

	if (r < 0)
		return refuse(r, ret_error);
	free(fake->committed);
	fake->committed = strdup(text);
	work = strdup(text);
	if (!fake->committed || !work)
		return refuse(-ENOMEM, ret_error);
	return refuse(follow(fake, work), ret_error);
}

static void *copy_of(const void *items, size_t bytes)
{
	void *copy = malloc(bytes ? bytes : 1);

	if (copy && bytes)
		memcpy(copy, items, bytes);
	return copy;
}

static int fake_read(struct kernel *kernel, struct kernel_state *ret)
{
	struct fake_kernel *fake = fake_of(kernel);
	struct kernel_state copy = fake->state;
	int r = enter(fake, KERNEL_NFT_READ);

	if (r < 0)
		return r;
	copy.elements.items = copy_of(copy.elements.items, copy.elements.n * sizeof(*copy.elements.items));
	copy.odd = (struct elements){ 0 };
	copy.strays = NULL;
	copy.n_strays = 0;
	copy.groups = copy_of(copy.groups, copy.n_groups * sizeof(*copy.groups));
	if (!copy.elements.items || !copy.groups) {
		kernel_state_clear(&copy);
		return -ENOMEM;
	}
	elements_sort(&copy.elements);
	qsort(copy.groups, copy.n_groups, sizeof(*copy.groups), group_compare_items);
	*ret = copy;
	return 0;
}

static int fake_list(struct kernel *kernel, char **ret_text)
{
	struct fake_kernel *fake = fake_of(kernel);
	int r = enter(fake, KERNEL_NFT_LIST);
	char *copy;

	if (r < 0)
		return r;
	copy = strdup(fake->state.present && fake->committed ? fake->committed : "");
	if (!copy)
		return -ENOMEM;
	*ret_text = copy;
	return 0;
}

static int fake_foreign(struct kernel *kernel, json_t **ret)
{
	(void)kernel;
	return (*ret = json_array()) ? 0 : -ENOMEM;
}

static int fake_counters(struct kernel *kernel, json_t **ret)
{
	(void)kernel;
	return (*ret = json_object()) ? 0 : -ENOMEM;
}

static int fake_ledger(struct kernel *kernel, struct ledger_counts **ret, size_t *ret_n)
{
	const struct fake_kernel *fake = (const struct fake_kernel *)kernel;

	*ret = copy_of(fake->ledger, fake->n_ledger * sizeof(**ret));
	*ret_n = fake->n_ledger;
	return *ret ? 0 : -ENOMEM;
}

static int fake_addresses(struct kernel *kernel, const char *set, kernel_address_visitor visitor, void *userdata)
{
	(void)kernel;
	(void)set;
	(void)visitor;
	(void)userdata;
	return 0;
}

static int fake_address(struct kernel *kernel, const char *set, const struct addr *addr, int64_t *ret_left_ms)
{
	(void)kernel;
	(void)set;
	(void)addr;
	(void)ret_left_ms;
	return -ENOENT;
}

static int fake_rules(struct kernel *kernel, char **ret_text)
{
	(void)kernel;
	return (*ret_text = strdup("")) ? 0 : -ENOMEM;
}

static int fake_route_sync(struct kernel *kernel, const struct route_params *params, unsigned *ret_changed)
{
	struct fake_kernel *fake = fake_of(kernel);
	int r = enter(fake, KERNEL_ROUTE_SYNC);

	if (r < 0)
		return r;
	*ret_changed = !fake->has_routes || memcmp(&fake->routes, params, sizeof(*params)) != 0;
	fake->routes = *params;
	fake->has_routes = true;
	return 0;
}

static int fake_route_look(struct kernel *kernel, const struct route_params *params, struct route_look *ret)
{
	struct fake_kernel *fake = fake_of(kernel);

	*ret = (struct route_look){ .wrong = !fake->has_routes || memcmp(&fake->routes, params, sizeof(*params)) != 0 };
	return 0;
}

static int fake_renew(struct kernel *kernel)
{
	(void)kernel;
	return 0;
}

static int fake_cleanup(struct kernel *kernel)
{
	struct fake_kernel *fake = fake_of(kernel);
	int r = enter(fake, KERNEL_CLEANUP);

	if (r < 0)
		return r;
	forget_table(fake);
	fake->has_routes = false;
	return 0;
}

static void fake_free(struct kernel *kernel)
{
	struct fake_kernel *fake = fake_of(kernel);

	kernel_state_clear(&fake->state);
	free(fake->committed);
	free(fake);
}

static const struct kernel_ops fake_ops = {
	.check = fake_check,
	.commit = fake_commit,
	.read = fake_read,
	.list = fake_list,
	.foreign = fake_foreign,
	.counters = fake_counters,
	.ledger = fake_ledger,
	.addresses = fake_addresses,
	.address = fake_address,
	.rules = fake_rules,
	.route_sync = fake_route_sync,
	.route_look = fake_route_look,
	.renew = fake_renew,
	.cleanup = fake_cleanup,
	.free = fake_free,
};

int kernel_fake_new(struct kernel **ret)
{
	struct fake_kernel *fake = calloc(1, sizeof(*fake));

	if (!fake)
		return -ENOMEM;
	fake->kernel.ops = &fake_ops;
	*ret = &fake->kernel;
	return 0;
}

void kernel_fake_fail_at(struct kernel *kernel, enum kernel_call call, unsigned n, int error)
{
	kernel_fake_fail_from(kernel, call, n, 1, error);
}

void kernel_fake_fail_from(struct kernel *kernel, enum kernel_call call, unsigned n, unsigned times, int error)
{
	fake_of(kernel)->faults[call] = (struct fault){ n, times, error };
}

void kernel_fake_ledger(struct kernel *kernel, const struct ledger_counts *counts, size_t n)
{
	fake_of(kernel)->ledger = counts;
	fake_of(kernel)->n_ledger = n;
}

unsigned kernel_fake_calls(const struct kernel *kernel, enum kernel_call call)
{
	return ((const struct fake_kernel *)kernel)->calls[call];
}

const char *kernel_fake_committed(const struct kernel *kernel)
{
	const char *text = ((const struct fake_kernel *)kernel)->committed;

	return text ? text : "";
}
