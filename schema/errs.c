/* The collection of input faults; see errs.h. */
#include "schema/errs.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "schema/value.h"

/* Cuts a text that is too long, never inside a UTF-8 sequence: the texts go into JSON. */
static void err_cut(char *text)
{
	size_t end = ERRS_TEXT_MAX;

	if (strlen(text) <= ERRS_TEXT_MAX)
		return;
	while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
		end--;
	text[end] = '\0';
}

/* Replaces what is not UTF-8: a library's words may quote an input cut anywhere. */
static void err_mend(char *text)
{
	uint32_t code;
	size_t step;

	for (; *text; text += step) {
		step = value_character(text, &code);
		if (step == 0) {
			*text = '?';
			step = 1;
		}
	}
}

void errs_add(struct errs *errs, const char *pointer, const char *code, const char *format, ...)
{
	struct err err = { NULL, NULL, NULL };
	va_list args;
	int length;

	if (errs->n == ERRS_MAX) {
		errs->dropped++;
		return;
	}
	va_start(args, format);
	length = vasprintf(&err.detail, format, args);
	va_end(args);
	if (length < 0)
		err.detail = NULL;
	err.pointer = strdup(pointer);
	err.code = strdup(code);
	if (!err.pointer || !err.code || !err.detail) {
		free(err.pointer);
		free(err.code);
		free(err.detail);
		errs->dropped++;
		return;
	}
	err_cut(err.pointer);
	err_cut(err.detail);
	err_mend(err.detail);
	errs->items[errs->n++] = err;
}

void errs_clear(struct errs *errs)
{
	for (size_t i = 0; i < errs->n; i++) {
		free(errs->items[i].pointer);
		free(errs->items[i].code);
		free(errs->items[i].detail);
	}
	*errs = (struct errs){ 0 };
}
