/*
 * Sessions of the web UI: a token is given once and exchanged for a cookie
 * that scripts cannot read. In memory only: a restart of the daemon ends them.
 * A session is worth no more than the token it came from, at any moment.
 * Called by auth.c, and through routes.def:
 *
 * POST /session   {"token"}: {"actor", "role", "csrf_token", "expires_at"} and the cookie gateway_session
 * GET /session    the same of the one who asks; csrf_token is null without a session
 * DELETE /session ends it
 *
 * Writes by cookie need csrf_token in the header X-CSRF-Token.
 */
#ifndef GW_WEBAPI_SESSIONS_H
#define GW_WEBAPI_SESSIONS_H

#include "webapi/router.h"
#include "webapi/tokens.h"

/* Digits of the identifier and of the CSRF token: 256 bits. */
#define SESSION_DIGITS 64
#define SESSION_COOKIE "gateway_session"

struct session {
	char id[SESSION_DIGITS + 1]; /* "": free */
	char csrf[SESSION_DIGITS + 1];
	struct identity identity;
	uint64_t begun, used; /* seconds of a clock that only goes forward */
};

struct sessions;

/* NULL when memory is out. */
struct sessions *sessions_new(void);
void sessions_free(struct sessions *sessions);
/* A new session; when all are taken, the one that was not used for longest makes room. 0 or -EIO. */
int sessions_open(struct sessions *sessions, const struct identity *identity, uint64_t now, struct session **ret);
/* The session that the Cookie header names, if it is in time; NULL otherwise. */
struct session *sessions_find(struct sessions *sessions, const char *cookies, uint64_t now);
/* Whether the text is the session's CSRF token (constant time; NULL is not). */
bool sessions_check_csrf(const struct session *session, const char *text);
void sessions_close(struct session *session);

/* Route handlers: 0 with the response filled, -ENOMEM. */
int session_login(const struct request *request, struct response *response);
int session_get(const struct request *request, struct response *response);
int session_logout(const struct request *request, struct response *response);

#endif
