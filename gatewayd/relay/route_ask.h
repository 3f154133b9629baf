/*
 * Asks the kernel by which interface packets to an address leave: straight.c
 * has to know whether the answers will come by one whose packets are
 * translated.
 */
#ifndef GW_RELAY_ROUTE_ASK_H
#define GW_RELAY_ROUTE_ASK_H

#include <stdint.h>

#include "gatewayd/base/addr.h"

/* A socket to ask by, for one thread; before the filter of system calls is there. A descriptor or a negative errno. */
int route_ask_open(void);
/* The number of the interface; 0: there is no such way, it ends here, or it cannot be found out. Does not wait. */
uint32_t route_ask(int fd, const struct addr *to);

#endif
