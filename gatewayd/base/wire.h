/*
 * Bounds-checked cursors over a byte buffer: the one way in which messages
 * between our processes are written and read. A cursor remembers its first
 * error, so callers write or read a whole message and check once.
 * Integers are little endian on the wire.
 */
#ifndef GW_BASE_WIRE_H
#define GW_BASE_WIRE_H

#include <stddef.h>
#include <stdint.h>

struct wire {
	uint8_t *data;
	size_t size;   /* bytes that may be touched */
	size_t offset; /* bytes written or read so far */
	int error;     /* 0, -ENOBUFS (writer full) or -EBADMSG (reader ran out, or a value is illegal) */
};

/* The buffer stays the caller's. A reader never writes through data. */
void wire_init(struct wire *wire, void *data, size_t size);

/* Each appends its value; without room nothing is written and wire.error becomes -ENOBUFS. */
void wire_put_u8(struct wire *wire, uint8_t value);
void wire_put_u16(struct wire *wire, uint16_t value);
void wire_put_u32(struct wire *wire, uint32_t value);
void wire_put_u64(struct wire *wire, uint64_t value);
void wire_put_raw(struct wire *wire, const void *bytes, size_t length);
/* u16 length, then the bytes; -ENOBUFS if the string is longer than max. */
void wire_put_string(struct wire *wire, const char *text, size_t max);

/* Each returns 0 (or writes nothing) once the cursor has an error. */
uint8_t wire_get_u8(struct wire *wire);
uint16_t wire_get_u16(struct wire *wire);
uint32_t wire_get_u32(struct wire *wire);
uint64_t wire_get_u64(struct wire *wire);
void wire_get_raw(struct wire *wire, void *ret_bytes, size_t length);
/* Into a buffer of max + 1 bytes, always terminated; a string over max or with a NUL inside is an error. */
void wire_get_string(struct wire *wire, char *ret_text, size_t max);

#endif
