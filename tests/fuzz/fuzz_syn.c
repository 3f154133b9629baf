/*
 * Any bytes as a SYN's TCP header: nothing outside is read, and a largest
 * segment that is written is read again, with all else as it was.
 */
#include "gatewayd/relay/syn.h"
#include "tests/fuzz/fuzz_first.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = fuzz_exact(data, size);
	struct syn syn, again;

	if (size > 0 && syn_read(copy, size, &syn) == 0) {
		FUZZ_EXPECT(size >= 20 && size <= SYN_HEADER_MAX && syn.scale <= 14);
		FUZZ_EXPECT(syn.mss_at == 0 || (syn.mss_at >= 22 && syn.mss_at + 2U <= size));
		if (syn.mss_at) {
			syn_set_mss(copy, &syn, 1200);
			FUZZ_EXPECT(syn_read(copy, size, &again) == 0 && again.mss == 1200);
			FUZZ_EXPECT(again.seq == syn.seq && again.scale == syn.scale && again.mss_at == syn.mss_at);
		}
	}
	free(copy);
	return 0;
}
