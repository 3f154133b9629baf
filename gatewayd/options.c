/* The command line of gatewayd; see options.h. */
#include "gatewayd/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/sockmark.h"
#include "gatewayd/base/stats.h"
#include "gatewayd/conf.h"
#include "gatewayd/sockets.h"

#ifndef GW_RELAY_PATH
#define GW_RELAY_PATH "/usr/lib/gatewayd/gateway-relay"
#endif
#ifndef GW_UI_PATH
#define GW_UI_PATH "/usr/share/gatewayd/ui"
#endif

enum {
	OPT_STATE_DIR = 256,
	OPT_RUNTIME_DIR,
	OPT_LOG_DIR,
	OPT_LISTEN,
	OPT_UI_DIR,
	OPT_RELAY,
	OPT_MOVER,
	OPT_INTERCEPTION,
	OPT_BPF_DIR,
	OPT_THREADS,
	OPT_MAX_FLOWS,
	OPT_LOG_LEVEL,
	OPT_MARK,
	OPT_MARK_MASK,
	OPT_TABLE,
	OPT_PRIORITY,
	OPT_CONFIG,
	OPT_RESTORE,
	OPT_CHECK,
	OPT_CLEANUP,
	OPT_EARLY,
	OPT_BPF_CHECK
};

static const struct option long_options[] = {
	{ "state-dir", required_argument, NULL, OPT_STATE_DIR },
	{ "runtime-dir", required_argument, NULL, OPT_RUNTIME_DIR },
	{ "log-dir", required_argument, NULL, OPT_LOG_DIR },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "ui-dir", required_argument, NULL, OPT_UI_DIR },
	{ "relay", required_argument, NULL, OPT_RELAY },
	{ "mover", required_argument, NULL, OPT_MOVER },
	{ "interception", required_argument, NULL, OPT_INTERCEPTION },
	{ "bpf-dir", required_argument, NULL, OPT_BPF_DIR },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "max-flows", required_argument, NULL, OPT_MAX_FLOWS },
	{ "log-level", required_argument, NULL, OPT_LOG_LEVEL },
	{ "mark", required_argument, NULL, OPT_MARK },
	{ "mark-mask", required_argument, NULL, OPT_MARK_MASK },
	{ "route-table", required_argument, NULL, OPT_TABLE },
	{ "rule-priority", required_argument, NULL, OPT_PRIORITY },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "restore", no_argument, NULL, OPT_RESTORE },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "cleanup", no_argument, NULL, OPT_CLEANUP },
	{ "early", no_argument, NULL, OPT_EARLY },
	{ "bpf-check", no_argument, NULL, OPT_BPF_CHECK },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
        "Usage: gatewayd [OPTION]...\n"
        "Management daemon of the transparent gateway.\n\n"
        "  --state-dir DIR     database and admin token (default /var/lib/gatewayd)\n"
        "  --runtime-dir DIR   api.sock and relay.sock (default /run/gatewayd)\n"
        "  --log-dir DIR       records of flows (default /var/log/gatewayd)\n"
        "  --listen URL        serve the API on https://ADDRESS:PORT, or http:// on loopback; repeatable\n"
        "                      (default https://127.0.0.1:8443)\n"
        "  --ui-dir DIR        static files of the web UI\n"
        "  --relay PATH        the gateway-relay program\n"
        "  --mover MODE        how the relay moves bytes: auto, copy, splice or sockmap (default auto:\n"
        "                      as the listener says, and without that by how a flow is used)\n"
        "  --interception MODE how packets come to the relay: nft, ebpf or auto (default auto: as the settings say)\n"
        "  --bpf-dir DIR       where BPF maps are pinned (default /sys/fs/bpf/gatewayd)\n"
        "  --threads N         relay threads (default: one per CPU)\n"
        "  --max-flows N       most flows at once (default: what the descriptor limit allows)\n"
        "  --log-level L       error, warning, notice, info or debug (default info)\n"
        "  --mark N            firewall mark of intercepted packets (default 0x01000000)\n"
        "  --mark-mask N       the mark bits that are ours (default 0x0f000000)\n"
        "  --route-table N     routing table for intercepted packets (default 26487)\n"
        "  --rule-priority N   first of three routing rule priorities (default 100)\n"
        "  --config FILE       more options, as lines \"key = value\"; the command line goes before them\n"
        "  --restore           if the database is refused, keep it aside and start from the last good configuration\n"
        "  --check             validate the database, render, dry-run against the kernel, exit\n"
        "  --cleanup           stop the running gateway and remove all of ours from the kernel, exit\n"
        "  --early             put the rules of the last good configuration in place before gatewayd serves, exit\n"
        "  --bpf-check         try whether this kernel can do what the sockmap mover needs, exit\n"
        "  --version, --help\n";

/* In front of an option's name in what is said of it: "--", or the line of a file. */
static const char *where = "--";

static int parse_number(const char *option, const char *text, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value > max) {
		fprintf(stderr, "gatewayd: %s%s wants a number from 0 to %llu, not \"%s\"\n", where, option,
		        (unsigned long long)max, text);
		return -EINVAL;
	}
	*ret = value;
	return 0;
}

static int parse_u32(const char *option, const char *text, uint32_t max, uint32_t *ret)
{
	uint64_t value = 0;
	int r = parse_number(option, text, max, &value);

	if (r == 0)
		*ret = (uint32_t)value;
	return r;
}

/* One of several words, the last NULL; `words` is how people are told of them. */
static int parse_word(
        const char *option, const char *text, const char *const choices[], const char *words, const char **ret)
{
	for (size_t i = 0; choices[i]; i++)
		if (strcmp(text, choices[i]) == 0) {
			*ret = choices[i];
			return 0;
		}
	fprintf(stderr, "gatewayd: %s%s wants %s, not \"%s\"\n", where, option, words, text);
	return -EINVAL;
}

static int parse_mover(const char *text, const char **ret)
{
	static const char *const movers[] = { "auto", "copy", "splice", "sockmap", NULL };

	return parse_word("mover", text, movers, "auto, copy, splice or sockmap", ret);
}

static int parse_interception(const char *text, const char **ret)
{
	static const char *const engines[] = { "auto", "nft", "ebpf", NULL };

	return parse_word("interception", text, engines, "auto, nft or ebpf", ret);
}

static int add_listen(struct options *options, const char *url)
{
	const char *reason;

	/* Before anything is touched: a daemon that cannot serve must not have changed the kernel. */
	if (sockets_check_api_tcp(url, &reason) < 0) {
		fprintf(stderr, "gatewayd: %slisten %s: %s\n", where, url, reason);
		return -EINVAL;
	}
	if (options->n_listen == OPTIONS_LISTEN_MAX) {
		fprintf(stderr, "gatewayd: %slisten can be given %d times at most\n", where, OPTIONS_LISTEN_MAX);
		return -EINVAL;
	}
	options->listen[options->n_listen++] = url;
	return 0;
}

static int parse_level(const char *text, int *ret)
{
	int level = log_level_parse(text);

	if (level < 0) {
		fprintf(stderr, "gatewayd: %slog-level wants error, warning, notice, info or debug, not \"%s\"\n",
		        where, text);
		return level;
	}
	*ret = level;
	return 0;
}

static int parse_one(int option, const char *text, struct options *ret)
{
	switch (option) {
	case OPT_STATE_DIR:
		ret->state_dir = text;
		return 0;
	case OPT_RUNTIME_DIR:
		ret->runtime_dir = text;
		return 0;
	case OPT_LOG_DIR:
		ret->log_dir = text;
		return 0;
	case OPT_LISTEN:
		return add_listen(ret, text);
	case OPT_UI_DIR:
		ret->ui_dir = text;
		return 0;
	case OPT_RELAY:
		ret->relay = text;
		return 0;
	case OPT_MOVER:
		return parse_mover(text, &ret->mover);
	case OPT_INTERCEPTION:
		return parse_interception(text, &ret->interception);
	case OPT_BPF_DIR:
		ret->bpf_dir = text;
		return 0;
	case OPT_THREADS:
		return parse_u32("threads", text, STATS_THREADS_MAX, &ret->threads);
	case OPT_MAX_FLOWS:
		return parse_u32("max-flows", text, 1 << 24, &ret->max_flows);
	case OPT_LOG_LEVEL:
		return parse_level(text, &ret->log_level);
	case OPT_MARK:
		return parse_u32("mark", text, UINT32_MAX, &ret->mark);
	case OPT_MARK_MASK:
		return parse_u32("mark-mask", text, UINT32_MAX, &ret->mark_mask);
	case OPT_TABLE:
		return parse_u32("route-table", text, UINT32_MAX, &ret->route_table);
	case OPT_PRIORITY:
		return parse_u32("rule-priority", text, 32000, &ret->rule_priority);
	case OPT_CONFIG: /* read before, see read_config */
		return 0;
	case OPT_RESTORE:
		ret->restore = true;
		return 0;
	case OPT_CHECK:
		ret->mode = OPTIONS_CHECK;
		return 0;
	case OPT_CLEANUP:
		ret->mode = OPTIONS_CLEANUP;
		return 0;
	case OPT_EARLY:
		ret->mode = OPTIONS_EARLY;
		return 0;
	case OPT_BPF_CHECK:
		ret->mode = OPTIONS_BPF_CHECK;
		return 0;
	case 'h':
		fputs(usage, stdout);
		ret->mode = OPTIONS_EXIT;
		return 0;
	case 'V':
		puts("gatewayd " GW_VERSION);
		ret->mode = OPTIONS_EXIT;
		return 0;
	}
	return -EINVAL;
}

static int check_marks(const struct options *options)
{
	if (options->mark == 0 || (options->mark & ~options->mark_mask) != 0) {
		fprintf(stderr, "gatewayd: --mark must not be 0 and must lie within --mark-mask\n");
		return -EINVAL;
	}
	if (sockmark_of(options->mark_mask & ~options->mark).errors == 0) {
		fprintf(stderr, "gatewayd: --mark-mask must have two bits besides --mark, for the relay's sockets\n");
		return -EINVAL;
	}
	return 0;
}

/* Beside the program itself, in a build tree as where it is installed (bin/gatewayd, share/gatewayd/ui), so that a
 * daemon never shows the pages of another version; else where packages put it. Lives as long as the program. */
static const char *find_ui(void)
{
	static char path[PATH_MAX];
	char program[PATH_MAX - sizeof("/../share/gatewayd/ui")];
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	char *slash;

	program[n > 0 ? n : 0] = '\0';
	slash = strrchr(program, '/');
	if (!slash)
		return GW_UI_PATH;
	*slash = '\0';
	snprintf(path, sizeof(path), "%s/../share/gatewayd/ui", program);
	return access(path, F_OK) == 0 ? path : GW_UI_PATH;
}

/* One line of the configuration file. What is done once, as --check, has no place there. */
static int set_from_file(void *userdata, const char *at, const char *key, const char *value)
{
	char place[CONF_AT_MAX + 2];
	int r = -EINVAL;

	snprintf(place, sizeof(place), "%s: ", at);
	for (const struct option *option = long_options; option->name; option++)
		if (strcmp(option->name, key) == 0 && option->has_arg && option->val != OPT_CONFIG) {
			where = place;
			r = parse_one(option->val, value, userdata);
			where = "--";
			return r;
		}
	fprintf(stderr, "gatewayd: %s: there is no setting \"%s\"\n", at, key);
	return r;
}

/* The file that the command line names, if it does. */
static int read_config(int argc, char **argv, struct options *ret)
{
	int option, r = 0;

	opterr = optind = 0; /* 0: getopt begins anew, whatever was parsed before */
	while (r == 0 && (option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1)
		if (option == OPT_CONFIG)
			r = conf_read(optarg, set_from_file, ret);
	opterr = 1;
	optind = 0;
	return r;
}

/* The command line: what it says goes before the file's, of which it may replace the list of listen. */
static int read_arguments(int argc, char **argv, struct options *ret)
{
	bool listens = false;
	int option, r;

	while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
		if (option == OPT_LISTEN && !listens) {
			listens = true;
			ret->n_listen = 0;
		}
		r = parse_one(option, optarg, ret);
		if (r < 0)
			return r;
	}
	if (optind < argc) {
		fprintf(stderr, "gatewayd: unexpected argument \"%s\"\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

int options_parse(int argc, char **argv, struct options *ret)
{
	int r;

	*ret = (struct options){
		.state_dir = "/var/lib/gatewayd",
		.runtime_dir = "/run/gatewayd",
		.log_dir = "/var/log/gatewayd",
		.ui_dir = find_ui(),
		.relay = GW_RELAY_PATH,
		.mover = "auto",
		.interception = "auto",
		.bpf_dir = "/sys/fs/bpf/gatewayd",
		.log_level = LOG_INFO,
		.mark = 0x01000000,
		.mark_mask = 0x0f000000,
		.route_table = 26487,
		.rule_priority = 100,
	};
	r = read_config(argc, argv, ret);
	if (r == 0)
		r = read_arguments(argc, argv, ret);
	if (r < 0)
		return r;
	if (ret->n_listen == 0)
		ret->listen[ret->n_listen++] = "https://127.0.0.1:8443";
	return check_marks(ret);
}
