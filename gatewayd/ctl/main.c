/* gatewayctl: options, the connection, and the command. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"

/* Longest token that is read from a file: as the daemon. */
#define TOKEN_MAX 512

/* The first line of a file, new. NULL when said why not. */
static char *read_token(const char *path)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char line[TOKEN_MAX + 2];

	if (!file || !fgets(line, sizeof(line), file)) {
		ctl_say("the token cannot be read from %s: %s", path, errno ? strerror(errno) : "it is empty");
		return NULL;
	}
	line[strcspn(line, "\r\n")] = '\0';
	return strdup(line);
}

static int connect_to(struct ctl *ctl)
{
	const char *const *option = ctl->args.option;
	_cleanup_free_ char *token = NULL;
	struct client_options options = { .url = ctl_url(ctl),
		.socket = ctl_socket(ctl),
		.token = option[OPTION_token] ? option[OPTION_token] : getenv("GATEWAYCTL_TOKEN"),
		.cacert = option[OPTION_cacert],
		.insecure = option[OPTION_insecure] != NULL };
	int r;

	if (option[OPTION_token_file]) {
		token = read_token(option[OPTION_token_file]);
		if (!token)
			return CTL_USAGE;
		options.token = token;
	}
	r = client_new(&options, &ctl->client);
	if (r == -EINVAL)
		ctl_say("address or token hold a line break");
	else if (r < 0)
		ctl_say("memory is out");
	return r == -EINVAL ? CTL_USAGE : r < 0 ? CTL_REFUSED : CTL_OK;
}

static int check_output(struct ctl *ctl)
{
	const char *format = ctl->args.option[OPTION_output];

	ctl->json = format && strcmp(format, "json") == 0;
	if (!format || ctl->json || strcmp(format, "table") == 0)
		return CTL_OK;
	ctl_say("--output is table or json");
	return CTL_USAGE;
}

static int run(struct ctl *ctl)
{
	int code = check_output(ctl);

	if (code == CTL_OK)
		code = connect_to(ctl);
	if (code == CTL_OK)
		code = ctl->args.command->run(ctl);
	client_free(ctl->client);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		ctl_say("standard output: %s", strerror(errno));
		code = CTL_REFUSED;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct ctl ctl = { 0 };

	setlocale(LC_CTYPE, "");
	/* For the completion of shells; not meant for people. */
	if (argc >= 2 && strcmp(argv[1], "--complete") == 0) {
		args_complete(argc > 2 ? argv[2] : NULL);
		return CTL_OK;
	}
	if (args_parse(argc, argv, &ctl.args) < 0)
		return CTL_USAGE;
	if (ctl.args.option[OPTION_version]) {
		printf("gatewayctl %s\n", GW_VERSION);
		return CTL_OK;
	}
	if (ctl.args.option[OPTION_help]) {
		args_help(ctl.args.command);
		return CTL_OK;
	}
	if (!ctl.args.command) {
		args_help(NULL);
		return CTL_USAGE;
	}
	return run(&ctl);
}
