/*
 * What one small change costs, step by step, as the daemon makes it: edit of
 * the snapshot, plan, text, commit in the kernel - with 10,000 listeners, and
 * with an address set of 100,000 entries, used with one port and with a range;
 * and what it costs to look at all, and to put it back after a flush. Prints;
 * in a namespace of its own.
 */
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "rules/heal.h"
#include "rules/kernel_watch.h"
#include "schema/prefixes.h"

#define LISTENERS 10000
#define ENTRIES   100000
#define CHANGES   300

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };
static const struct route_params routes = { 0x01000000, 0x0f000000, 26487, 100 };

enum step { STEP_EDIT, STEP_PLAN, STEP_RENDER, STEP_COMMIT, STEP_WATCH, STEP_ALL, STEPS };
static const char *const step_names[] = { "edit", "plan", "render", "commit", "events", "all" };

struct bench {
	struct kernel *kernel;
	struct kernel_watch *watch;
	struct model *model;
	struct snapshot *at;
	double times[STEPS][CHANGES];
	unsigned n;
};

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

static double resident_mb(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return (double)(pages * sysconf(_SC_PAGESIZE)) / 1048576;
}

static int compare_times(const void *a, const void *b)
{
	double one = *(const double *)a, other = *(const double *)b;

	return (one > other) - (one < other);
}

static void print_times(struct bench *bench, const char *what)
{
	printf("%s, %u times (ms):\n", what, bench->n);
	for (int step = 0; step < STEPS; step++) {
		double *times = bench->times[step];

		qsort(times, bench->n, sizeof(*times), compare_times);
		printf("  %-7s p50 %7.3f  p99 %7.3f  max %7.3f\n", step_names[step], times[bench->n / 2],
		        times[bench->n * 99 / 100], times[bench->n - 1]);
	}
	bench->n = 0;
}

/* Takes up what the watch has to tell, as the daemon's loop would. */
static void drain(struct bench *bench)
{
	struct watch_event event;
	int r;

	while ((r = kernel_watch_next(bench->watch, &routes, &event)) > 0)
		printf("event: kind %d by %s: %s\n", event.kind, event.process, event.detail);
	must(r, "watch");
}

/* From the present snapshot to another; takes over the reference. Returns how long each step took. */
static void change(struct bench *bench, struct snapshot *to, double begin, bool record)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_free_ char *text = NULL;
	struct plan *plan;
	double at[STEPS + 1] = { begin, now_ms() };

	must(plan_new(bench->model, bench->at, to, &errs, &plan), "plan");
	at[2] = now_ms();
	must(render_nft_plan(plan, &params, &text), "render");
	at[3] = now_ms();
	if (record && render_nft_needs_check(plan))
		fputs("a small change would need a dry run\n", stderr);
	must(kernel_nft_commit(bench->kernel, text, NULL), "commit");
	plan_commit(bench->model, plan);
	at[4] = now_ms();
	drain(bench);
	at[5] = now_ms();
	snapshot_unref(bench->at);
	bench->at = to;
	for (int step = 0; record && step < STEP_ALL; step++)
		bench->times[step][bench->n] = at[step + 1] - at[step];
	if (record)
		bench->times[STEP_ALL][bench->n++] = at[5] - at[0];
	else
		printf("  plan %.0f, render %.0f (%zu MB), commit %.0f, events %.0f ms; resident %.0f MB\n",
		        at[2] - at[1], at[3] - at[2], strlen(text) >> 20, at[4] - at[3], at[5] - at[4], resident_mb());
}

static void put_listener(struct snapshot *snapshot, unsigned number, const char *destination, const char *ports)
{
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

	snprintf(listener->name, sizeof(listener->name), "l%06u", number);
	listener->row.id = number + 1;
	must(strings_append(&listener->destinations, destination), "listener");
	must(strings_append(&listener->ports, ports), "listener");
	must(snapshot_put(snapshot, &listener->row), "listener");
	row_unref(&listener->row);
}

static void many_listeners(struct bench *bench)
{
	struct snapshot *to = snapshot_edit(bench->at, 1);
	double begin = now_ms();

	for (unsigned i = 0; i < LISTENERS; i++) {
		char address[32];

		snprintf(address, sizeof(address), "10.%u.%u.1", i / 250, i % 250);
		put_listener(to, i, address, i % 2 ? "443" : "8000-8010");
	}
	printf("%d listeners:\n", LISTENERS);
	change(bench, to, begin, false);
	for (unsigned i = 0; i < CHANGES; i++) {
		char address[32];

		begin = now_ms();
		snprintf(address, sizeof(address), "192.0.%u.%u", i / 250, i % 250);
		to = snapshot_edit(bench->at, i + 2);
		put_listener(to, LISTENERS + i, address, i % 2 ? "443" : "8000-8010");
		change(bench, to, begin, true);
	}
	print_times(bench, "one listener more");
}

static void put_set(struct snapshot *snapshot, struct prefixes entries)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET);

	snprintf(set->name, sizeof(set->name), "big");
	set->entries = entries;
	must(snapshot_put(snapshot, &set->row), "set");
	row_unref(&set->row);
}

static struct prefixes addresses(uint8_t first, size_t from, size_t n)
{
	struct prefixes_builder builder = { 0 };
	struct prefixes ret;

	for (size_t i = from; i < from + n; i++) {
		struct prefix prefix = { { AF_INET, { first, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i } },
			32 };

		must(prefixes_add(&builder, &prefix), "entries");
	}
	must(prefixes_finish(&builder, &ret), "entries");
	return ret;
}

/* Used with one port: the kernel's hash; with a range of ports: its pipapo, which is copied for each transaction. */
static void big_set(struct bench *bench, const char *ports)
{
	struct snapshot *to = snapshot_edit(bench->at, bench->at->revision + 1);
	const struct address_set *set;
	double begin = now_ms();

	put_set(to, addresses(11, 0, ENTRIES));
	put_listener(to, 999999, "@big", ports);
	printf("a set of %d entries, ports %s:\n", ENTRIES, ports);
	change(bench, to, begin, false);
	for (unsigned i = 0; i < CHANGES; i++) {
		struct prefixes one = addresses(12, i, 1), united;

		begin = now_ms();
		set = (const struct address_set *)snapshot_find(bench->at, RESOURCE_ADDRESS_SET, "big");
		must(prefixes_unite(&set->entries, &one, &united), "unite");
		prefixes_clear(&one);
		to = snapshot_edit(bench->at, bench->at->revision + 1);
		put_set(to, united);
		change(bench, to, begin, true);
	}
	print_times(bench, "one entry more");
}

/* Time of the processor in user space since `before`, ms. */
static double user_ms(double before)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)usage.ru_utime.tv_sec * 1e3 + (double)usage.ru_utime.tv_usec / 1e3 - before;
}

/* What a look costs that finds all in order; flushed: and one after somebody has flushed everything. */
static void heal(struct bench *bench, bool flushed)
{
	struct kernel_state found;
	struct heal wrong;
	double begin, read, made, user;

	if (flushed)
		must(kernel_nft_commit(bench->kernel, "flush ruleset\n", NULL), "flush");
	begin = now_ms();

	must(kernel_nft_read(bench->kernel, &found), "read");
	read = now_ms();
	must(heal_new(bench->model, &found, &params, bench->at->revision, &wrong), "heal");
	made = now_ms();
	user = user_ms(0);
	must(kernel_nft_commit(bench->kernel, wrong.text, NULL), "commit");
	printf("check of %zu elements: read %.0f, compare and render %.0f, commit %.0f ms (%.0f of them not in the "
	       "kernel); %s; resident %.0f MB\n",
	        found.elements.n, read - begin, made - read, now_ms() - made, user_ms(user),
	        wrong.needed ? "needed" : "nothing wrong", resident_mb());
	kernel_state_clear(&found);
	heal_clear(&wrong);
	malloc_trim(0);
	printf("resident after malloc_trim %.0f MB\n", resident_mb());
}

int main(void)
{
	static struct bench bench;
	_cleanup_free_ char *text = NULL;

	if (unshare(CLONE_NEWNET) < 0) {
		puts("SKIP: no right to make a network namespace");
		return 0;
	}
	must(kernel_open(&bench.kernel), "kernel");
	must(kernel_watch_open(&bench.watch), "watch");
	must(model_new(&bench.model), "model");
	bench.at = snapshot_new();
	must(render_nft_full(bench.model, &params, 0, &text), "render");
	must(kernel_nft_commit(bench.kernel, text, NULL), "commit");
	drain(&bench);
	many_listeners(&bench);
	heal(&bench, false);
	big_set(&bench, "25");
	heal(&bench, false);
	heal(&bench, true);
	big_set(&bench, "8000-8010");
	heal(&bench, false);
	heal(&bench, true);
	model_free(bench.model);
	snapshot_unref(bench.at);
	kernel_watch_free(bench.watch);
	kernel_free(bench.kernel);
	return 0;
}
