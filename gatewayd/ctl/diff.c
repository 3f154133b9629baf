/* Differences for people, see diff.h. */
#include "gatewayd/ctl/diff.h"

#include <stdbool.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/ctl/print.h"

/* The value on one line; of a long list only how long it is. */
static void put_value(FILE *out, const json_t *value)
{
	_cleanup_free_ char *text = NULL;

	if (json_array_size(value) > DIFF_ENTRIES_MAX) {
		fprintf(out, "(%zu entries)", json_array_size(value));
		return;
	}
	text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	fputs(text ? text : "?", out);
}

static bool is_hidden(const char *key)
{
	/* The server's own marks; they differ whenever anything does. */
	return strcmp(key, "revision") == 0 || strcmp(key, "id") == 0;
}

static void put_fields(FILE *out, const json_t *before, const json_t *after)
{
	const json_t *was, *is;
	const char *key;

	json_object_foreach((json_t *)after, key, is)
	{
		was = json_object_get(before, key);
		if (is_hidden(key) || (was && json_equal(was, is)))
			continue;
		fprintf(out, "    %s: ", key);
		if (was) {
			put_value(out, was);
			fputs(" -> ", out);
		}
		put_value(out, is);
		fputc('\n', out);
	}
	json_object_foreach((json_t *)before, key, was)
	{
		if (is_hidden(key) || json_object_get(after, key))
			continue;
		fprintf(out, "    %s: ", key);
		put_value(out, was);
		fputs(" -> gone\n", out);
	}
}

void diff_print(FILE *out, const json_t *diff)
{
	const json_t *change;
	size_t i;

	json_array_foreach(diff, i, change)
	{
		const json_t *before = json_object_get(change, "before"), *after = json_object_get(change, "after");
		bool was = json_is_object(before), is = json_is_object(after);

		fprintf(out, "%c %s\n", was && is ? '~' : is ? '+' : '-', print_text(change, "path"));
		if (is)
			put_fields(out, was ? before : NULL, after);
	}
}
