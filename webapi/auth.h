/*
 * Who is asking: peer credentials on the unix socket, a bearer token on TCP,
 * and a bound on failed attempts. Called by http.c. Never logs a token.
 */
#ifndef GW_WEBAPI_AUTH_H
#define GW_WEBAPI_AUTH_H

#include "webapi/message.h"

struct auth;

/* What is known of a connection when it is accepted. */
struct auth_peer {
	bool unix_socket;
	bool allowed;        /* unix socket: root, the daemon's own user or the group */
	uint32_t uid;        /* unix socket */
	uint8_t address[16]; /* TCP: IPv4 mapped into IPv6; of IPv6 the first 64 bits, since a host owns them all */
};

enum auth_verdict {
	AUTH_ALLOWED,
	AUTH_MISSING,   /* no credentials: 401 */
	AUTH_WRONG,     /* 401, and counted */
	AUTH_FORBIDDEN, /* 403: this user is not let in */
	AUTH_LIMITED,   /* 429 until ret_wait seconds have passed */
};

/* The token is kept as a hash only; NULL: nobody gets in by TCP. api_gid -1: no group. 0, -ENOMEM, -EIO. */
int auth_new(bool unix_socket, int64_t api_gid, const char *token, struct auth **ret);
void auth_free(struct auth *auth);

/* Reads the credentials or the address of a connected socket; a peer of which nothing can be learned is not allowed. */
void auth_peer_read(const struct auth *auth, int fd, struct auth_peer *ret);

/* Decides. `authorization` is the header's value or NULL, `now` seconds of a clock that only goes forward. On
 * AUTH_ALLOWED sets the role and the actor ("uid 0", "token admin"). */
enum auth_verdict auth_check(struct auth *auth, const struct auth_peer *peer, const char *authorization, uint64_t now,
        struct request *request, unsigned *ret_wait);

#endif
