/*
 * One look at our nft table in a child process. Reading back and comparing
 * 100,000 elements takes half a second and more, in which the daemon's only
 * thread would answer nobody. The child has the model as it was at the fork;
 * it reads the kernel, and sends back what is wrong and the text that puts it
 * right. Used by drift.c.
 */
#ifndef GW_EXAMINE_H
#define GW_EXAMINE_H

#include <systemd/sd-event.h>

#include "gatewayd/apply.h"
#include "rules/heal.h"

/* Longest look; a child that takes longer is killed, and the look has failed with -ETIMEDOUT. */
#define EXAMINE_MAX_MS 60000

struct examine;

/* The end of a look: 0 and what is wrong (the heal stays the caller's), or negative errno. The examine is gone when
 * this is called. */
typedef void (*examine_done)(void *userdata, int error, struct heal *heal);

/* Starts a look; done is called once, from the loop, unless the examine is freed before. */
int examine_start(sd_event *event, struct apply *apply, examine_done done, void *userdata, struct examine **ret);
/* Ends the child, if there is still one. */
void examine_free(struct examine *examine);

#endif
