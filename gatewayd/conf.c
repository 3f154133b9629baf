/* The configuration file; see conf.h. */
#include "gatewayd/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Options borrow their strings, so the text stays. There is one file. */
static char text[CONF_BYTES_MAX + 1];

static int load(const char *path, size_t *ret_length)
{
	FILE *file = fopen(path, "re");
	size_t n;
	int r = 0;

	if (!file) {
		r = -errno;
		fprintf(stderr, "gatewayd: %s: %s\n", path, strerror(-r));
		return r;
	}
	n = fread(text, 1, sizeof(text), file);
	if (ferror(file)) {
		fprintf(stderr, "gatewayd: %s cannot be read\n", path);
		r = -EIO;
	} else if (n > CONF_BYTES_MAX) {
		fprintf(stderr, "gatewayd: %s is longer than %d bytes\n", path, CONF_BYTES_MAX);
		r = -EFBIG;
	} else {
		text[n] = '\0';
		*ret_length = n;
	}
	fclose(file);
	return r;
}

/* The string without white space around it, cut in place. */
static char *trim(char *string)
{
	size_t n;

	while (isspace((unsigned char)*string))
		string++;
	n = strlen(string);
	while (n > 0 && isspace((unsigned char)string[n - 1]))
		n--;
	string[n] = '\0';
	return string;
}

/* 1 and the two halves, 0 if there is nothing on the line, -EINVAL. */
static int split(char *line, const char **ret_key, const char **ret_value)
{
	char *key = trim(line), *equals = strchr(key, '='), *value;

	if (*key == '\0' || *key == '#')
		return 0;
	if (!equals || equals == key)
		return -EINVAL;
	*equals = '\0';
	value = trim(equals + 1);
	if (*value == '\0')
		return -EINVAL;
	*ret_key = trim(key);
	*ret_value = value;
	return 1;
}

int conf_read(const char *path, int (*set)(void *userdata, const char *at, const char *key, const char *value),
        void *userdata)
{
	const char *key = NULL, *value = NULL;
	char at[CONF_AT_MAX];
	char *next = text;
	size_t length = 0;
	int r = load(path, &length);

	if (r == 0 && strlen(text) != length) {
		fprintf(stderr, "gatewayd: %s is not a text\n", path);
		r = -EINVAL;
	}
	for (unsigned number = 1; r == 0 && next; number++) {
		char *line = strsep(&next, "\n");

		snprintf(at, sizeof(at), "%s:%u", path, number);
		r = split(line, &key, &value);
		if (r < 0)
			fprintf(stderr, "gatewayd: %s: a line is `key = value`\n", at);
		else if (r > 0)
			r = set(userdata, at, key, value);
	}
	return r;
}
