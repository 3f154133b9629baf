/*
 * What becomes of flows, as the relay tells it in its rings
 * (base/stats_record.h): read a few times a second and given to those who want
 * it, the log of records, the list of who talked to whom, and readers of
 * events. Tells the relay how much of it is wanted. Started by daemon.c.
 */
#ifndef GW_RECORDS_H
#define GW_RECORDS_H

#include "gatewayd/core.h"
#include "gatewayd/talkers.h"

/* Pause between two looks while records come; doubles up to the longest while none do. */
#define RECORDS_PAUSE_MS     50
#define RECORDS_PAUSE_MAX_MS 400
/* Records taken in one go, before others have their turn: some 10 ms. */
#define RECORDS_SLICE 4096

struct records;

/* 0 or negative errno. */
int records_new(struct core *core, struct records **ret);
void records_free(struct records *records);
/* The settings may have changed. */
void records_follow(struct records *records);
/* Who talked to whom, as far as it is kept; borrowed until the settings change. Since when, seconds since 1970. */
const struct talkers *records_talkers(const struct records *records, int64_t *ret_since);
/* The relay of this bank is dead: what it has told last is read, and flows that nobody will go on with have ended. */
void records_relay_ended(struct records *records, unsigned bank, bool handed_over);
/* For the status, new: {"destination", "file", "ok", "fault"}. NULL when memory is out. */
json_t *records_status(const struct records *records);

#endif
