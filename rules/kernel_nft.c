/*
 * The real kernel: nft transactions through libnftables, the only file that
 * includes it. One context for the life of the process, its output and errors
 * buffered; both buffers are read (and so emptied) after every command, for
 * they only grow otherwise. What is read is read as JSON: the text listing of
 * nft 1.0.6 is not complete.
 */
#include <nftables/libnftables.h>

#include "rules/kernel.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/kernel_bulk.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

/* Longest message of the library that is passed on: it quotes the text, and one of a big transaction is big. */
#define ERROR_MAX 2000U

/* How often the table is read again because somebody has changed it meanwhile: a storm must not hold us. */
#define READS_MAX 4U

struct nft_kernel {
	struct kernel kernel;
	struct nft_ctx *ctx;
	struct bulk_socket bulk;
	bool has_digest; /* of the table but its elements, as our last commit left it */
	uint64_t digest;
};

static struct nft_ctx *ctx_of(struct kernel *kernel)
{
	return ((struct nft_kernel *)kernel)->ctx;
}

/* The library's words, shortened and without the last newline; NULL if there are none or memory is out. */
static char *error_text(struct nft_ctx *ctx)
{
	const char *text = nft_ctx_get_error_buffer(ctx);
	size_t length = text ? strnlen(text, ERROR_MAX) : 0;

	while (length > 0 && isspace((unsigned char)text[length - 1]))
		length--;
	return length > 0 ? strndup(text, length) : NULL;
}

static int error_code(const char *error)
{
	static const struct {
		const char *words;
		int code;
	} known[] = { { "Operation not permitted", -EPERM }, { "Cannot allocate memory", -ENOMEM },
		{ "No buffer space available", -ENOMEM } };

	for (size_t i = 0; error && i < ARRAY_SIZE(known); i++)
		if (strstr(error, known[i].words))
			return known[i].code;
	return error ? -EINVAL : -EIO;
}

static int run(struct nft_ctx *ctx, unsigned flags, const char *text, char **ret_error)
{
	_cleanup_free_ char *error = NULL;
	int failed, r = 0;

	nft_ctx_output_set_flags(ctx, flags);
	failed = nft_run_cmd_from_buffer(ctx, text);
	error = error_text(ctx);
	if (failed)
		r = error_code(error);
	if (failed && ret_error)
		*ret_error = TAKE_PTR(error);
	return r;
}

static int transact(struct nft_ctx *ctx, const char *text, char **ret_error)
{
	_cleanup_free_ char *error = NULL;
	int r = run(ctx, 0, text, &error);

	nft_ctx_get_output_buffer(ctx);
	if (ret_error)
		*ret_error = r < 0 ? TAKE_PTR(error) : NULL;
	return r;
}

/* A context with its output and errors buffered; NULL when memory is out. */
static struct nft_ctx *context_new(void)
{
	struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);

	if (ctx && (nft_ctx_buffer_output(ctx) != 0 || nft_ctx_buffer_error(ctx) != 0)) {
		nft_ctx_free(ctx);
		return NULL;
	}
	return ctx;
}

/* In a context of its own: the library takes what a dry run did for done, and would go on from there. Elements of new
 * sets by the thousand are left out: the kernel would take as long for them as for good, and has no reason to refuse
 * some of them that it has not for all. */
static int nft_check(struct kernel *kernel, const char *text, char **ret_error)
{
	struct nft_ctx *ctx = context_new();
	struct bulk bulk;
	int r, split = 0;

	(void)kernel;
	if (ret_error)
		*ret_error = NULL;
	if (!ctx)
		return -ENOMEM;
	if (kernel_nft_is_large(text) && !kernel_bulk_replaces(text))
		split = kernel_bulk_split(text, &bulk);
	nft_ctx_set_dry_run(ctx, true);
	r = transact(ctx, split > 0 ? bulk.after : text, ret_error);
	nft_ctx_free(ctx);
	if (split > 0)
		kernel_bulk_clear(&bulk);
	return r;
}

static int list_json(struct nft_ctx *ctx, const char *command, unsigned flags, json_t **ret)
{
	json_t *listing;
	int r = run(ctx, NFT_CTX_OUTPUT_JSON | flags, command, NULL);
	const char *text = nft_ctx_get_output_buffer(ctx);

	if (r < 0)
		return r;
	listing = json_loads(text ? text : "", 0, NULL);
	if (!listing)
		return -EBADMSG;
	*ret = listing;
	return 0;
}

/* Whether a transaction changes only elements: every line that is not one of an element's begins a command. */
static bool changes_elements_only(const char *text)
{
	static const char *const commands[] = { " ", "}", "add element ", "delete element ", "flush set " };

	while (*text) {
		size_t i = 0;

		while (i < ARRAY_SIZE(commands) && strncmp(text, commands[i], strlen(commands[i])) != 0)
			i++;
		if (i == ARRAY_SIZE(commands))
			return false;
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return true;
}

/* Of the commands that list rules only this one leaves the elements in the kernel. */
static int list_without_elements(struct nft_ctx *ctx, json_t **ret)
{
	return list_json(ctx, "list ruleset inet", NFT_CTX_OUTPUT_NUMERIC_ALL | NFT_CTX_OUTPUT_TERSE, ret);
}

/* So that kernel_nft_read can tell when another hand was in. Who is quicker than this is told by kernel_watch.h. */
static void remember_digest(struct nft_kernel *nft)
{
	json_t *listing;

	nft->has_digest = false;
	if (list_without_elements(nft->ctx, &listing) < 0)
		return;
	nft->has_digest = kernel_parse_digest(listing, &nft->digest) == 0;
	json_decref(listing);
}

/* 1 or 0. Asked for by listing all tables, as a missing table and a broken one fail with the same words. */
static int table_exists(struct nft_ctx *ctx)
{
	json_t *listing, *object;
	size_t i;
	int found = 0, r = list_json(ctx, "list tables inet", 0, &listing);

	if (r < 0)
		return r;
	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		const char *name = json_string_value(json_object_get(json_object_get(object, "table"), "name"));

		if (name && strcmp(name, NFT_TABLE) == 0)
			found = 1;
	}
	json_decref(listing);
	return found;
}

static struct bulk_socket *bulk_of(struct kernel *kernel)
{
	return &((struct nft_kernel *)kernel)->bulk;
}

/* What netlink says of elements: there are no words. */
static int tell_bulk(int error, char **ret_error)
{
	if (error < 0 && ret_error && asprintf(ret_error, "the elements of a set: %s", strerror(-error)) < 0)
		*ret_error = NULL;
	if (error == -ENOBUFS)
		return -ENOMEM;
	return error == -EPERM || error == -ENOMEM || error >= 0 ? error : -EINVAL;
}

/* New sets are made and filled before the transaction that looks at them. */
static int commit_in_parts(struct kernel *kernel, const struct bulk *bulk, char **ret_error)
{
	unsigned commits = 0;
	int r = transact(ctx_of(kernel), bulk->before, ret_error);

	if (r < 0)
		return r;
	kernel->commits++;
	r = tell_bulk(kernel_bulk_load(bulk_of(kernel), bulk, &commits), ret_error);
	kernel->commits += commits;
	if (r == 0)
		r = transact(ctx_of(kernel), bulk->after, ret_error);
	if (r < 0)
		(void)transact(ctx_of(kernel), bulk->undo, NULL);
	/* An undo that fails is counted, too, so that whoever compares finds a difference and looks. */
	kernel->commits++;
	return r;
}

static int commit_whole(struct kernel *kernel, const char *text, char **ret_error)
{
	int r = transact(ctx_of(kernel), text, ret_error);

	kernel->commits += r == 0;
	return r;
}

/* A long text; 1 if it is for libnftables as a whole. */
static int commit_bulk(struct kernel *kernel, const char *text, char **ret_error)
{
	struct bulk bulk;
	int r;

	if (changes_elements_only(text)) {
		r = kernel_bulk_elements(bulk_of(kernel), text);
		kernel->commits += r == 0;
		return r == -ENOTSUP ? 1 : tell_bulk(r, ret_error);
	}
	/* Of a table that is there all goes at once, as it comes. */
	if (kernel_bulk_replaces(text) && table_exists(ctx_of(kernel)) != 0)
		return 1;
	r = kernel_bulk_split(text, &bulk);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = commit_in_parts(kernel, &bulk, ret_error);
	kernel_bulk_clear(&bulk);
	return r;
}

/* Few elements, without the library, which reads the table's sets from the kernel first. 1 if it is for the library: so
 * is what the kernel refuses, for the library says in words why. */
static int commit_few(struct kernel *kernel, const char *text)
{
	int r = kernel_bulk_elements(bulk_of(kernel), text);

	kernel->commits += r == 0;
	return r == 0 || r == -ENOMEM ? r : 1;
}

static int nft_commit(struct kernel *kernel, const char *text, char **ret_error)
{
	int r = 1;

	if (ret_error)
		*ret_error = NULL;
	if (kernel_nft_is_large(text))
		r = commit_bulk(kernel, text, ret_error);
	else if (changes_elements_only(text))
		r = commit_few(kernel, text);
	if (r > 0)
		r = commit_whole(kernel, text, ret_error);

	if (r == 0 && !changes_elements_only(text))
		remember_digest((struct nft_kernel *)kernel);
	return r;
}

static int parse_listing(const struct nft_kernel *nft, json_t *listing, struct kernel_state *ret)
{
	uint64_t digest;
	int r = kernel_parse_table(listing, ret);

	if (r == 0)
		r = kernel_parse_digest(listing, &digest);
	if (r == 0)
		ret->chains_differ |= !nft->has_digest || digest != nft->digest;
	return r;
}

static int read_once(struct nft_kernel *nft, struct kernel_state *ret)
{
	struct kernel_state state = { 0 };
	json_t *listing;
	int r = list_without_elements(nft->ctx, &listing);

	if (r < 0)
		return r;
	r = parse_listing(nft, listing, &state);
	json_decref(listing);
	if (r == 0 && state.present)
		r = kernel_dump(&state);
	if (r < 0)
		kernel_state_clear(&state);
	else
		*ret = state;
	return r;
}

static int nft_read(struct kernel *kernel, struct kernel_state *ret)
{
	int r = -EINTR;

	/* Somebody may change the table while it is read. */
	for (unsigned i = 0; r == -EINTR && i < READS_MAX; i++)
		r = read_once((struct nft_kernel *)kernel, ret);
	return r;
}

static int nft_list(struct kernel *kernel, char **ret_text)
{
	struct nft_ctx *ctx = ctx_of(kernel);
	const char *text;
	char *copy;
	int r = table_exists(ctx);

	if (r > 0)
		r = run(ctx, NFT_CTX_OUTPUT_NUMERIC_ALL, "list table inet " NFT_TABLE, NULL);
	text = nft_ctx_get_output_buffer(ctx);
	if (r < 0)
		return r;
	copy = strdup(text ? text : "");
	if (!copy)
		return -ENOMEM;
	*ret_text = copy;
	return 0;
}

/* The name goes into a command; others may have named their table as they liked. */
static bool name_is_plain(const char *name)
{
	return name[0] != '\0' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(name);
}

static int read_foreign_table(struct nft_ctx *ctx, const json_t *table, json_t *findings)
{
	const char *family = json_string_value(json_object_get(table, "family"));
	const char *name = json_string_value(json_object_get(table, "name"));
	json_t *listing = NULL;
	char command[256];
	int r;

	/* One that is gone since, or beyond this version of the library, has no rules that we know of. */
	if (family && name && name_is_plain(family) && name_is_plain(name) &&
	        (size_t)snprintf(command, sizeof(command), "list table %s %s", family, name) < sizeof(command) &&
	        list_json(ctx, command, NFT_CTX_OUTPUT_TERSE, &listing) < 0)
		listing = NULL;
	r = kernel_parse_foreign(table, listing, findings);
	json_decref(listing);
	return r;
}

static int find_foreign(struct nft_ctx *ctx, json_t *findings, json_t *tables)
{
	json_t *listing, *table;
	size_t i;
	int r = list_json(ctx, "list chains", NFT_CTX_OUTPUT_TERSE, &listing);

	if (r < 0)
		return r;
	r = kernel_parse_chains(listing, tables);
	json_decref(listing);
	json_array_foreach(tables, i, table)
	{
		if (r == 0)
			r = read_foreign_table(ctx, table, findings);
	}
	return r;
}

static int nft_foreign(struct kernel *kernel, json_t **ret)
{
	json_t *findings = json_array(), *tables = json_array();
	int r = findings && tables ? find_foreign(ctx_of(kernel), findings, tables) : -ENOMEM;

	json_decref(tables);
	if (r < 0)
		json_decref(findings);
	else
		*ret = findings;
	return r;
}

static int nft_counters(struct kernel *kernel, json_t **ret)
{
	(void)kernel;
	return kernel_counters_read(ret);
}

static int nft_ledger(struct kernel *kernel, struct ledger_counts **ret, size_t *ret_n)
{
	(void)kernel;
	return kernel_ledger_read(ret, ret_n);
}

static int nft_addresses(struct kernel *kernel, const char *set, kernel_address_visitor visitor, void *userdata)
{
	(void)kernel;
	return kernel_addresses_read(set, visitor, userdata);
}

static int nft_address(struct kernel *kernel, const char *set, const struct addr *addr, int64_t *ret_left_ms)
{
	(void)kernel;
	return kernel_address_find(set, addr, ret_left_ms);
}

static int nft_rules(struct kernel *kernel, char **ret_text)
{
	struct nft_ctx *ctx = ctx_of(kernel);
	int r = run(ctx, NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_TERSE, "list ruleset inet", NULL);
	const char *text = nft_ctx_get_output_buffer(ctx);

	if (r < 0)
		return r;
	*ret_text = strdup(text ? text : "");
	return *ret_text ? 0 : -ENOMEM;
}

static int nft_route_sync(struct kernel *kernel, const struct route_params *params, unsigned *ret_changed)
{
	(void)kernel;
	return kernel_route_apply(params, ret_changed);
}

static int nft_route_look(struct kernel *kernel, const struct route_params *params, struct route_look *ret)
{
	(void)kernel;
	return kernel_route_examine(params, ret);
}

/* Two processes on one socket would take each other's answers. What was inherited is not closed: the child has done
 * that, and its numbers may be others' by now. */
static int nft_renew(struct kernel *kernel)
{
	struct nft_kernel *nft = (struct nft_kernel *)kernel;
	struct nft_ctx *ctx = context_new();

	if (!ctx)
		return -ENOMEM;
	nft->ctx = ctx;
	nft->bulk = (struct bulk_socket){ 0 };
	return 0;
}

static int nft_cleanup(struct kernel *kernel)
{
	unsigned changed;
	int routes = kernel_route_apply(NULL, &changed), r;

	/* "add" first: deleting what does not exist is an error to nft. */
	r = transact(ctx_of(kernel), "add table inet " NFT_TABLE "\ndelete table inet " NFT_TABLE "\n", NULL);
	return r < 0 ? r : routes;
}

static void nft_free(struct kernel *kernel)
{
	nft_ctx_free(ctx_of(kernel));
	kernel_bulk_close(bulk_of(kernel));
	free(kernel);
}

static const struct kernel_ops nft_ops = {
	.check = nft_check,
	.commit = nft_commit,
	.read = nft_read,
	.list = nft_list,
	.foreign = nft_foreign,
	.counters = nft_counters,
	.ledger = nft_ledger,
	.addresses = nft_addresses,
	.address = nft_address,
	.rules = nft_rules,
	.route_sync = nft_route_sync,
	.route_look = nft_route_look,
	.renew = nft_renew,
	.cleanup = nft_cleanup,
	.free = nft_free,
};

/* The library opens one socket for the life of a context, and the kernel takes its tables away with the socket. */
struct kernel_hold {
	struct nft_ctx *ctx;
};

int kernel_hold_new(const char *text, struct kernel_hold **ret, char **ret_error)
{
	struct kernel_hold *hold = calloc(1, sizeof(*hold));
	int r;

	if (ret_error)
		*ret_error = NULL;
	if (!hold)
		return -ENOMEM;
	hold->ctx = context_new();
	r = hold->ctx ? transact(hold->ctx, text, ret_error) : -ENOMEM;
	if (r < 0)
		kernel_hold_free(hold);
	else
		*ret = hold;
	return r;
}

void kernel_hold_free(struct kernel_hold *hold)
{
	if (!hold)
		return;
	if (hold->ctx)
		nft_ctx_free(hold->ctx);
	free(hold);
}

int kernel_open(struct kernel **ret)
{
	struct nft_kernel *kernel = calloc(1, sizeof(*kernel));

	if (!kernel)
		return -ENOMEM;
	kernel->kernel.ops = &nft_ops;
	kernel->ctx = context_new();
	if (!kernel->ctx) {
		free(kernel);
		return -ENOMEM;
	}
	*ret = &kernel->kernel;
	return 0;
}
