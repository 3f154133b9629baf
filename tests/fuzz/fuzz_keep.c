/*
 * Any bytes as a record about kept flows: decoding never reads beyond them,
 * and what it accepts encodes again to the very same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/keep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *record = malloc(size ? size : 1), again[KEEP_RECORD_MAX];
	struct keep_message message;
	struct wire wire, out;

	if (!record)
		return 0;
	if (size > 0)
		memcpy(record, data, size);
	wire_init(&wire, record, size);
	while (wire.offset < wire.size) {
		size_t start = wire.offset;

		if (keep_decode(&wire, &message) < 0)
			break;
		wire_init(&out, again, sizeof(again));
		if (keep_encode(&out, &message) < 0 || out.offset != wire.offset - start ||
		        memcmp(again, record + start, out.offset) != 0)
			abort();
	}
	free(record);
	return 0;
}
