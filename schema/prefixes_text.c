/* Text to prefixes and back: single items of JSON lists, and whole documents of a line each. */
#include "schema/prefixes.h"

#include <errno.h>
#include <string.h>

#include "schema/value.h"

static int add_range(struct prefixes_builder *builder, const char *text)
{
	struct prefix split[PREFIX_RANGE_MAX];
	int n = prefix_range_parse(text, split), r = 0;

	for (int i = 0; i < n && r == 0; i++)
		r = prefixes_add(builder, &split[i]);
	return r;
}

/* The rules and words of a fault are those of a list's item. */
static int refuse(const char *text, const char *pointer, struct errs *errs)
{
	char canonical[VALUE_TEXT_MAX];

	if (text[0] == '@') {
		errs_add(errs, pointer, "bad_value", "an address set holds no other sets");
		return -EINVAL;
	}
	return value_item(ITEM_PREFIX, text, canonical, pointer, errs);
}

static bool is_mapped(const struct prefix *prefix)
{
	return prefix->length >= 96 && value_is_mapped(&prefix->addr);
}

int prefixes_add_text(struct prefixes_builder *builder, const char *text, const char *pointer, struct errs *errs)
{
	struct prefix prefix;
	int r;

	if (prefix_parse(text, &prefix) == 0 && !is_mapped(&prefix))
		return prefixes_add(builder, &prefix);
	r = refuse(text, pointer, errs);
	return r < 0 ? r : add_range(builder, text);
}

/* One line, without its end: what is left of it when the comment and the space around are gone. */
static int copy_line(const char *line, size_t length, char text[PREFIXES_LINE_MAX])
{
	const char *hash = memchr(line, '#', length);

	if (hash)
		length = (size_t)(hash - line);
	while (length && strchr(" \t\r", line[length - 1]) && line[length - 1])
		length--;
	while (length && (*line == ' ' || *line == '\t')) {
		line++;
		length--;
	}
	if (length >= PREFIXES_LINE_MAX || memchr(line, '\0', length))
		return -EINVAL;
	memcpy(text, line, length);
	text[length] = '\0';
	return 0;
}

static int parse_line(
        struct prefixes_builder *builder, const char *line, size_t length, size_t number, struct errs *errs)
{
	char text[PREFIXES_LINE_MAX];
	struct errs own = { 0 };
	int r;

	if (copy_line(line, length, text) < 0) {
		errs_add(errs, "", "bad_line", "line %zu: no address, prefix or range", number);
		return 0;
	}
	if (!*text)
		return 0;
	r = prefixes_add_text(builder, text, "", &own);
	if (r == -EINVAL)
		errs_add(errs, "", "bad_line", "line %zu: %s", number, own.n ? own.items[0].detail : "no prefix");
	errs_clear(&own);
	return r == -EINVAL ? 0 : r;
}

static int parse_lines(struct prefixes_builder *builder, const char *text, size_t length, struct errs *errs)
{
	const char *end = text + length;
	size_t number = 0;
	int r = 0;

	while (text < end && r == 0) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;

		r = parse_line(builder, text, (size_t)(stop - text), ++number, errs);
		text = stop + 1;
		if (r == 0 && builder->n > ADDRESS_SET_ENTRIES_MAX) {
			errs_add(errs, "", "too_many_items", "line %zu: more than %d prefixes", number,
			        ADDRESS_SET_ENTRIES_MAX);
			return 0;
		}
	}
	return r;
}

int prefixes_parse(const char *text, size_t length, struct errs *errs, struct prefixes *ret)
{
	_cleanup_prefixes_builder_ struct prefixes_builder builder = { 0 };
	size_t before = errs_count(errs);
	int r = parse_lines(&builder, text, length, errs);

	if (r < 0)
		return r;
	return errs_count(errs) > before ? -EINVAL : prefixes_finish(&builder, ret);
}

int prefixes_format(const struct prefixes *prefixes, char **ret, size_t *ret_length)
{
	char *text = malloc(prefixes->n * ADDR_TEXT_MAX + 1), *at = text, *fitting;
	struct prefixes_cursor cursor = prefixes_from(prefixes, 0);
	const struct prefix *prefix;

	if (!text)
		return -ENOMEM;
	while ((prefix = prefixes_next(&cursor))) {
		prefix_format(prefix, at);
		at += strlen(at);
		*at++ = '\n';
	}
	*at = '\0';
	*ret_length = (size_t)(at - text);
	fitting = realloc(text, *ret_length + 1);
	*ret = fitting ? fitting : text;
	return 0;
}
