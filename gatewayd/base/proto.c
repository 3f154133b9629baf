/* Codec of the messages, derived from proto.def; see proto.h. */
#include "gatewayd/base/proto.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

#define DOWN PROTO_DOWN
#define UP   PROTO_UP
#define BOTH PROTO_BOTH

static const struct {
	const char *name;
	enum proto_direction direction;
	unsigned descriptors;
} proto_rows[] = {
	[PROTO_NONE] = { "none", 0, 0 },
#define MSG(upper, lower, direction, descriptors, fields) [PROTO_##upper] = { #lower, direction, descriptors },
#include "gatewayd/base/proto.def"
#undef MSG
};
static_assert(ARRAY_SIZE(proto_rows) == PROTO_TYPES, "one row per type");
static_assert(PROTO_HELLO == 1 && PROTO_HELLO_END == 2 && PROTO_LISTEN == 3 && PROTO_KEEP_CHANNEL == 4 &&
                      PROTO_HANDOVER == 5 && PROTO_HANDED_OVER == 6,
        "numbers of the stable messages do not move");

#define U8(member)         wire_put_u8(wire, message->member);
#define U16(member)        wire_put_u16(wire, message->member);
#define U32(member)        wire_put_u32(wire, message->member);
#define U64(member)        wire_put_u64(wire, message->member);
#define STR(member, max)   wire_put_string(wire, message->member, max);
#define RAW(member, bytes) wire_put_raw(wire, message->member, bytes);
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	static void put_##lower(struct wire *wire, const struct proto_##lower *message)                                \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/proto.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef STR
#undef RAW

#define U8(member)         message->member = wire_get_u8(wire);
#define U16(member)        message->member = wire_get_u16(wire);
#define U32(member)        message->member = wire_get_u32(wire);
#define U64(member)        message->member = wire_get_u64(wire);
#define STR(member, max)   wire_get_string(wire, message->member, max);
#define RAW(member, bytes) wire_get_raw(wire, message->member, bytes);
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	static void get_##lower(struct wire *wire, struct proto_##lower *message)                                      \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/proto.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef STR
#undef RAW

const char *proto_name(unsigned type)
{
	return type < PROTO_TYPES ? proto_rows[type].name : "unknown";
}

unsigned proto_descriptors(enum proto_type type)
{
	return proto_rows[type].descriptors;
}

static void put_payload(struct wire *wire, const struct proto_message *message)
{
	switch (message->type) {
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	case PROTO_##upper:                                                                                            \
		put_##lower(wire, &message->lower);                                                                    \
		return;
#include "gatewayd/base/proto.def"
#undef MSG
	case PROTO_NONE:
	case PROTO_TYPES:
		break;
	}
	wire->error = -ENOBUFS;
}

static void get_payload(struct wire *wire, struct proto_message *message)
{
	switch (message->type) {
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	case PROTO_##upper:                                                                                            \
		get_##lower(wire, &message->lower);                                                                    \
		return;
#include "gatewayd/base/proto.def"
#undef MSG
	case PROTO_NONE:
	case PROTO_TYPES:
		break;
	}
	wire->error = -EBADMSG;
}

int proto_encode(struct wire *wire, const struct proto_message *message)
{
	struct wire head = *wire, body = *wire;

	if (wire->error)
		return wire->error;
	wire_put_u64(&body, 0); /* the header's place */
	put_payload(&body, message);
	if (body.error)
		return -ENOBUFS;
	wire_put_u16(&head, (uint16_t)message->type);
	wire_put_u16(&head, 0);
	wire_put_u32(&head, (uint32_t)(body.offset - wire->offset - PROTO_HEADER_SIZE));
	wire->offset = body.offset;
	return 0;
}

int proto_decode(struct wire *wire, enum proto_direction direction, struct proto_message *ret)
{
	struct proto_message message = { 0 };
	unsigned type = wire_get_u16(wire), zero = wire_get_u16(wire);
	size_t length = wire_get_u32(wire);
	struct wire body;

	if (wire->error || zero != 0 || type == PROTO_NONE || type >= PROTO_TYPES)
		return -EBADMSG;
	if (!(proto_rows[type].direction & direction) || length > wire->size - wire->offset)
		return -EBADMSG;
	wire_init(&body, wire->data + wire->offset, length);
	message.type = (enum proto_type)type;
	get_payload(&body, &message);
	if (body.error || body.offset != length)
		return -EBADMSG;
	wire->offset += length;
	*ret = message;
	return 0;
}

void proto_from_key(const struct match_key *key, struct proto_match_del *ret)
{
	*ret = (struct proto_match_del){
		.protocol = key->shape.protocol,
		.family = key->shape.family,
		.dst_len = key->shape.dst_len,
		.src_len = key->shape.src_len,
		.use_interface = key->shape.interface,
		.port_kind = key->shape.port_kind,
		.port_lo = key->port_lo,
		.port_hi = key->port_hi,
	};
	memcpy(ret->dst, key->dst.bytes, sizeof(ret->dst));
	memcpy(ret->src, key->src.bytes, sizeof(ret->src));
	memcpy(ret->interface, key->interface, sizeof(ret->interface));
}

int proto_to_key(const struct proto_match_del *message, struct match_key *ret)
{
	struct match_key key = {
		.shape = { message->protocol, message->family, message->dst_len, message->src_len,
		        message->use_interface, message->port_kind },
		.dst.family = message->family,
		.src.family = message->family,
		.port_lo = message->port_lo,
		.port_hi = message->port_hi,
	};

	memcpy(key.dst.bytes, message->dst, sizeof(key.dst.bytes));
	memcpy(key.src.bytes, message->src, sizeof(key.src.bytes));
	memcpy(key.interface, message->interface, sizeof(key.interface));
	if (match_key_check(&key) < 0)
		return -EBADMSG;
	*ret = key;
	return 0;
}
