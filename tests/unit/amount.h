/* How much of something a test does; see amount() of tests/lab/process.py for the same in Python. */
#ifndef GW_TESTS_AMOUNT_H
#define GW_TESTS_AMOUNT_H

#include <stdlib.h>

/* Usually a sample, which can fail as well; all that was promised in a long run (./dev check --long). */
static inline unsigned amount(unsigned usual, unsigned full)
{
	return getenv("GW_LONG") ? full : usual;
}

#endif
