/* Answers to HTTP health checks; see health_http.h. */
#include "gatewayd/relay/health_http.h"

#include <string.h>
#include <strings.h>

enum place {
	PLACE_STATUS,     /* the status line */
	PLACE_HEADER,     /* a line of the header */
	PLACE_BODY,       /* a body of `left` bytes, or up to the end */
	PLACE_CHUNK_SIZE, /* the line in front of a chunk */
	PLACE_CHUNK,      /* `left` bytes of it */
	PLACE_CHUNK_END   /* the empty line behind it */
};

void health_http_want_text(struct health_http_want *want, const char *text)
{
	size_t n = strnlen(text, HEALTH_HTTP_TEXT_MAX), k = 0;

	want->n_text = (uint8_t)n;
	memcpy(want->text, text, n);
	if (n > 0)
		want->border[0] = 0;
	for (size_t i = 1; i < n; i++) {
		while (k > 0 && text[i] != text[k])
			k = want->border[k - 1];
		k += text[i] == text[k];
		want->border[i] = (uint8_t)k;
	}
}

void health_http_begin(struct health_http *http)
{
	*http = (struct health_http){ .place = PLACE_STATUS };
}

/* --- the head --- */

/* "HTTP/1.1 200 OK"; the words may be missing. */
static enum health_http_result status_line(struct health_http *http)
{
	const char *line = http->line;

	if (http->n_line < 12 || memcmp(line, "HTTP/1.", 7) != 0 || line[7] < '0' || line[7] > '9' || line[8] != ' ')
		return HEALTH_HTTP_PROTOCOL;
	http->status = 0;
	for (unsigned i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9')
			return HEALTH_HTTP_PROTOCOL;
		http->status = (uint16_t)(http->status * 10 + (line[i] - '0'));
	}
	if (http->status < 100 || (http->n_line > 12 && line[12] != ' '))
		return HEALTH_HTTP_PROTOCOL;
	http->place = PLACE_HEADER;
	return HEALTH_HTTP_MORE;
}

/* The value behind "name:", without blanks in front; NULL if the line is of another name. The line is terminated. */
static const char *value_of(const char *line, const char *name)
{
	size_t length = strlen(name);

	if ((*line | 0x20) != *name || strncasecmp(line, name, length) != 0 || line[length] != ':')
		return NULL;
	return line + length + 1 + strspn(line + length + 1, " \t");
}

/* False if it is no number, or one that nobody means. */
static bool number(const char *text, const char *digits, unsigned base, uint64_t *ret)
{
	size_t n = strspn(text, digits);

	*ret = 0;
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		unsigned digit = c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a') + 10;

		if (*ret >> 58)
			return false;
		*ret = *ret * base + digit;
	}
	return n > 0 && (text[n] == '\0' || text[n] == ' ' || text[n] == '\t' || text[n] == ';');
}

static enum health_http_result header_line(struct health_http *http)
{
	const char *length = value_of(http->line, "content-length");
	const char *coding = value_of(http->line, "transfer-encoding");

	if (length && !number(length, "0123456789", 10, &http->left))
		return HEALTH_HTTP_PROTOCOL;
	http->counted = http->counted || length;
	http->chunked = http->chunked || (coding && strncasecmp(coding, "chunked", 7) == 0);
	return HEALTH_HTTP_MORE;
}

static bool has_body(const struct health_http *http, const struct health_http_want *want)
{
	return !want->head && http->status != 204 && http->status != 304 &&
	       (http->chunked || !http->counted || http->left > 0);
}

static enum health_http_result head_end(struct health_http *http, const struct health_http_want *want)
{
	uint32_t head = http->head;

	if (http->status < 200 && http->status != 101) { /* the answer proper is still to come */
		health_http_begin(http);
		http->head = head;
		return HEALTH_HTTP_MORE;
	}
	if (http->status < want->status_from || http->status > want->status_to)
		return HEALTH_HTTP_STATUS;
	if (want->n_text == 0)
		return HEALTH_HTTP_GOOD;
	if (!has_body(http, want))
		return HEALTH_HTTP_BODY;
	http->place = http->chunked ? PLACE_CHUNK_SIZE : PLACE_BODY;
	return HEALTH_HTTP_MORE;
}

static enum health_http_result chunk_size(struct health_http *http)
{
	if (!number(http->line, "0123456789abcdefABCDEF", 16, &http->left))
		return HEALTH_HTTP_PROTOCOL;
	http->place = PLACE_CHUNK;
	http->head = 0; /* each chunk's lines have a bound of their own: how many there can be, the body's bound says */
	return http->left == 0 ? HEALTH_HTTP_BODY : HEALTH_HTTP_MORE;
}

/* A line is complete, without its end. */
static enum health_http_result line_end(struct health_http *http, const struct health_http_want *want)
{
	uint8_t n = http->n_line;
	enum health_http_result result = HEALTH_HTTP_MORE;

	if (n > 0 && http->line[n - 1] == '\r')
		n--;
	http->line[n] = '\0';
	http->n_line = n;
	if (http->place == PLACE_STATUS)
		result = status_line(http);
	else if (http->place == PLACE_HEADER)
		result = n == 0 ? head_end(http, want) : header_line(http);
	else if (http->place == PLACE_CHUNK_SIZE)
		result = chunk_size(http);
	else
		http->place = PLACE_CHUNK_SIZE;
	http->n_line = 0;
	return result;
}

/* Who speaks another protocol may never end the line. */
static bool begins_well(const struct health_http *http)
{
	static const char beginning[] = "HTTP/1.";
	size_t n = http->n_line < sizeof(beginning) - 1 ? http->n_line : sizeof(beginning) - 1;

	return http->place != PLACE_STATUS || memcmp(http->line, beginning, n) == 0;
}

/* Up to the end of the line, or all there is of it. Returns how many bytes that were. */
static size_t line_bytes(struct health_http *http, const struct health_http_want *want, const char *bytes, size_t n,
        enum health_http_result *ret_result)
{
	const char *end = memchr(bytes, '\n', n);
	size_t length = end ? (size_t)(end - bytes) : n, taken = end ? length + 1 : n;
	size_t room = HEALTH_HTTP_LINE_MAX - 1U - http->n_line, kept = length < room ? length : room;

	*ret_result = HEALTH_HTTP_PROTOCOL;
	if (taken > HEALTH_HTTP_HEAD_MAX - http->head)
		return taken;
	http->head += (uint32_t)taken;
	memcpy(http->line + http->n_line, bytes, kept);
	http->n_line = (uint8_t)(http->n_line + kept);
	if (begins_well(http))
		*ret_result = end ? line_end(http, want) : HEALTH_HTTP_MORE;
	return taken;
}

/* --- the body --- */

static enum health_http_result body_byte(struct health_http *http, const struct health_http_want *want, char byte)
{
	while (http->matched > 0 && byte != want->text[http->matched])
		http->matched = want->border[http->matched - 1];
	http->matched = (uint8_t)(http->matched + (byte == want->text[http->matched]));
	if (http->matched == want->n_text)
		return HEALTH_HTTP_GOOD;
	if (++http->body == HEALTH_HTTP_BODY_MAX)
		return HEALTH_HTTP_BODY;
	if (http->place == PLACE_BODY && !http->counted)
		return HEALTH_HTTP_MORE;
	if (--http->left > 0)
		return HEALTH_HTTP_MORE;
	if (http->place == PLACE_BODY)
		return HEALTH_HTTP_BODY;
	http->place = PLACE_CHUNK_END;
	return HEALTH_HTTP_MORE;
}

enum health_http_result health_http_feed(
        struct health_http *http, const struct health_http_want *want, const char *bytes, size_t n)
{
	enum health_http_result result = HEALTH_HTTP_MORE;
	size_t i = 0;

	while (i < n && result == HEALTH_HTTP_MORE) {
		if (http->place == PLACE_BODY || http->place == PLACE_CHUNK)
			result = body_byte(http, want, bytes[i++]);
		else
			i += line_bytes(http, want, bytes + i, n - i, &result);
	}
	return result;
}

enum health_http_result health_http_end(const struct health_http *http)
{
	return http->place == PLACE_STATUS || http->place == PLACE_HEADER ? HEALTH_HTTP_PROTOCOL : HEALTH_HTTP_BODY;
}
