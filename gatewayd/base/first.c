/* Which protocol a connection's first bytes are of; see first.h. */
#include "gatewayd/base/first.h"

#include "gatewayd/base/first_http.h"
#include "gatewayd/base/first_tls.h"

/* Longest label of a DNS name. */
#define LABEL_MAX 63

enum first_state first_parse(const uint8_t *bytes, size_t length, struct first *ret)
{
	enum first_state state = first_tls_parse(bytes, length, ret);

	return state == FIRST_OTHER ? first_http_parse(bytes, length, ret) : state;
}

/* The byte in lower case, or 0 if no label may hold it. */
static char label_byte(uint8_t byte)
{
	if (byte >= 'A' && byte <= 'Z')
		return (char)(byte - 'A' + 'a');
	if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_')
		return (char)byte;
	return 0;
}

bool first_host(const uint8_t *bytes, size_t length, char ret[FIRST_HOST_MAX + 1])
{
	size_t label = 0;

	ret[0] = '\0';
	if (length == 0 || length > FIRST_HOST_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		bool dot = bytes[i] == '.';
		char byte = dot ? '.' : label_byte(bytes[i]);

		label = dot ? 0 : label + 1;
		if (!byte || label > LABEL_MAX || (dot && (i == 0 || bytes[i - 1] == '.'))) {
			ret[0] = '\0';
			return false;
		}
		ret[i] = byte;
	}
	ret[label > 0 ? length : 0] = '\0';
	return label > 0;
}
