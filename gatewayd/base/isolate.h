/*
 * Takes rights away from a process for good. isolate_keep is the daemon's, for
 * itself once it has started. isolate_drop is called by the
 * daemon in the forked child just before it executes gateway-relay; the other
 * two by gateway-relay itself, before and after it makes its threads.
 */
#ifndef GW_BASE_ISOLATE_H
#define GW_BASE_ISOLATE_H

#include <stdint.h>
#include <sys/types.h>

struct isolate_params {
	uid_t uid;
	gid_t gid;
};

/* Becomes uid and gid without other groups, keeps CAP_NET_RAW and CAP_NET_BIND_SERVICE only (also over exec, as
 * ambient capabilities), empties the bounding set of all others, and forbids new privileges. Only uses system calls
 * that are safe between fork and exec. 0; 1 if the process may not change its user (then it keeps the user, and all
 * else is done as far as the kernel allows); a negative errno if a right would be left: then do not go on. */
int isolate_drop(const struct isolate_params *params);

/* Keeps of this process's capabilities (bit n: number n) those of the mask, and of the bounding set as well where that
 * may be changed, and forbids new privileges. Nothing is inheritable or ambient afterwards; isolate_drop makes that for
 * a child. To be called while there is one thread. 0 or a negative errno. */
int isolate_keep(uint64_t mask);
/* The capabilities in effect now, as such a mask; 0 if they cannot be told. */
uint64_t isolate_capabilities(void);

/* Outcomes of isolate_verify_relay, to be combined; 0 is the ordinary one. */
#define ISOLATE_HAD_MORE   1 /* there were more capabilities than those two; they are gone now */
#define ISOLATE_NO_NET_RAW 2 /* CAP_NET_RAW is missing: the client's address cannot be the source */

/* Gives up every capability except these two, forbids new privileges, makes the process undumpable, without a core, and
 * whatever file it might make nobody else's. To be
 * called while there is one thread, since capabilities belong to threads. A negative errno: do not go on. */
int isolate_verify_relay(void);

/* Installs a filter of system calls in all threads: what a relay of TCP and UDP needs, nothing that opens a file,
 * starts a program or a thread, or makes another kind of socket; all else fails with EPERM. Only after
 * isolate_verify_relay. 0 or a negative errno: do not go on. */
int isolate_filter_relay(void);

#endif
