/* The table of flows: used by the commands flows and top. */
#ifndef GW_CTL_FLOWS_H
#define GW_CTL_FLOWS_H

#include <jansson.h>
#include <stdio.h>

/* Items of GET /flows, one a line. */
void flows_print(FILE *out, const json_t *items);

#endif
