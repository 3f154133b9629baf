/*
 * The request head; see first_http.h. RFC 9112 (2, 3, 5), RFC 9113 (3.4).
 *
 * What is not clearly a request line ("METHOD target HTTP/1.x") is another
 * protocol; behind it everything is HTTP, and what servers are known to read
 * in different ways is malformed instead of guessed at: bare CR or LF, folded
 * lines, a space before the colon, two hosts. Only a whole head is complete,
 * for the second host may stand in its last line. Host and path are compared
 * as sent: nothing is decoded, no dots are resolved.
 */
#include "gatewayd/base/first_http.h"

#include <string.h>

#include "gatewayd/base/addr.h"

/* Longest method: as long as the configuration's. */
#define METHOD_MAX 32

struct reader {
	const uint8_t *bytes;
	size_t length, at;
};

static bool is_method_byte(uint8_t byte)
{
	return (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '_';
}

static bool is_token_byte(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", byte);
}

static uint8_t lower(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

/* Whether the span is the word, which is in lower case, in any case. */
static bool span_is(struct first_span span, const char *word)
{
	if (span.length != strlen(word))
		return false;
	for (size_t i = 0; i < span.length; i++)
		if (lower(span.bytes[i]) != (uint8_t)word[i])
			return false;
	return true;
}

/* Steps over exactly these bytes. */
static enum first_state expect(struct reader *reader, const char *text, size_t length)
{
	size_t left = reader->length - reader->at, n = left < length ? left : length;

	if (memcmp(reader->bytes + reader->at, text, n) != 0)
		return FIRST_OTHER;
	reader->at += n;
	return n < length ? FIRST_MORE : FIRST_COMPLETE;
}

/* The end of a line of HTTP: these two bytes and no other. */
static enum first_state line_end(struct reader *reader)
{
	enum first_state state = expect(reader, "\r\n", 2);

	return state == FIRST_OTHER ? FIRST_MALFORMED : state;
}

/* --- authority --- */

static bool is_port(struct first_span text)
{
	uint32_t port = 0;

	if (text.length > 5)
		return false;
	for (size_t i = 0; i < text.length; i++) {
		if (text.bytes[i] < '0' || text.bytes[i] > '9')
			return false;
		port = port * 10 + (uint32_t)(text.bytes[i] - '0');
	}
	return port <= UINT16_MAX;
}

/* "[2001:db8::1]": the canonical address without brackets. Its length in the text, or 0. */
static size_t read_literal(struct first_span text, char host[FIRST_HOST_MAX + 1])
{
	const uint8_t *end = memchr(text.bytes, ']', text.length);
	size_t length = end ? (size_t)(end - text.bytes) - 1 : 0;
	char inner[ADDR_TEXT_MAX];
	struct addr addr;

	if (length == 0 || length >= sizeof(inner) || memchr(text.bytes, '\0', text.length))
		return 0;
	memcpy(inner, text.bytes + 1, length);
	inner[length] = '\0';
	if (addr_parse(inner, &addr) < 0 || addr.family != AF_INET6)
		return 0;
	addr_format(&addr, host);
	return length + 2;
}

/* "host", "host:port" or nothing at all, as Host has it. */
static bool read_authority(struct first_span text, char host[FIRST_HOST_MAX + 1])
{
	const uint8_t *colon;
	size_t length;

	host[0] = '\0';
	if (text.length == 0)
		return true;
	if (text.bytes[0] == '[') {
		length = read_literal(text, host);
		if (length == 0)
			return false;
	} else {
		colon = memchr(text.bytes, ':', text.length);
		length = colon ? (size_t)(colon - text.bytes) : text.length;
		if (!first_host(text.bytes, length, host))
			return false;
	}
	if (length == text.length)
		return true;
	return text.bytes[length] == ':' &&
	       is_port((struct first_span){ text.bytes + length + 1, text.length - length - 1 });
}

/* --- request line --- */

/* What stands before the query. */
static struct first_span path_of(const uint8_t *bytes, size_t length)
{
	size_t n = 0;

	while (n < length && bytes[n] != '?' && bytes[n] != '#')
		n++;
	return (struct first_span){ bytes, n };
}

/* The length of the word, which is in lower case, if the span begins with it in any case; else 0. */
static size_t begins_with(struct first_span span, const char *word)
{
	size_t length = strlen(word);

	return span.length >= length && span_is((struct first_span){ span.bytes, length }, word) ? length : 0;
}

/* "http://authority/path". */
static bool read_absolute(struct first_span target, struct first *ret)
{
	static const uint8_t root[] = { '/' };
	size_t scheme = begins_with(target, "https://"), end;

	if (scheme == 0)
		scheme = begins_with(target, "http://");
	end = scheme;
	while (end < target.length && target.bytes[end] != '/' && target.bytes[end] != '?' && target.bytes[end] != '#')
		end++;
	if (scheme == 0 || end == scheme ||
	        !read_authority((struct first_span){ target.bytes + scheme, end - scheme }, ret->host))
		return false;
	ret->path = path_of(target.bytes + end, target.length - end);
	if (ret->path.length == 0)
		ret->path = (struct first_span){ root, sizeof(root) };
	return true;
}

/* *ret_host: the target itself names the host, and Host does not count. */
static bool read_target(struct first_span target, struct first *ret, bool *ret_host)
{
	bool connect = span_is(ret->method, "connect");

	*ret_host = connect || (target.bytes[0] != '/' && target.bytes[0] != '*');
	if (connect)
		return read_authority(target, ret->host);
	if (*ret_host)
		return read_absolute(target, ret);
	if (target.bytes[0] == '*' && target.length > 1)
		return false;
	ret->path = path_of(target.bytes, target.length);
	return true;
}

static enum first_state read_method(struct reader *reader, struct first_span *ret)
{
	size_t n = 0;

	while (n < reader->length && n <= METHOD_MAX && is_method_byte(reader->bytes[n]))
		n++;
	if (n > METHOD_MAX)
		return FIRST_OTHER;
	if (n == reader->length)
		return FIRST_MORE;
	if (n == 0 || reader->bytes[n] != ' ')
		return FIRST_OTHER;
	*ret = (struct first_span){ reader->bytes, n };
	reader->at = n + 1;
	return FIRST_COMPLETE;
}

static enum first_state read_request_line(struct reader *reader, struct first *ret, bool *ret_host, bool *ret_old)
{
	struct first_span target;
	size_t begin;
	enum first_state state = read_method(reader, &ret->method);

	if (state != FIRST_COMPLETE)
		return state;
	begin = reader->at;
	while (reader->at < reader->length && reader->bytes[reader->at] > ' ' && reader->bytes[reader->at] != 0x7f)
		reader->at++;
	if (reader->at == reader->length)
		return FIRST_MORE;
	target = (struct first_span){ reader->bytes + begin, reader->at - begin };
	if (target.length == 0)
		return FIRST_OTHER;
	state = expect(reader, " HTTP/1.", 8);
	if (state != FIRST_COMPLETE)
		return state;
	ret->kind = FIRST_HTTP;
	if (reader->at == reader->length)
		return FIRST_MORE;
	*ret_old = reader->bytes[reader->at] == '0';
	if (reader->bytes[reader->at] < '0' || reader->bytes[reader->at] > '9')
		return FIRST_MALFORMED;
	reader->at++;
	state = line_end(reader);
	if (state != FIRST_COMPLETE)
		return state;
	return read_target(target, ret, ret_host) ? FIRST_COMPLETE : FIRST_MALFORMED;
}

/* --- fields --- */

static bool is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

static struct first_span trimmed(const uint8_t *bytes, size_t length)
{
	while (length > 0 && is_blank(bytes[0])) {
		bytes++;
		length--;
	}
	while (length > 0 && is_blank(bytes[length - 1]))
		length--;
	return (struct first_span){ bytes, length };
}

/* One line "name: value"; FIRST_COMPLETE for each. */
static enum first_state read_field(struct reader *reader, struct first_span *ret_name, struct first_span *ret_value)
{
	size_t begin = reader->at, colon;

	while (reader->at < reader->length && is_token_byte(reader->bytes[reader->at]))
		reader->at++;
	if (reader->at == reader->length)
		return FIRST_MORE;
	colon = reader->at++;
	if (colon == begin || reader->bytes[colon] != ':')
		return FIRST_MALFORMED;
	while (reader->at < reader->length && (reader->bytes[reader->at] >= ' ' || reader->bytes[reader->at] == '\t') &&
	        reader->bytes[reader->at] != 0x7f)
		reader->at++;
	*ret_name = (struct first_span){ reader->bytes + begin, colon - begin };
	*ret_value = trimmed(reader->bytes + colon + 1, reader->at - colon - 1);
	if (reader->at == reader->length)
		return FIRST_MORE;
	return line_end(reader);
}

static enum first_state read_fields(struct reader *reader, struct first *ret, bool host_is_known, bool old)
{
	char host[FIRST_HOST_MAX + 1] = "";
	struct first_span name, value;
	bool found = false;
	enum first_state state;

	while (reader->at < reader->length && reader->bytes[reader->at] != '\r') {
		state = read_field(reader, &name, &value);
		if (state != FIRST_COMPLETE)
			return state;
		if (!span_is(name, "host"))
			continue;
		if (found || !read_authority(value, host))
			return FIRST_MALFORMED;
		found = true;
	}
	state = line_end(reader);
	if (state != FIRST_COMPLETE)
		return state;
	if (!found && !old)
		return FIRST_MALFORMED;
	if (!host_is_known)
		memcpy(ret->host, host, sizeof(host));
	return FIRST_COMPLETE;
}

static enum first_state parse_head(const uint8_t *bytes, size_t length, struct first *ret)
{
	struct reader reader = { bytes, length, 0 };
	bool host_is_known = false, old = false;
	enum first_state state = read_request_line(&reader, ret, &host_is_known, &old);

	return state == FIRST_COMPLETE ? read_fields(&reader, ret, host_is_known, old) : state;
}

enum first_state first_http_parse(const uint8_t *bytes, size_t length, struct first *ret)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	struct reader reader = { bytes, length, 0 };
	enum first_state state;

	ret->kind = FIRST_UNKNOWN;
	ret->host[0] = '\0';
	ret->alpn = ret->method = ret->path = (struct first_span){ 0 };
	state = expect(&reader, preface, sizeof(preface) - 1);
	if (state == FIRST_COMPLETE)
		ret->kind = FIRST_HTTP2;
	if (state != FIRST_OTHER)
		return state;
	state = parse_head(bytes, length < FIRST_HTTP_MAX ? length : FIRST_HTTP_MAX, ret);
	if (state == FIRST_MORE && length >= FIRST_HTTP_MAX) {
		ret->kind = FIRST_HTTP;
		return FIRST_TOO_LONG;
	}
	if (state == FIRST_OTHER)
		ret->kind = FIRST_UNKNOWN;
	return state;
}
