/* A look at a client's first bytes; see peek.h. */
#include "gatewayd/relay/peek.h"

#include <errno.h>
#include <sys/socket.h>

static enum stats_counter outcome(enum first_state state, enum first_kind kind)
{
	switch (state) {
	case FIRST_COMPLETE:
		return kind == FIRST_TLS ? STATS_first_bytes_tls : STATS_first_bytes_http;
	case FIRST_TOO_LONG:
		return STATS_first_bytes_too_long;
	case FIRST_MALFORMED:
		return STATS_first_bytes_malformed;
	case FIRST_MORE: /* and there will be none */
		return STATS_first_bytes_timeout;
	case FIRST_OTHER:
	case FIRST_STATES:
		break;
	}
	return STATS_first_bytes_unknown;
}

int peek_look(struct peek *peek, int fd, bool final, const struct first **ret, enum stats_counter *ret_counter)
{
	ssize_t n = recv(fd, peek->bytes, sizeof(peek->bytes), MSG_PEEK | MSG_DONTWAIT);
	enum first_state state;

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return -errno;
	state = first_parse(peek->bytes, n > 0 ? (size_t)n : 0, &peek->first);
	if (state == FIRST_MORE && !final && n != 0)
		return 0;
	*ret = state == FIRST_COMPLETE ? &peek->first : NULL;
	*ret_counter = outcome(state, peek->first.kind);
	return 1;
}
