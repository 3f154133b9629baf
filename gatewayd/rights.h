/*
 * What the daemon may do once it has started: the capabilities that its work
 * needs, each with its reason, and none besides, also when it was started by
 * root with all of them. Used by daemon.c; shown by core_status.c.
 */
#ifndef GW_RIGHTS_H
#define GW_RIGHTS_H

#include <jansson.h>

/* Gives up everything else, for this process and its children, for good. Called at the end of the start: sockets on low
 * ports are bound and keys are read by then. 0 or negative errno. */
int rights_reduce(void);
/* {capabilities: ["CAP_NET_ADMIN", ...], others: n}: those in effect by name, and how many besides. NULL: no memory. */
json_t *rights_status(void);

#endif
