/* Maps of the short cut; see shortcut_maps.h. */
#include "gatewayd/relay/shortcut_maps.h"

#include <assert.h>
#include <errno.h>

#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/cleanup.h"

static_assert(PROTO_SHORTCUT_KINDS == 14, "SHORTCUT_MAPS_NONE names all");

int shortcut_maps_add(struct shortcut_maps *maps, const struct proto_shortcut *message, int *fd)
{
	if (message->layout != BPF_SHORTCUT_LAYOUT || message->kind >= PROTO_SHORTCUT_KINDS)
		return -EBADMSG;
	if (maps->fd[message->kind] >= 0) /* a later daemon's are the same, or flows are not to change under us */
		return 0;
	maps->fd[message->kind] = TAKE_FD(*fd);
	for (unsigned i = 0; i < PROTO_SHORTCUT_KINDS; i++)
		if (maps->fd[i] < 0)
			return 0;
	return 1;
}
