/*
 * IPv4 and IPv6 addresses, prefixes and port ranges in binary form, and their
 * only parsers and printers. Text from outside reaches the kernel only after
 * it has passed through here, so a string can never carry anything but a number.
 */
#ifndef GW_BASE_ADDR_H
#define GW_BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An address: family AF_INET (4 bytes used, the rest zero) or AF_INET6; network byte order. */
struct addr {
	uint8_t family;
	uint8_t bytes[16];
};

struct prefix {
	struct addr addr;
	uint8_t length;
};

/* Both ends included, host byte order. */
struct port_range {
	uint16_t lo, hi;
};

/* Longest text of a prefix with its terminator, e.g. "ffff:...:255.255.255.255/128". */
#define ADDR_TEXT_MAX 50
/* The same with brackets and a port. */
#define ADDR_END_MAX (ADDR_TEXT_MAX + 8)

/* Bits in an address of this family: 32 or 128. */
unsigned addr_bits(uint8_t family);

/* Parses numeric text only, never a name and never a zone. -EINVAL if it is none. */
int addr_parse(const char *text, struct addr *ret);
/* Writes the canonical text into a buffer of at least ADDR_TEXT_MAX bytes and returns that buffer. */
const char *addr_format(const struct addr *addr, char *buffer);
/* "192.0.2.1:80", "[2001:db8::1]:80"; of an address that is none (family 0) the port alone. Buffer of at least
 * ADDR_END_MAX bytes, which is returned. */
const char *addr_format_end(const struct addr *addr, uint16_t port, char *buffer);
bool addr_equal(const struct addr *a, const struct addr *b);
/* <0, 0, >0 by family, then by the bytes. */
int addr_compare(const struct addr *a, const struct addr *b);

/* From and to a socket address; the port is in host byte order. -EAFNOSUPPORT for other families. */
int addr_from_sockaddr(const struct sockaddr_storage *sa, struct addr *ret, uint16_t *ret_port);
socklen_t addr_to_sockaddr(const struct addr *addr, uint16_t port, struct sockaddr_storage *ret);

/* Clears all bits behind the first `length`. */
void addr_mask(struct addr *addr, unsigned length);

/* "address" (a full-length prefix) or "address/length". -EINVAL if it is neither,
 * -ENOTUNIQ if bits behind the length are set (ret then holds the masked prefix, for a hint). */
int prefix_parse(const char *text, struct prefix *ret);
/* Canonical text: the length is left out where it is the full one. Buffer as for addr_format. */
const char *prefix_format(const struct prefix *prefix, char *buffer);
bool prefix_contains(const struct prefix *prefix, const struct addr *addr);

/* Most prefixes that one range of addresses can need: 2 * 128 - 2. */
#define PREFIX_RANGE_MAX 254
/* Splits "first-last" (same family, first <= last) into the fewest prefixes. Returns how many were
 * written (at most PREFIX_RANGE_MAX) or -EINVAL. A single prefix or address is taken as well. */
int prefix_range_parse(const char *text, struct prefix ret[PREFIX_RANGE_MAX]);

/* "443" or "8000-8100", each 1-65535, lo <= hi; digits only, no sign, no space, no leading zero. -EINVAL else. */
int port_range_parse(const char *text, struct port_range *ret);
/* A range of ports is cut into blocks of 2 to the n, each from a multiple of its size on: n of the largest that begins
 * at the port and does not go beyond the last one. */
unsigned port_block_bits(uint32_t port, uint32_t last);

#endif
