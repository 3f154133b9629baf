/* Percent-decoding, see url.h. Decoded text is never longer than what it came from. */
#include "webapi/url.h"

#include <errno.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes `length` bytes into out (length + 1 bytes). Control bytes are refused, escaped or not, and so is an escaped
 * slash: it would be a separator to one reader and a letter to another. */
static int decode(const char *text, size_t length, bool plus_is_space, char *out)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c <= ' ' || c >= 0x7f)
			return -EINVAL;
		if (c == '+' && plus_is_space) {
			c = ' ';
		} else if (c == '%') {
			int high = i + 2 < length ? hex_digit(text[i + 1]) : -1;
			int low = i + 2 < length ? hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -EINVAL;
			c = (unsigned char)(high << 4 | low);
			if (c < ' ' || c == 0x7f || (c == '/' && !plus_is_space))
				return -EINVAL;
			i += 2;
		}
		*out++ = (char)c;
	}
	*out = '\0';
	return 0;
}

int url_split_path(struct request *request)
{
	const char *at = request->path;
	char *out;

	request->n_segments = 0;
	free(request->decoded);
	request->decoded = out = malloc(strlen(at) + 2);
	if (!out)
		return -ENOMEM;
	if (*at != '/')
		return -EINVAL;
	while (*at == '/' && at[1]) {
		size_t length = strcspn(++at, "/");

		if (!length || decode(at, length, false, out))
			return -EINVAL;
		if (request->n_segments == HTTP_SEGMENTS_MAX)
			return -E2BIG;
		request->segments[request->n_segments++] = out;
		out += strlen(out) + 1;
		at += length;
	}
	return 0;
}

static int take_parameter(
        const char *pair, size_t length, const char *const *known, size_t n_known, char **values, struct errs *errs)
{
	const char *equals = memchr(pair, '=', length);
	size_t name_length = equals ? (size_t)(equals - pair) : length;
	size_t value_length = equals ? length - name_length - 1 : 0;
	_cleanup_free_ char *name = malloc(name_length + 1), *value = malloc(value_length + 1);
	size_t i;

	if (!name || !value)
		return -ENOMEM;
	if (decode(pair, name_length, true, name) || decode(equals ? equals + 1 : "", value_length, true, value)) {
		errs_add(errs, "", "malformed_parameter", "The query has a bad escape or byte.");
		return 0;
	}
	for (i = 0; i < n_known && strcmp(name, known[i]); i++)
		;
	if (i == n_known)
		errs_add(errs, "", "unknown_parameter", "There is no query parameter \"%s\" here.", name);
	else if (values[i])
		errs_add(errs, "", "duplicate_parameter", "The query parameter \"%s\" stands twice.", name);
	else
		values[i] = TAKE_PTR(value);
	return 0;
}

static void tell_known(const char *const *known, size_t n_known, struct errs *errs)
{
	char list[256] = "none";
	size_t at = 0;

	for (size_t i = 0; i < n_known && at < sizeof(list); i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", known[i]);
	errs_add(errs, "", "known_parameters", "Known query parameters: %s.", list);
}

int url_parse_query(const char *query, const char *const *known, size_t n_known, char **values, struct errs *errs)
{
	int r = 0;
	size_t before = errs->n + errs->dropped;

	for (size_t i = 0; i < n_known; i++)
		values[i] = NULL;
	while (*query && !r) {
		size_t length = strcspn(query, "&");

		if (length)
			r = take_parameter(query, length, known, n_known, values, errs);
		query += length + (query[length] == '&');
	}
	if (!r && errs->n + errs->dropped > before) {
		tell_known(known, n_known, errs);
		r = -EINVAL;
	}
	for (size_t i = 0; r && i < n_known; i++) {
		free(values[i]);
		values[i] = NULL;
	}
	return r;
}
