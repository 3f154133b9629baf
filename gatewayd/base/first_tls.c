/*
 * The ClientHello; see first_tls.h. RFC 8446 (4.1.2, 5.1), RFC 5246, RFC 6066
 * (3), RFC 7301, RFC 8701 (GREASE).
 *
 * Theory of operation: the records' payloads are put together in ret->hello
 * until the handshake message is whole; only then it is read, with a cursor
 * that never leaves it. What is checked is what a choice of route hangs on: a
 * hello that two implementations could read differently (a second server
 * name, a list that does not fill its frame) is malformed. Extensions that
 * nobody asks for, GREASE among them, are stepped over.
 */
#include "gatewayd/base/first_tls.h"

#include <string.h>

#define RECORD_HEADER      5
#define RECORD_HANDSHAKE   22
#define RECORD_PAYLOAD_MAX 16384
#define HANDSHAKE_HEADER   4
#define CLIENT_HELLO       1
#define RANDOM_SIZE        32
#define SESSION_ID_MAX     32

enum extension {
	EXTENSION_SERVER_NAME = 0,
	EXTENSION_ALPN = 16,
	EXTENSION_SUPPORTED_VERSIONS = 43,
	EXTENSION_ENCRYPTED_HELLO = 0xfe0d
};

/* Those of which a second one would make the hello ambiguous. */
enum seen { SEEN_SERVER_NAME = 1, SEEN_ALPN = 2, SEEN_VERSIONS = 4, SEEN_ENCRYPTED = 8 };

/* Big endian, and sticky about running out. */
struct cursor {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *take(struct cursor *cursor, size_t length)
{
	const uint8_t *at = cursor->at;

	if (cursor->bad || length > cursor->left) {
		cursor->bad = true;
		return NULL;
	}
	cursor->at += length;
	cursor->left -= length;
	return at;
}

static uint32_t number(struct cursor *cursor, size_t width)
{
	const uint8_t *at = take(cursor, width);
	uint32_t value = 0;

	for (size_t i = 0; at && i < width; i++)
		value = value << 8 | at[i];
	return value;
}

/* What a length of `width` bytes stands before. */
static struct cursor vector(struct cursor *cursor, size_t width)
{
	size_t length = number(cursor, width);
	const uint8_t *at = take(cursor, length);

	return (struct cursor){ .at = at, .left = at ? length : 0, .bad = !at };
}

/* --- extensions --- */

static bool read_server_name(struct cursor body, struct first *ret)
{
	struct cursor list = vector(&body, 2);
	bool found = false;

	if (body.left > 0 || list.left == 0)
		return false;
	while (!list.bad && list.left > 0) {
		uint32_t type = number(&list, 1);
		struct cursor name = vector(&list, 2);

		if (list.bad || type != 0)
			continue;
		if (found || !first_host(name.at, name.left, ret->host))
			return false;
		found = true;
	}
	return !list.bad;
}

static bool read_alpn(struct cursor body, struct first *ret)
{
	struct cursor list = vector(&body, 2);

	if (body.left > 0 || list.left == 0)
		return false;
	ret->alpn = (struct first_span){ list.at, list.left };
	while (!list.bad && list.left > 0)
		if (vector(&list, 1).left == 0)
			return false;
	return !list.bad;
}

/* 0x0a0a, 0x1a1a, ...: values that say nothing, so that servers stay tolerant of what they do not know. */
static bool is_grease(uint32_t value)
{
	return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}

static bool read_versions(struct cursor body, struct first *ret)
{
	struct cursor list = vector(&body, 1);
	uint32_t highest = 0;

	if (body.left > 0 || list.left == 0)
		return false;
	while (!list.bad && list.left > 0) {
		uint32_t version = number(&list, 2);

		if (!is_grease(version) && version > highest)
			highest = version;
	}
	ret->version = (uint16_t)highest;
	return !list.bad;
}

/* Takes note of one kind of extension; false if it was there before. */
static bool see(unsigned *seen, enum seen which)
{
	bool first = !(*seen & which);

	*seen |= which;
	return first;
}

static bool read_extension(uint32_t type, struct cursor body, unsigned *seen, struct first *ret)
{
	switch (type) {
	case EXTENSION_SERVER_NAME:
		return see(seen, SEEN_SERVER_NAME) && read_server_name(body, ret);
	case EXTENSION_ALPN:
		return see(seen, SEEN_ALPN) && read_alpn(body, ret);
	case EXTENSION_SUPPORTED_VERSIONS:
		return see(seen, SEEN_VERSIONS) && read_versions(body, ret);
	case EXTENSION_ENCRYPTED_HELLO:
		ret->encrypted_hello = true;
		return see(seen, SEEN_ENCRYPTED) && body.left > 0;
	default: /* from a peer: there are many, and there will be more */
		return true;
	}
}

static bool read_extensions(struct cursor *hello, struct first *ret)
{
	struct cursor list = vector(hello, 2);
	unsigned seen = 0;

	while (!list.bad && list.left > 0) {
		uint32_t type = number(&list, 2);
		struct cursor body = vector(&list, 2);

		if (list.bad || !read_extension(type, body, &seen, ret))
			return false;
	}
	return !list.bad && !hello->bad && hello->left == 0;
}

/* --- hello --- */

static bool read_hello(struct cursor hello, struct first *ret)
{
	size_t session, ciphers, compressions;

	ret->version = (uint16_t)number(&hello, 2);
	take(&hello, RANDOM_SIZE);
	session = vector(&hello, 1).left;
	ciphers = vector(&hello, 2).left;
	compressions = vector(&hello, 1).left;
	if (hello.bad || ret->version >> 8 != 3 || session > SESSION_ID_MAX || ciphers < 2 || ciphers % 2 > 0 ||
	        compressions == 0)
		return false;
	/* Before TLS 1.3 a hello may end here. */
	return hello.left == 0 || read_extensions(&hello, ret);
}

/* How much the handshake message needs in all, as far as it is known. */
static size_t hello_size(const uint8_t *hello, size_t have)
{
	if (have < HANDSHAKE_HEADER)
		return HANDSHAKE_HEADER;
	return HANDSHAKE_HEADER + ((size_t)hello[1] << 16 | (size_t)hello[2] << 8 | hello[3]);
}

/* Whether what is there of a record's header can be one of a handshake. */
static bool header_is_good(const uint8_t *header, size_t have)
{
	static const uint8_t fixed[] = { RECORD_HANDSHAKE, 3 };
	size_t length;

	if (memcmp(header, fixed, have < sizeof(fixed) ? have : sizeof(fixed)) != 0 || (have > 2 && header[2] > 4))
		return false;
	length = have < RECORD_HEADER ? 1 : (size_t)header[3] << 8 | header[4];
	return length > 0 && length <= RECORD_PAYLOAD_MAX;
}

/* Puts the hello together. *ret_size: its bytes, with FIRST_COMPLETE only. */
static enum first_state collect(const uint8_t *bytes, size_t length, uint8_t hello[FIRST_BYTES_MAX], size_t *ret_size)
{
	size_t have = 0, wanted = HANDSHAKE_HEADER;

	for (size_t at = 0; at < length;) {
		size_t left = length - at, payload;

		if (!header_is_good(bytes + at, left))
			return at == 0 ? FIRST_OTHER : FIRST_MALFORMED;
		if (left <= RECORD_HEADER)
			break;
		payload = (size_t)bytes[at + 3] << 8 | bytes[at + 4];
		left -= RECORD_HEADER;
		at += RECORD_HEADER;
		if (left > payload)
			left = payload;
		memcpy(hello + have, bytes + at, left);
		have += left;
		at += left;
		if (hello[0] != CLIENT_HELLO)
			return FIRST_OTHER;
		wanted = hello_size(hello, have);
		if (wanted > FIRST_BYTES_MAX - RECORD_HEADER)
			return FIRST_TOO_LONG;
		if (have >= wanted) {
			*ret_size = wanted;
			return FIRST_COMPLETE;
		}
	}
	return FIRST_MORE;
}

enum first_state first_tls_parse(const uint8_t *bytes, size_t length, struct first *ret)
{
	size_t looked = length < FIRST_BYTES_MAX ? length : FIRST_BYTES_MAX, size = 0;
	struct cursor hello;
	enum first_state state;

	ret->kind = FIRST_UNKNOWN;
	ret->host[0] = '\0';
	ret->version = 0;
	ret->encrypted_hello = false;
	ret->alpn = ret->method = ret->path = (struct first_span){ 0 };
	state = collect(bytes, looked, ret->hello, &size);
	if (state == FIRST_OTHER)
		return FIRST_OTHER;
	if (state == FIRST_MORE && looked == FIRST_BYTES_MAX)
		state = FIRST_TOO_LONG;
	ret->kind = FIRST_TLS;
	if (state != FIRST_COMPLETE)
		return state;
	hello = (struct cursor){ .at = ret->hello + HANDSHAKE_HEADER, .left = size - HANDSHAKE_HEADER };
	return read_hello(hello, ret) ? FIRST_COMPLETE : FIRST_MALFORMED;
}
