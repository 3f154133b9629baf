/* Differences of configurations, as the API answers them, for people. Used by cmd_config.c. */
#ifndef GW_CTL_DIFF_H
#define GW_CTL_DIFF_H

#include <jansson.h>
#include <stdio.h>

/* Most entries of a list that are shown on one side; of more the number is told. */
#define DIFF_ENTRIES_MAX 20

/* An array of {op, path, before, after}: a line for each row that comes, goes or changes, and below it what of it. */
void diff_print(FILE *out, const json_t *diff);

#endif
