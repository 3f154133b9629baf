/*
 * Any bytes as a record: decoding never reads beyond them, and what it accepts
 * encodes again to the very same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_key(const struct proto_message *message)
{
	struct proto_match_del again;
	struct match_key key;

	if (message->type != PROTO_MATCH_DEL || proto_to_key(&message->match_del, &key) < 0)
		return;
	proto_from_key(&key, &again);
	if (memcmp(&again, &message->match_del, sizeof(again)) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *record = malloc(size ? size : 1), again[PROTO_RECORD_MAX];
	struct proto_message message;
	struct wire wire, out;

	if (!record)
		return 0;
	if (size > 0)
		memcpy(record, data, size);
	wire_init(&wire, record, size);
	while (wire.offset < wire.size) {
		size_t start = wire.offset;

		if (proto_decode(&wire, PROTO_BOTH, &message) < 0)
			break;
		wire_init(&out, again, sizeof(again));
		if (proto_encode(&out, &message) < 0 || out.offset != wire.offset - start ||
		        memcmp(again, record + start, out.offset) != 0)
			abort();
		check_key(&message);
	}
	free(record);
	return 0;
}
