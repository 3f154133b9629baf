/*
 * The command line of gatewayctl: options in any order around a command and
 * its words, from the tables options.def and commands.def. Called by main.c;
 * knows no command from inside.
 */
#ifndef GW_CTL_ARGS_H
#define GW_CTL_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option {
#define OPTION(name, letter, text, value, help) OPTION_##name,
#include "gatewayd/ctl/options.def"
#undef OPTION
	OPTIONS
};

#define OPT(name) (UINT64_C(1) << OPTION_##name)

/* Most words behind a command: what fits a line of a person; who has more calls again. */
#define ARGS_WORDS_MAX 65

struct ctl;

/* Returns an exit code (ctl.h). */
typedef int ctl_command(struct ctl *ctl);

struct command {
	ctl_command *run;
	const char *name;
	size_t least, most; /* words */
	uint64_t options;
	const char *usage, *summary;
};

struct args {
	const struct command *command; /* NULL: none was named */
	const char *option[OPTIONS];   /* value, "" for a flag; NULL: not given */
	const char *words[ARGS_WORDS_MAX];
	size_t n_words;
};

/* What stands in argv, checked against the tables; everything is borrowed from argv. -EINVAL when said why on standard
 * error. */
int args_parse(int argc, char **argv, struct args *ret);
/* The value as a number from least to most; `otherwise` if it is not given. -EINVAL when said why. */
int args_number(
        const struct args *args, enum option option, uint64_t least, uint64_t most, uint64_t otherwise, uint64_t *ret);
/* Help for all, or (command) for one. */
void args_help(const struct command *command);
/* Words for the completion of shells: all commands, or a command's options, one a line. */
void args_complete(const char *command);

#endif
