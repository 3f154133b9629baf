/*
 * Any JSON where nft's listings are expected: another hand may have been in our
 * table, and other tables are anybody's. Reading never fails otherwise than by
 * -EBADMSG or -ENOMEM, and what is read is sound: groups that the rest may use.
 */
#include <errno.h>

#include "rules/forward_fate.h"
#include "rules/kernel_ops.h"
#include "tests/fuzz/fuzz.h"

static void try_table(json_t *listing)
{
	struct kernel_state state = { 0 };
	int r = kernel_parse_table(listing, &state);

	FUZZ_EXPECT(r == 0 || r == -EBADMSG);
	for (size_t i = 0; r == 0 && i < state.n_groups; i++)
		FUZZ_EXPECT(state.groups[i].verdict < VERDICTS);
	for (size_t i = 0; r == 0 && i < state.n_strays; i++)
		FUZZ_EXPECT(state.strays[i].kind && state.strays[i].name);
	kernel_state_clear(&state);
}

static void try_others(json_t *listing)
{
	json_t *findings = json_array(), *tables = json_array();
	uint64_t digest, again;
	int r = kernel_parse_digest(listing, &digest);

	if (r == 0)
		FUZZ_EXPECT(kernel_parse_digest(listing, &again) == 0 && digest == again);
	(void)kernel_parse_chains(listing, tables);
	for (size_t i = 0; i < json_array_size(tables); i++)
		(void)kernel_parse_foreign(json_array_get(tables, i), listing, findings);
	/* Chains that jump in circles come to an end, too. */
	for (size_t i = 0; i < json_array_size(findings); i++) {
		(void)fate_drops_first(json_array_get(findings, i), "in0");
		(void)fate_drops_answers(json_array_get(findings, i), NULL);
	}
	json_decref(findings);
	json_decref(tables);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	json_t *listing = json_loads(text, 0, NULL);

	if (listing) {
		try_table(listing);
		try_others(listing);
		json_decref(listing);
	}
	free(text);
	return 0;
}
