/* Secrets, see redact.h. In doubt a value is taken out: a bundle with a gap can be asked about, a leak cannot. */
#include "gatewayd/ctl/redact.h"

#include <stdbool.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

static const char *const names[] = { "token", "secret", "password", "passwd", "private_key", "key_pem", "authorization",
	"cookie", "csrf", "credential" };
static const char *const marks[] = { "PRIVATE KEY", "Bearer ", "gateway_session=" };

/* Members of these names are numbers or words about secrets, or the list of tokens, which holds none. */
static bool is_secret_name(const char *key, const json_t *value)
{
	if (!json_is_string(value))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcasestr(key, names[i]))
			return true;
	return false;
}

static bool looks_secret(const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		if (strcasestr(text, marks[i]))
			return true;
	return false;
}

static bool is_secret(const char *key, const json_t *value)
{
	const char *text = json_string_value(value);

	return (key && is_secret_name(key, value)) || (text && looks_secret(text));
}

void redact_json(json_t *document)
{
	json_t *value;
	const char *key;
	size_t i;

	json_array_foreach(document, i, value)
	{
		if (is_secret(NULL, value))
			json_array_set_new(document, i, json_string(REDACT_MARK));
		else
			redact_json(value);
	}
	json_object_foreach(document, key, value)
	{
		if (is_secret(key, value))
			json_object_set_new(document, key, json_string(REDACT_MARK));
		else
			redact_json(value);
	}
}

void redact_text(char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");
		char end = text[length];

		text[length] = '\0';
		if (looks_secret(text))
			memset(text, '*', length);
		text[length] = end;
		text += length + (end == '\n');
	}
}
