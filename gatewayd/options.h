/* The command line of gatewayd. Used by main.c and daemon.c. */
#ifndef GW_OPTIONS_H
#define GW_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Sockets for the API besides api.sock; more than a handful has no use. */
#define OPTIONS_LISTEN_MAX 8

enum options_mode {
	OPTIONS_RUN,
	OPTIONS_CHECK,     /* --check */
	OPTIONS_CLEANUP,   /* --cleanup */
	OPTIONS_EARLY,     /* --early */
	OPTIONS_BPF_CHECK, /* --bpf-check */
	OPTIONS_EXIT,      /* --help and --version: done already */
};

struct options {
	enum options_mode mode;
	const char *state_dir, *runtime_dir, *log_dir, *ui_dir, *relay, *mover, *interception, *bpf_dir;
	const char *listen[OPTIONS_LISTEN_MAX];
	unsigned n_listen;
	unsigned threads;   /* relay threads; 0: one per CPU */
	unsigned max_flows; /* of the relay, all threads together; 0: what the descriptor limit allows */
	int log_level;
	bool restore; /* --restore: a refused database makes room for the last good configuration */
	uint32_t mark, mark_mask, route_table, rule_priority;
};

/* Fills ret from argv (whose strings it borrows), or prints to stderr what is wrong. 0 or -EINVAL. */
int options_parse(int argc, char **argv, struct options *ret);

#endif
