/* PROXY headers; see proxy_header.h. */
#include "gatewayd/base/proxy_header.h"

#include <stdio.h>
#include <string.h>

/* Longest header of version 1 with its line end, as the specification says. */
#define LINE_MAX_V1    107
#define SIGNATURE_SIZE 12
/* Signature, command, family, length. */
#define FIXED_SIZE      16
#define UNIX_ADDRESSES  216
#define TLV_HEADER      3
#define TLV_CHECKSUM    3
#define COMMAND_LOCAL   0x20
#define COMMAND_PROXY   0x21
#define FAMILY_UNSPEC   0
#define FAMILY_INET     1
#define FAMILY_INET6    2
#define FAMILY_UNIX     3
#define PROTOCOL_STREAM 1
#define PROTOCOL_DGRAM  2

static const uint8_t signature[SIGNATURE_SIZE + 1] = "\r\n\r\n\0\r\nQUIT\n";

/* --- writing --- */

static size_t write_line(const struct proxy_header *header, uint8_t *ret)
{
	char source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];
	char line[LINE_MAX_V1 + 1];
	int n;

	if (!header->known)
		n = snprintf(line, sizeof(line), "PROXY UNKNOWN\r\n");
	else
		n = snprintf(line, sizeof(line), "PROXY TCP%c %s %s %u %u\r\n",
		        header->source.family == AF_INET ? '4' : '6', addr_format(&header->source, source),
		        addr_format(&header->destination, destination), (unsigned)header->source_port,
		        (unsigned)header->destination_port);
	memcpy(ret, line, (size_t)n);
	return (size_t)n;
}

static uint8_t *put_u16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
	return at + 2;
}

static size_t write_binary(const struct proxy_header *header, uint8_t *ret)
{
	uint8_t family = header->source.family == AF_INET ? FAMILY_INET : FAMILY_INET6;
	uint8_t protocol = header->protocol == IPPROTO_UDP ? PROTOCOL_DGRAM : PROTOCOL_STREAM;
	size_t bytes = addr_bits(header->source.family) / 8;
	uint8_t *at = ret + SIGNATURE_SIZE;

	memcpy(ret, signature, SIGNATURE_SIZE);
	if (!header->known) {
		memcpy(at, (uint8_t[]){ COMMAND_LOCAL, FAMILY_UNSPEC, 0, 0 }, FIXED_SIZE - SIGNATURE_SIZE);
		return FIXED_SIZE;
	}
	*at++ = COMMAND_PROXY;
	*at++ = (uint8_t)(family << 4 | protocol);
	at = put_u16(at, 2 * bytes + 4);
	memcpy(at, header->source.bytes, bytes);
	memcpy(at + bytes, header->destination.bytes, bytes);
	at = put_u16(at + 2 * bytes, header->source_port);
	at = put_u16(at, header->destination_port);
	return (size_t)(at - ret);
}

size_t proxy_header_write(const struct proxy_header *header, uint8_t ret[PROXY_HEADER_WRITE_MAX])
{
	bool udp = header->protocol == IPPROTO_UDP;

	if (header->known && (header->source.family != header->destination.family ||
	                             (header->source.family != AF_INET && header->source.family != AF_INET6) ||
	                             (header->protocol != IPPROTO_TCP && !udp)))
		return 0;
	if (header->version == 1)
		return header->known && udp ? 0 : write_line(header, ret);
	return header->version == 2 ? write_binary(header, ret) : 0;
}

/* --- version 1 --- */

/* The next word of a line; each is followed by one space but the last. NULL if it is missing or empty. */
static const char *next_word(char **rest)
{
	char *word = *rest, *space;

	if (!word || !*word || *word == ' ')
		return NULL;
	space = strchr(word, ' ');
	if (space)
		*space = '\0';
	*rest = space ? space + 1 : NULL;
	return word;
}

static bool read_port(const char *text, uint16_t *ret)
{
	struct port_range range;

	if (strcmp(text, "0") == 0) { /* the header's grammar has it */
		*ret = 0;
		return true;
	}
	if (port_range_parse(text, &range) < 0 || range.lo != range.hi || strchr(text, '-'))
		return false;
	*ret = range.lo;
	return true;
}

static bool read_words(char *rest, uint8_t family, struct proxy_header *ret)
{
	const char *word[4];

	for (size_t i = 0; i < 4; i++) {
		word[i] = next_word(&rest);
		if (!word[i])
			return false;
	}
	ret->known = true;
	ret->protocol = IPPROTO_TCP;
	return !rest && addr_parse(word[0], &ret->source) == 0 && addr_parse(word[1], &ret->destination) == 0 &&
	       ret->source.family == family && ret->destination.family == family &&
	       read_port(word[2], &ret->source_port) && read_port(word[3], &ret->destination_port);
}

static enum first_state read_line(const uint8_t *bytes, size_t length, struct proxy_header *ret, size_t *ret_length)
{
	size_t looked = length < LINE_MAX_V1 ? length : LINE_MAX_V1;
	const uint8_t *end = memchr(bytes, '\r', looked);
	struct proxy_header header = { .version = 1 };
	char line[LINE_MAX_V1 + 1];
	size_t n = end ? (size_t)(end - bytes) : looked;
	bool good;

	if (memchr(bytes, '\0', n) || memchr(bytes, '\n', n))
		return FIRST_MALFORMED;
	if (!end || n + 1 == looked)
		return looked == LINE_MAX_V1 ? FIRST_TOO_LONG : FIRST_MORE;
	if (bytes[n + 1] != '\n')
		return FIRST_MALFORMED;
	memcpy(line, bytes, n);
	line[n] = '\0';
	/* What follows UNKNOWN is to be passed over. */
	if (strncmp(line, "PROXY UNKNOWN", 13) == 0)
		good = line[13] == '\0' || line[13] == ' ';
	else if (strncmp(line, "PROXY TCP4 ", 11) == 0)
		good = read_words(line + 11, AF_INET, &header);
	else
		good = strncmp(line, "PROXY TCP6 ", 11) == 0 && read_words(line + 11, AF_INET6, &header);
	if (!good)
		return FIRST_MALFORMED;
	*ret = header;
	*ret_length = n + 2;
	return FIRST_COMPLETE;
}

/* --- version 2 --- */

static size_t get_u16(const uint8_t *at)
{
	return (size_t)at[0] << 8 | at[1];
}

/* CRC32c (Castagnoli) bit by bit: at most PROXY_HEADER_READ_MAX bytes, once per connection that has one. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return crc;
}

/* Over the whole header, the checksum's own four bytes counting as zero. */
static bool checksum_is_right(const uint8_t *header, size_t length, size_t place)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(UINT32_MAX, header, place);

	crc = crc32c(crc, zero, sizeof(zero));
	crc = ~crc32c(crc, header + place + 4, length - place - 4);
	return get_u16(header + place) == crc >> 16 && get_u16(header + place + 2) == (crc & 0xffff);
}

/* Steps over what stands behind the addresses. */
static bool tlvs_are_good(const uint8_t *header, size_t length, size_t at)
{
	bool checked = false;

	while (at < length) {
		size_t size, type = header[at];

		if (length - at < TLV_HEADER)
			return false;
		size = get_u16(header + at + 1);
		at += TLV_HEADER;
		if (size > length - at)
			return false;
		if (type == TLV_CHECKSUM) {
			if (checked || size != 4 || !checksum_is_right(header, length, at))
				return false;
			checked = true;
		}
		at += size;
	}
	return true;
}

static void get_addresses(const uint8_t *at, uint8_t family, struct proxy_header *ret)
{
	size_t bytes = addr_bits(family) / 8;

	ret->known = true;
	ret->source.family = ret->destination.family = family;
	memcpy(ret->source.bytes, at, bytes);
	memcpy(ret->destination.bytes, at + bytes, bytes);
	ret->source_port = (uint16_t)get_u16(at + 2 * bytes);
	ret->destination_port = (uint16_t)get_u16(at + 2 * bytes + 2);
}

static bool read_body(const uint8_t *header, size_t length, struct proxy_header *ret)
{
	static const size_t sizes[] = {
		[FAMILY_UNSPEC] = 0, [FAMILY_INET] = 12, [FAMILY_INET6] = 36, [FAMILY_UNIX] = UNIX_ADDRESSES
	};
	unsigned family = header[13] >> 4, protocol = header[13] & 15;

	/* LOCAL: whatever else it says is to be passed over. */
	if (header[12] == COMMAND_LOCAL)
		return true;
	if (header[12] != COMMAND_PROXY || family > FAMILY_UNIX || protocol > PROTOCOL_DGRAM ||
	        (family == FAMILY_UNSPEC) != (protocol == 0) || length - FIXED_SIZE < sizes[family])
		return false;
	if (family == FAMILY_INET || family == FAMILY_INET6) {
		ret->protocol = protocol == PROTOCOL_DGRAM ? IPPROTO_UDP : IPPROTO_TCP;
		get_addresses(header + FIXED_SIZE, family == FAMILY_INET ? AF_INET : AF_INET6, ret);
	}
	return family == FAMILY_UNSPEC || tlvs_are_good(header, length, FIXED_SIZE + sizes[family]);
}

static enum first_state read_binary(const uint8_t *bytes, size_t length, struct proxy_header *ret, size_t *ret_length)
{
	struct proxy_header header = { .version = 2 };
	size_t whole;

	if (length < FIXED_SIZE)
		return FIRST_MORE;
	whole = FIXED_SIZE + get_u16(bytes + 14);
	if (whole > PROXY_HEADER_READ_MAX)
		return FIRST_TOO_LONG;
	if (length < whole)
		return FIRST_MORE;
	if (!read_body(bytes, whole, &header))
		return FIRST_MALFORMED;
	*ret = header;
	*ret_length = whole;
	return FIRST_COMPLETE;
}

enum first_state proxy_header_read(const uint8_t *bytes, size_t length, struct proxy_header *ret, size_t *ret_length)
{
	static const char word[] = "PROXY ";
	size_t n = length < SIGNATURE_SIZE ? length : SIGNATURE_SIZE;

	if (memcmp(bytes, signature, n) == 0)
		return read_binary(bytes, length, ret, ret_length);
	n = length < sizeof(word) - 1 ? length : sizeof(word) - 1;
	return memcmp(bytes, word, n) == 0 ? read_line(bytes, length, ret, ret_length) : FIRST_OTHER;
}
