/*
 * Any bytes as a PROXY header: nothing outside is read, what is said of a
 * prefix stays true of more, and what was understood can be written and read
 * again as the same.
 */
#include "gatewayd/base/proxy_header.h"
#include "tests/fuzz/fuzz_first.h"

static void check_prefix(const uint8_t *data, size_t size, size_t cut, enum first_state state, size_t length)
{
	uint8_t *copy = fuzz_exact(data, cut);
	struct proxy_header header;
	size_t early_length = 0;
	enum first_state early = proxy_header_read(copy, cut, &header, &early_length);

	FUZZ_EXPECT(early < FIRST_STATES);
	FUZZ_EXPECT(early == FIRST_MORE ? size > cut || state == FIRST_MORE : early == state);
	FUZZ_EXPECT(early != FIRST_COMPLETE || early_length == length);
	free(copy);
}

static void check_again(const struct proxy_header *header)
{
	uint8_t written[PROXY_HEADER_WRITE_MAX];
	struct proxy_header again;
	size_t length = proxy_header_write(header, written), read = 0;

	FUZZ_EXPECT(length > 0 && length <= sizeof(written));
	FUZZ_EXPECT(proxy_header_read(written, length, &again, &read) == FIRST_COMPLETE && read == length);
	FUZZ_EXPECT(again.version == header->version && again.known == header->known);
	FUZZ_EXPECT(again.protocol == header->protocol && again.source_port == header->source_port);
	FUZZ_EXPECT(again.destination_port == header->destination_port);
	FUZZ_EXPECT(!again.known || (addr_equal(&again.source, &header->source) &&
	                                    addr_equal(&again.destination, &header->destination)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = fuzz_exact(data, size);
	struct proxy_header header;
	size_t length = 0;
	enum first_state state = proxy_header_read(copy, size, &header, &length);

	FUZZ_EXPECT(state < FIRST_STATES);
	if (state == FIRST_COMPLETE) {
		FUZZ_EXPECT(length > 0 && length <= size && length <= PROXY_HEADER_READ_MAX);
		check_again(&header);
		check_prefix(copy, size, length, FIRST_COMPLETE, length);
		check_prefix(copy, length, length - 1, FIRST_MORE, 0);
	}
	if (size > 0) {
		check_prefix(copy, size, size / 2, state, length);
		check_prefix(copy, size, size - 1, state, length);
	}
	free(copy);
	return 0;
}
