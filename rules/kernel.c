/* Dispatch to the real or the fake kernel, and what both share; see kernel.h. */
#include "rules/kernel.h"

#include <stdlib.h>

#include "rules/kernel_ops.h"

void kernel_free(struct kernel *kernel)
{
	if (kernel)
		kernel->ops->free(kernel);
}

int kernel_nft_check(struct kernel *kernel, const char *text, char **ret_error)
{
	return kernel->ops->check(kernel, text, ret_error);
}

int kernel_nft_commit(struct kernel *kernel, const char *text, char **ret_error)
{
	return kernel->ops->commit(kernel, text, ret_error);
}

uint64_t kernel_nft_commits(const struct kernel *kernel)
{
	return kernel->commits;
}

int kernel_nft_read(struct kernel *kernel, struct kernel_state *ret)
{
	return kernel->ops->read(kernel, ret);
}

int kernel_nft_list(struct kernel *kernel, char **ret_text)
{
	return kernel->ops->list(kernel, ret_text);
}

int kernel_nft_foreign(struct kernel *kernel, json_t **ret)
{
	return kernel->ops->foreign(kernel, ret);
}

int kernel_nft_counters(struct kernel *kernel, json_t **ret)
{
	return kernel->ops->counters(kernel, ret);
}

int kernel_nft_ledger(struct kernel *kernel, struct ledger_counts **ret, size_t *ret_n)
{
	return kernel->ops->ledger(kernel, ret, ret_n);
}

int kernel_nft_addresses(struct kernel *kernel, const char *set, kernel_address_visitor visitor, void *userdata)
{
	return kernel->ops->addresses(kernel, set, visitor, userdata);
}

int kernel_nft_address(struct kernel *kernel, const char *set, const struct addr *addr, int64_t *ret_left_ms)
{
	return kernel->ops->address(kernel, set, addr, ret_left_ms);
}

int kernel_nft_rules(struct kernel *kernel, char **ret_text)
{
	return kernel->ops->rules(kernel, ret_text);
}

int kernel_route_sync(struct kernel *kernel, const struct route_params *params, unsigned *ret_changed)
{
	unsigned changed = 0;
	int r = kernel->ops->route_sync(kernel, params, &changed);

	if (r == 0 && ret_changed)
		*ret_changed = changed;
	return r;
}

int kernel_route_look(struct kernel *kernel, const struct route_params *params, struct route_look *ret)
{
	return kernel->ops->route_look(kernel, params, ret);
}

int kernel_renew(struct kernel *kernel)
{
	return kernel->ops->renew(kernel);
}

int kernel_cleanup(struct kernel *kernel)
{
	return kernel->ops->cleanup(kernel);
}

void kernel_state_clear(struct kernel_state *state)
{
	free(state->elements.items);
	free(state->odd.items);
	free(state->groups);
	for (size_t i = 0; i < state->n_strays; i++)
		free(state->strays[i].name);
	free(state->strays);
	*state = (struct kernel_state){ 0 };
}
