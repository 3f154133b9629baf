/*
 * Who is asking: peer credentials on the unix socket, a bearer token or the
 * cookie of a session on TCP, and a bound on failed attempts. Called by
 * dispatch.c and sessions.c. Never logs a token.
 */
#ifndef GW_WEBAPI_AUTH_H
#define GW_WEBAPI_AUTH_H

#include "webapi/message.h"
#include "webapi/tokens.h"

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
	AUTH_NO_CSRF,   /* 403: a write by cookie without the session's CSRF token */
	AUTH_LIMITED,   /* 429 until ret_wait seconds have passed */
};

/* The token is kept as a hash only; NULL: nobody gets in by TCP. api_gid -1: no group. 0, -ENOMEM, -EIO. */
int auth_new(bool unix_socket, int64_t api_gid, const char *token, struct auth **ret);
void auth_free(struct auth *auth);

/* Reads the credentials or the address of a connected socket; a peer of which nothing can be learned is not allowed. */
void auth_peer_read(const struct auth *auth, int fd, struct auth_peer *ret);

/* Decides. `authorization` is the header's value or NULL, `now` seconds of a clock that only goes forward. On
 * AUTH_ALLOWED sets the role, the actor ("uid 0", "token admin" for the token of the file, "token NAME") and the
 * session. Tokens are looked up in request->core, sessions in request->services, unless these are NULL. */
enum auth_verdict auth_check(struct auth *auth, const struct auth_peer *peer, const char *authorization, uint64_t now,
        struct request *request, unsigned *ret_wait);
/* Refuses. 0 for AUTH_ALLOWED, 1 with the response filled, -ENOMEM. */
int auth_refuse(const struct request *request, enum auth_verdict verdict, unsigned wait, struct response *response);

/* Checks a token that somebody logs in with, under the same bound on attempts. 0 with role and actor set in the
 * request, 1 if the response tells the refusal, -ENOMEM. */
int auth_login(struct request *request, const char *token, struct identity *ret, struct response *response);

#endif
