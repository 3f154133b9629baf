/* What is shown, see print.h. */
#include "gatewayd/ctl/print.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

char *print_clean(char *text)
{
	for (char *c = text; *c; c++) {
		/* U+0080 to U+009F: both bytes, for the second one alone means the same to some terminals. */
		bool c1 = (unsigned char)*c == 0xc2 && (unsigned char)c[1] >= 0x80 && (unsigned char)c[1] < 0xa0;

		if (c1)
			*c++ = '?';
		if (c1 || (unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	return text;
}

static void add(struct print_table *table, char *text)
{
	char **grown;

	if (text && table->n == table->size) {
		grown = realloc(table->cells, (2 * table->size + 32) * sizeof(*grown));
		if (grown) {
			table->cells = grown;
			table->size = 2 * table->size + 32;
		}
	}
	if (!text || table->n == table->size) {
		free(text);
		table->failed = 1;
		return;
	}
	table->cells[table->n++] = print_clean(text);
}

void print_cell(struct print_table *table, const char *format, ...)
{
	va_list arguments;
	char *text;
	int r;

	va_start(arguments, format);
	r = vasprintf(&text, format, arguments);
	va_end(arguments);
	add(table, r < 0 ? NULL : text);
}

void print_begin(struct print_table *table, FILE *out, const char *heads)
{
	*table = (struct print_table){ .out = out };
	while (*heads) {
		size_t length = strcspn(heads, " ");

		add(table, strndup(heads, length));
		heads += length + (heads[length] == ' ');
	}
	table->columns = table->n;
}

/* Characters that a terminal shows: bytes that begin one in UTF-8. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void cut(char *text)
{
	size_t n = 0;

	for (; *text; text++) {
		n += ((unsigned char)*text & 0xc0) != 0x80;
		if (n == PRINT_CELL_MAX && text[1]) {
			*text++ = '~';
			*text = '\0';
			return;
		}
	}
}

static void print_row(const struct print_table *table, size_t row, const size_t *widths, const bool *right)
{
	for (size_t i = 0; i < table->columns; i++) {
		const char *text = table->cells[row * table->columns + i];
		size_t pad = widths[i] - width_of(text);
		bool last = i + 1 == table->columns;

		fprintf(table->out, "%*s%s%*s", right[i] ? (int)pad : 0, "", text, right[i] || last ? 0 : (int)pad, "");
		fputs(last ? "\n" : "  ", table->out);
	}
}

void print_end(struct print_table *table)
{
	size_t widths[PRINT_COLUMNS_MAX] = { 0 };
	bool right[PRINT_COLUMNS_MAX] = { false };

	for (size_t i = 0; i < table->columns && i < table->n; i++) {
		right[i] = table->cells[i][0] == '>';
		if (right[i])
			memmove(table->cells[i], table->cells[i] + 1, strlen(table->cells[i]));
	}
	for (size_t i = 0; i < table->n; i++) {
		size_t width, column = i % table->columns;

		cut(table->cells[i]);
		width = width_of(table->cells[i]);
		widths[column] = width > widths[column] ? width : widths[column];
	}
	for (size_t row = 0; !table->failed && (row + 1) * table->columns <= table->n; row++)
		print_row(table, row, widths, right);
	for (size_t i = 0; i < table->n; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct print_table){ 0 };
}

void print_json(const json_t *document)
{
	json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	fputc('\n', stdout);
}

static void write_value(FILE *out, const json_t *value)
{
	char place[PRINT_PLACE_BYTES];
	const json_t *item;
	size_t i;

	switch (json_typeof(value)) {
	case JSON_STRING:
		fputs(json_string_value(value), out);
		break;
	case JSON_ARRAY:
		for (i = 0; i < json_array_size(value); i++) {
			item = json_array_get(value, i);
			fputs(i > 0 ? "," : "", out);
			/* A target is known by its address. */
			if (json_is_object(item) && json_object_get(item, "address"))
				fputs(print_place(item, place), out);
			else
				write_value(out, item);
		}
		fputs(i == 0 ? "-" : "", out);
		break;
	case JSON_OBJECT:
	case JSON_INTEGER:
	case JSON_REAL:
		json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
		break;
	case JSON_TRUE:
		fputs("yes", out);
		break;
	case JSON_FALSE:
		fputs("no", out);
		break;
	case JSON_NULL:
		fputs("-", out);
		break;
	}
}

char *print_value(const json_t *value)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	if (value)
		write_value(out, value);
	else
		fputc('-', out);
	fclose(out);
	return text;
}

json_t *print_find(const json_t *document, const char *path)
{
	json_t *found = (json_t *)document;
	char key[64];

	while (found && *path) {
		size_t length = strcspn(path, ".");

		snprintf(key, sizeof(key), "%.*s", (int)length, path);
		found = json_object_get(found, key);
		path += length + (path[length] == '.');
	}
	return found;
}

const char *print_text(const json_t *document, const char *path)
{
	const char *text = json_string_value(print_find(document, path));

	return text ? text : "";
}

double print_number(const json_t *document, const char *path)
{
	return json_number_value(print_find(document, path));
}

const char *print_place(const json_t *object, char buffer[PRINT_PLACE_BYTES])
{
	const char *address = print_text(object, "address");

	snprintf(buffer, PRINT_PLACE_BYTES, strchr(address, ':') ? "[%s]:%.0f" : "%s:%.0f", address,
	        print_number(object, "port"));
	return buffer;
}

const char *print_amount(double value, char *buffer)
{
	static const char units[] = { '\0', 'k', 'M', 'G', 'T', 'P', 'E' };
	size_t unit = 0;

	while (value >= 999.5 && unit + 1 < sizeof(units)) {
		value /= 1000;
		unit++;
	}
	snprintf(buffer, PRINT_UNIT_BYTES, unit > 0 && value < 99.5 ? "%.1f%c" : "%.0f%c", value, units[unit]);
	return buffer;
}

const char *print_duration(double seconds, char *buffer)
{
	unsigned long whole = (unsigned long)seconds;

	if (seconds < 60)
		snprintf(buffer, PRINT_UNIT_BYTES, "%.1fs", seconds);
	else if (whole < 3600)
		snprintf(buffer, PRINT_UNIT_BYTES, "%lum%02lus", whole / 60, whole % 60);
	else if (whole < 86400)
		snprintf(buffer, PRINT_UNIT_BYTES, "%luh%02lum", whole / 3600, whole / 60 % 60);
	else
		snprintf(buffer, PRINT_UNIT_BYTES, "%lud%02luh", whole / 86400, whole / 3600 % 24);
	return buffer;
}
