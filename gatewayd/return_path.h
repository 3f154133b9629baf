/*
 * Whether the answers of targets to clients' addresses come back through this
 * machine: a target whose route to the clients leads elsewhere takes every
 * connection with source_address client into a timeout, while its health
 * checks, which come from the gateway's own address, are well.
 *
 * Theory of operation: once a second some rows of flows are looked at. A flow
 * that was connected just now proves the way back, for nothing, and so does an
 * answer by UDP. A connection that is long in being made, or a datagram without
 * an answer, is a suspicion, and names a client and a target.
 * Then, and now and then where clients come but nothing is proven, the relay
 * makes a probe (relay/probe.h): a connect from that client's address, and one
 * from the gateway's own. Only if the second alone is answered, the way back
 * is broken. There is one path for each target of an upstream, and one per
 * family for each listener without an upstream, to the target that last gave
 * a reason for suspicion. Nothing is probed of which no client was seen.
 *
 * Of UDP, too, the probe is a connect by TCP, to the port of the same number: a
 * host answers it with a reset where nobody listens, and where it sends that
 * reset to is where it sends its datagrams to. No datagram is ever made up, for
 * nobody knows what a UDP service would do with it. What the probe says of UDP
 * is the weaker evidence (a filter may treat TCP otherwise): an answer of the
 * target's own after it counts for more.
 *
 * Started by daemon.c; asked by doctor.c, core_status.c and core_metrics.c.
 */
#ifndef GW_RETURN_PATH_H
#define GW_RETURN_PATH_H

#include "gatewayd/base/proto.h"
#include "rules/doctor.h"

struct core;
struct return_paths;

/* 0 or negative errno. */
int return_paths_new(struct core *core, struct return_paths **ret);
void return_paths_free(struct return_paths *paths);
/* What a probe has found. */
void return_paths_found(struct return_paths *paths, const struct proto_probed *found);
/* Has all that are known probed anew, in turn. Returns how many that are. */
size_t return_paths_ask(struct return_paths *paths);
/* What is known now. */
void return_paths_facts(const struct return_paths *paths, struct doctor_return *ret);
/* Another number whenever a path has been broken or mended. */
uint64_t return_paths_serial(const struct return_paths *paths);

#endif
