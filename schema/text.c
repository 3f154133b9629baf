/* A growing text; see text.h. */
#include "schema/text.h"

#include <inttypes.h>
#include <string.h>

static bool grow(struct text *text, size_t n)
{
	size_t capacity = text->capacity ? text->capacity : 512;
	char *grown;

	while (capacity < text->n + n + 1)
		capacity *= 2;
	if (capacity == text->capacity)
		return true;
	grown = realloc(text->bytes, capacity);
	if (!grown) {
		text->failed = true;
		return false;
	}
	text->bytes = grown;
	text->capacity = capacity;
	return true;
}

void text_bytes(struct text *text, const char *bytes, size_t n)
{
	if (text->failed || !grow(text, n))
		return;
	memcpy(text->bytes + text->n, bytes, n);
	text->n += n;
	text->bytes[text->n] = '\0';
}

void text_add(struct text *text, const char *string)
{
	text_bytes(text, string, strlen(string));
}

void text_number(struct text *text, int64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%" PRId64, value);
	text_add(text, digits);
}

void text_json(struct text *text, const char *string)
{
	static const char special[] =
	        "\"\\\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15"
	        "\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";
	char escaped[12];

	text_bytes(text, "\"", 1);
	for (;;) {
		size_t plain = strcspn(string, special);

		text_bytes(text, string, plain);
		string += plain;
		if (!*string)
			break;
		if (*string == '"' || *string == '\\')
			snprintf(escaped, sizeof(escaped), "\\%c", *string);
		else
			snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)(unsigned char)*string);
		text_add(text, escaped);
		string++;
	}
	text_bytes(text, "\"", 1);
}

void text_restart(struct text *text)
{
	text->n = 0;
	if (text->bytes)
		text->bytes[0] = '\0';
}

void text_clear(struct text *text)
{
	free(text->bytes);
	*text = (struct text){ 0 };
}
