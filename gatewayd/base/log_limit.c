/* How often a message may be told; see log_limit.h. */
#include "gatewayd/base/log_limit.h"

#include <stdatomic.h>
#include <stddef.h>

/* More messages than the source has, so that each finds a place; a power of two. */
#define PLACES 1024
/* Places tried for one message. What finds none is never left out. */
#define TRIES 16

/* Two threads that meet in the same place at the same moment may write a line more or less than they should. */
struct place {
	_Atomic(const char *) format;
	_Atomic uint64_t begun_ms;
	_Atomic uint32_t lines, left_out;
};

static struct place places[PLACES];

static struct place *place_of(const char *format)
{
	size_t at = (size_t)(((uintptr_t)format * UINT64_C(0x9e3779b97f4a7c15)) >> 40);

	for (size_t i = 0; i < TRIES; i++) {
		struct place *place = &places[(at + i) % PLACES];
		const char *nobody = NULL;

		if (atomic_load(&place->format) == format ||
		        atomic_compare_exchange_strong(&place->format, &nobody, format) || nobody == format)
			return place;
	}
	return NULL;
}

bool log_limit_pass(const char *format, uint64_t now_ms, uint32_t *ret_left_out)
{
	struct place *place = place_of(format);
	uint64_t begun;

	*ret_left_out = 0;
	if (!place)
		return true;
	begun = atomic_load(&place->begun_ms);
	if ((begun == 0 || now_ms - begun >= LOG_LIMIT_WINDOW_MS) &&
	        atomic_compare_exchange_strong(&place->begun_ms, &begun, now_ms))
		atomic_store(&place->lines, 0);
	if (atomic_fetch_add(&place->lines, 1) >= LOG_LIMIT_LINES) {
		atomic_fetch_add(&place->left_out, 1);
		return false;
	}
	*ret_left_out = atomic_exchange(&place->left_out, 0);
	return true;
}
