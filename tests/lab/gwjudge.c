/*
 * The prefilter's program on single frames (BPF_PROG_TEST_RUN), in a network
 * of its own that has no socket: what tests/net/test_packets.py compares with
 * its model.
 *
 *   gwjudge     the first line of its input is a JSON object: "prefilters" with one, "listeners" and "shut", a list of
 *               prefixes that the daemon would shut out. "still": time stands still for its rate. Each line after that
 *               is a frame in hexadecimal digits; the answer to it a line "VERDICT REASON PACKETS BYTES ...", with
 *               whatever has been counted.
 *
 * Exit code 77: programs cannot be loaded here.
 */
#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rules/kernel_xdp.h"
#include "schema/decode.h"

#define SKIPPED         77
#define FRAME_BYTES_MAX 65536
/* Between two packets of a source, if time stands still: a thousand seconds. */
#define STILL (UINT64_C(1000000000000) << PREFILTER_TIME_SHIFT)

static const char *const reasons[] = {
#define REASON(name, drops, doc) #name,
#include "rules/prefilter_reason.def"
#undef REASON
};

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "gwjudge: %s: %s\n", what, strerror(-r));
	exit(1);
}

static struct row *read_row(enum resource_id id, json_t *object, struct snapshot *snapshot)
{
	struct errs errs = { 0 };
	struct row *row = NULL;
	int r = decode_row(resource_get(id), object, NULL, &errs, &row);

	must(r, errs.n > 0 ? errs.items[0].detail : "document");
	must(snapshot_put(snapshot, row), "document");
	return row;
}

static struct xdp_config *read_config(json_t *document)
{
	struct snapshot *snapshot = snapshot_new();
	struct errs errs = { 0 };
	struct xdp_config *config;
	struct row *prefilter;
	json_t *object;
	size_t i;

	json_array_foreach(json_object_get(document, "listeners"), i, object)
	        row_unref(read_row(RESOURCE_LISTENER, object, snapshot));
	prefilter = read_row(RESOURCE_PREFILTER, json_array_get(json_object_get(document, "prefilters"), 0), snapshot);
	must(render_xdp((struct prefilter *)prefilter, snapshot, &(struct render_xdp_relay){ 0 }, &errs, &config),
	        "prefilter");
	if (json_is_true(json_object_get(document, "still")) && config->params.interval) {
		config->params.depth = config->params.depth / config->params.interval * STILL;
		config->params.interval = STILL;
	}
	row_unref(prefilter);
	snapshot_unref(snapshot);
	return config;
}

static struct kernel_xdp *load(json_t *document)
{
	struct xdp_config *config = read_config(document);
	char why[XDP_WHY_MAX] = "";
	struct kernel_xdp *xdp;
	json_t *shut;
	size_t i;
	int r;

	must(kernel_xdp_new(NULL, "gwnone", &xdp), "program");
	r = kernel_xdp_load(xdp, config, why, sizeof(why));
	if (r == -EPERM || r == -ENOSYS) {
		fprintf(stderr, "%s\n", why);
		exit(SKIPPED);
	}
	must(r, why);
	json_array_foreach(json_object_get(document, "shut"), i, shut)
	{
		struct prefix prefix;

		must(prefix_parse(json_string_value(shut), &prefix), "shut");
		must(kernel_xdp_shut(xdp, &prefix, -1), "shut");
	}
	xdp_config_free(config);
	return xdp;
}

static size_t read_hex(const char *line, uint8_t *ret)
{
	size_t n = 0;

	for (unsigned byte; n < FRAME_BYTES_MAX && sscanf(line + 2 * n, "%2x", &byte) == 1; n++)
		ret[n] = (uint8_t)byte;
	return n;
}

static void judge(struct kernel_xdp *xdp, const uint8_t *frame, size_t length)
{
	static const char *const verdicts[] = { "drop", "pass", "answer" };
	struct prefilter_count before[PREFILTER_REASONS], after[PREFILTER_REASONS];
	int r;

	kernel_xdp_counts(xdp, before);
	r = kernel_xdp_try(xdp, frame, length, 1, NULL, NULL, NULL);
	must(r, "run");
	kernel_xdp_counts(xdp, after);
	fputs(verdicts[r], stdout);
	for (unsigned i = 0; i < PREFILTER_REASONS; i++)
		if (after[i].packets != before[i].packets || after[i].bytes != before[i].bytes)
			printf(" %s %llu %llu", reasons[i], (unsigned long long)(after[i].packets - before[i].packets),
			        (unsigned long long)(after[i].bytes - before[i].bytes));
	putchar('\n');
}

int main(void)
{
	static uint8_t frame[FRAME_BYTES_MAX];
	struct kernel_xdp *xdp;
	char *line = NULL;
	size_t size = 0;
	json_t *document;

	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return SKIPPED;
	if (getline(&line, &size, stdin) < 0)
		return 1;
	document = json_loads(line, 0, NULL);
	if (!document)
		return 1;
	xdp = load(document);
	while (getline(&line, &size, stdin) > 0)
		judge(xdp, frame, read_hex(line, frame));
	kernel_xdp_free(xdp);
	json_decref(document);
	free(line);
	return 0;
}
