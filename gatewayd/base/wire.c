/* Bounds-checked cursors; see wire.h. */
#include "gatewayd/base/wire.h"

#include <errno.h>
#include <string.h>

void wire_init(struct wire *wire, void *data, size_t size)
{
	*wire = (struct wire){ .data = data, .size = size };
}

/* The next `length` bytes to be written or read, or NULL with the cursor's error set. */
static uint8_t *wire_take(struct wire *wire, size_t length, int error)
{
	uint8_t *place = wire->data + wire->offset;

	if (wire->error)
		return NULL;
	if (length > wire->size - wire->offset) {
		wire->error = error;
		return NULL;
	}
	wire->offset += length;
	return place;
}

static void wire_put_integer(struct wire *wire, uint64_t value, size_t length)
{
	uint8_t *place = wire_take(wire, length, -ENOBUFS);

	for (size_t i = 0; place && i < length; i++)
		place[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t wire_get_integer(struct wire *wire, size_t length)
{
	const uint8_t *place = wire_take(wire, length, -EBADMSG);
	uint64_t value = 0;

	for (size_t i = 0; place && i < length; i++)
		value |= (uint64_t)place[i] << (8 * i);
	return value;
}

void wire_put_u8(struct wire *wire, uint8_t value)
{
	wire_put_integer(wire, value, 1);
}

void wire_put_u16(struct wire *wire, uint16_t value)
{
	wire_put_integer(wire, value, 2);
}

void wire_put_u32(struct wire *wire, uint32_t value)
{
	wire_put_integer(wire, value, 4);
}

void wire_put_u64(struct wire *wire, uint64_t value)
{
	wire_put_integer(wire, value, 8);
}

void wire_put_raw(struct wire *wire, const void *bytes, size_t length)
{
	uint8_t *place = wire_take(wire, length, -ENOBUFS);

	if (place && length > 0)
		memcpy(place, bytes, length);
}

void wire_put_string(struct wire *wire, const char *text, size_t max)
{
	size_t length = strnlen(text, max + 1);

	if (length > max || length > UINT16_MAX) {
		if (!wire->error)
			wire->error = -ENOBUFS;
		return;
	}
	wire_put_u16(wire, (uint16_t)length);
	wire_put_raw(wire, text, length);
}

uint8_t wire_get_u8(struct wire *wire)
{
	return (uint8_t)wire_get_integer(wire, 1);
}

uint16_t wire_get_u16(struct wire *wire)
{
	return (uint16_t)wire_get_integer(wire, 2);
}

uint32_t wire_get_u32(struct wire *wire)
{
	return (uint32_t)wire_get_integer(wire, 4);
}

uint64_t wire_get_u64(struct wire *wire)
{
	return wire_get_integer(wire, 8);
}

void wire_get_raw(struct wire *wire, void *ret_bytes, size_t length)
{
	const uint8_t *place = wire_take(wire, length, -EBADMSG);

	if (place && length > 0)
		memcpy(ret_bytes, place, length);
}

void wire_get_string(struct wire *wire, char *ret_text, size_t max)
{
	size_t length = wire_get_u16(wire);
	const uint8_t *place;

	ret_text[0] = '\0';
	if (length > max) {
		if (!wire->error)
			wire->error = -EBADMSG;
		return;
	}
	place = wire_take(wire, length, -EBADMSG);
	if (!place)
		return;
	if (memchr(place, '\0', length)) {
		wire->error = -EBADMSG;
		return;
	}
	memcpy(ret_text, place, length);
	ret_text[length] = '\0';
}
