/* The command line, see args.h. */
#include "gatewayd/ctl/args.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"

static const struct {
	const char *text, *value, *help;
	char letter;
} options[] = {
#define OPTION(name, letter, text, value, help) { text, value, help, letter },
#include "gatewayd/ctl/options.def"
#undef OPTION
};
static_assert(OPTIONS <= 64, "options fit a mask");

/* Options that every command takes. */
#define GENERAL (OPT(file) - 1)

static const struct command commands[] = {
#define COMMAND(function, name, least, most, mask, usage, summary)                                                     \
	{ ctl_##function, name, least, most, mask, usage, summary },
#include "gatewayd/ctl/commands.def"
#undef COMMAND
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* The option that `text` (behind its dashes) begins, and where a value follows '='. OPTIONS if there is none. */
static enum option find_long(const char *text, const char **ret_value)
{
	size_t length = strcspn(text, "=");

	*ret_value = text[length] ? text + length + 1 : NULL;
	for (int i = 0; i < OPTIONS; i++)
		if (strlen(options[i].text) == length && strncmp(options[i].text, text, length) == 0)
			return (enum option)i;
	return OPTIONS;
}

static enum option find_letter(char letter)
{
	for (int i = 0; i < OPTIONS; i++)
		if (options[i].letter && options[i].letter == letter)
			return (enum option)i;
	return OPTIONS;
}

/* Reads the option at argv[*at]; *at is left at the last argument that belongs to it. */
static int take_option(int argc, char **argv, int *at, struct args *ret)
{
	const char *text = argv[*at], *value = NULL;
	bool is_long = text[1] == '-';
	enum option option = is_long ? find_long(text + 2, &value) : find_letter(text[1]);

	if (option == OPTIONS) {
		ctl_say("there is no option %s; gatewayctl --help shows all", text);
		return -EINVAL;
	}
	if (!is_long && text[2])
		value = text + 2;
	if (!options[option].value && value) {
		ctl_say("option --%s takes no value", options[option].text);
		return -EINVAL;
	}
	if (options[option].value && !value && ++*at == argc) {
		ctl_say("option --%s wants a value: %s", options[option].text, options[option].value);
		return -EINVAL;
	}
	ret->option[option] = value ? value : options[option].value ? argv[*at] : "";
	return 0;
}

static int take_word(const char *word, struct args *ret)
{
	if (!ret->command) {
		ret->command = find_command(word);
		if (!ret->command)
			ctl_say("there is no command %s; gatewayctl --help shows all", word);
		return ret->command ? 0 : -EINVAL;
	}
	if (ret->n_words == ARGS_WORDS_MAX) {
		ctl_say("at most %d words may follow a command", ARGS_WORDS_MAX);
		return -EINVAL;
	}
	ret->words[ret->n_words++] = word;
	return 0;
}

static int check(const struct args *args)
{
	const struct command *command = args->command;

	if (!command || args->option[OPTION_help] || args->option[OPTION_version])
		return 0;
	for (int i = 0; i < OPTIONS; i++)
		if (args->option[i] && !((command->options | GENERAL) & (UINT64_C(1) << i))) {
			ctl_say("%s does not take --%s", command->name, options[i].text);
			return -EINVAL;
		}
	if (args->n_words >= command->least && args->n_words <= command->most)
		return 0;
	ctl_say("usage: gatewayctl %s %s", command->name, command->usage);
	return -EINVAL;
}

int args_parse(int argc, char **argv, struct args *ret)
{
	bool only_words = false;
	int first = 1, r = 0;

	*ret = (struct args){ 0 };
	/* "help COMMAND" is what others call "COMMAND --help". */
	if (argc > 1 && strcmp(argv[1], "help") == 0) {
		ret->option[OPTION_help] = "";
		first++;
	}
	for (int i = first; i < argc && r == 0; i++) {
		if (!only_words && strcmp(argv[i], "--") == 0)
			only_words = true;
		else if (!only_words && argv[i][0] == '-' && argv[i][1])
			r = take_option(argc, argv, &i, ret);
		else
			r = take_word(argv[i], ret);
	}
	return r < 0 ? r : check(ret);
}

int args_number(
        const struct args *args, enum option option, uint64_t least, uint64_t most, uint64_t otherwise, uint64_t *ret)
{
	const char *text = args->option[option];
	uint64_t value = otherwise;

	if (text) {
		errno = 0;
		value = strtoull(text, NULL, 10);
		if (!*text || strspn(text, "0123456789") != strlen(text) || errno || value < least || value > most) {
			ctl_say("--%s is a number from %llu to %llu", options[option].text, (unsigned long long)least,
			        (unsigned long long)most);
			return -EINVAL;
		}
	}
	*ret = value;
	return 0;
}

static void print_options(uint64_t mask)
{
	for (int i = 0; i < OPTIONS; i++) {
		char left[40];

		if (!(mask & (UINT64_C(1) << i)))
			continue;
		snprintf(left, sizeof(left), "%s%s %s",
		        options[i].letter ? (char[]){ '-', options[i].letter, ',', ' ', '-', '-', '\0' } : "    --",
		        options[i].text, options[i].value ? options[i].value : "");
		printf("  %-30s %s\n", left, options[i].help);
	}
}

void args_help(const struct command *command)
{
	if (command) {
		printf("Usage: gatewayctl %s %s\n\n%s.\n", command->name, command->usage, command->summary);
		if (command->options)
			printf("\nOptions:\n");
		print_options(command->options);
		printf("\nOptions of all commands: gatewayctl --help\n");
		return;
	}
	printf("Usage: gatewayctl COMMAND [OPTIONS]\n\nCommands:\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		printf("  %-16s %s\n", commands[i].name, commands[i].summary);
	printf("\nOptions of all commands:\n");
	print_options(GENERAL);
	printf("\nExit codes: 0 done, 1 the gateway refused, 2 wrong use, 3 the gateway cannot be reached,\n"
	       "4 done, and there is something to look at (status, doctor, targets, diff).\n");
}

void args_complete(const char *name)
{
	const struct command *command = name ? find_command(name) : NULL;
	uint64_t mask = GENERAL | (command ? command->options : 0);

	for (size_t i = 0; !command && i < sizeof(commands) / sizeof(commands[0]); i++)
		printf("%s\n", commands[i].name);
	for (int i = 0; command && i < OPTIONS; i++)
		if (mask & (UINT64_C(1) << i))
			printf("--%s\n", options[i].text);
}
