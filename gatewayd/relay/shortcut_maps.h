/*
 * The maps and programs of the kernel's short cut, as the daemon hands them over: of UDP
 * flows (udp_shortcut.h) and of TCP flows (tcp_stitch.h). Written by the
 * control thread before the others hear of them.
 */
#ifndef GW_RELAY_SHORTCUT_MAPS_H
#define GW_RELAY_SHORTCUT_MAPS_H

#include "gatewayd/base/proto.h"

struct shortcut_maps {
	int fd[PROTO_SHORTCUT_KINDS]; /* -1: not there yet */
	unsigned threads;             /* of this relay */
};

#define SHORTCUT_MAPS_NONE                                                                                             \
	{                                                                                                              \
		.fd = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 }                                       \
	}

/* Takes one in. *fd is taken over (-1 afterwards) if it is kept. 1: all are there by this, 0, or -EBADMSG. */
int shortcut_maps_add(struct shortcut_maps *maps, const struct proto_shortcut *message, int *fd);

#endif
