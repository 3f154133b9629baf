/*
 * Authentication, see auth.h. Tokens are compared as SHA-256 sums in constant
 * time, so neither their bytes nor their length can be found out by timing.
 */
#include "webapi/auth.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "webapi/problem.h"
#include "webapi/sessions.h"
#include "webapi/watch.h"

/* Supplementary groups looked at; the kernel's own bound is 65536, people have a dozen. */
#define PEER_GROUPS_MAX 256

struct attempts {
	uint8_t address[16];
	uint64_t since;    /* start of the window */
	unsigned failures; /* 0: free */
};

struct auth {
	bool unix_socket, has_token;
	int64_t api_gid;
	uint8_t sum[TOKENS_SUM_BYTES];
	struct attempts attempts[AUTH_ADDRESSES_MAX];
};

int auth_new(bool unix_socket, int64_t api_gid, const char *token, struct auth **ret)
{
	struct auth *auth = calloc(1, sizeof(*auth));

	if (!auth)
		return -ENOMEM;
	auth->unix_socket = unix_socket;
	auth->api_gid = api_gid;
	auth->has_token = token && *token;
	if (auth->has_token && gnutls_hash_fast(GNUTLS_DIG_SHA256, token, strlen(token), auth->sum) < 0) {
		free(auth);
		return -EIO;
	}
	*ret = auth;
	return 0;
}

void auth_free(struct auth *auth)
{
	free(auth);
}

static bool peer_has_group(int fd, gid_t wanted)
{
	gid_t groups[PEER_GROUPS_MAX];
	socklen_t length = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
		return false;
	for (size_t i = 0; i < length / sizeof(*groups); i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

static void read_credentials(const struct auth *auth, int fd, struct auth_peer *peer)
{
	struct ucred credentials;
	socklen_t length = sizeof(credentials);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0 || length != sizeof(credentials))
		return;
	peer->uid = credentials.uid;
	peer->allowed = credentials.uid == 0 || credentials.uid == geteuid();
	if (!peer->allowed && auth->api_gid >= 0)
		peer->allowed = credentials.gid == (gid_t)auth->api_gid || peer_has_group(fd, (gid_t)auth->api_gid);
}

static void read_address(int fd, struct auth_peer *peer)
{
	struct sockaddr_storage storage = { 0 };
	socklen_t length = sizeof(storage);
	const struct sockaddr_in *v4 = (const void *)&storage;
	const struct sockaddr_in6 *v6 = (const void *)&storage;

	if (getpeername(fd, (void *)&storage, &length) < 0)
		return;
	if (storage.ss_family == AF_INET) {
		memset(peer->address + 10, 0xff, 2);
		memcpy(peer->address + 12, &v4->sin_addr, 4);
	} else if (storage.ss_family == AF_INET6) {
		memcpy(peer->address, &v6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? 16 : 8);
	}
}

void auth_peer_read(const struct auth *auth, int fd, struct auth_peer *ret)
{
	*ret = (struct auth_peer){ .unix_socket = auth->unix_socket };
	if (auth->unix_socket)
		read_credentials(auth, fd, ret);
	else
		read_address(fd, ret);
}

/* The row of this address within its window, or NULL. */
static struct attempts *attempts_find(struct auth *auth, const struct auth_peer *peer, uint64_t now)
{
	for (size_t i = 0; i < AUTH_ADDRESSES_MAX; i++) {
		struct attempts *row = &auth->attempts[i];

		if (!row->failures || memcmp(row->address, peer->address, sizeof(row->address)) != 0)
			continue;
		if (now - row->since < AUTH_WINDOW_S)
			return row;
		row->failures = 0;
	}
	return NULL;
}

/* A free row, or the one whose window is oldest. */
static struct attempts *attempts_make(struct auth *auth, const struct auth_peer *peer, uint64_t now)
{
	struct attempts *best = &auth->attempts[0];

	for (size_t i = 0; i < AUTH_ADDRESSES_MAX && best->failures; i++)
		if (!auth->attempts[i].failures || auth->attempts[i].since < best->since)
			best = &auth->attempts[i];
	*best = (struct attempts){ .since = now };
	memcpy(best->address, peer->address, sizeof(best->address));
	return best;
}

/* The token of "Bearer TOKEN", or NULL. */
static const char *bearer_of(const char *authorization)
{
	if (strncasecmp(authorization, "Bearer ", 7) != 0)
		return NULL;
	authorization += 7;
	authorization += strspn(authorization, " ");
	return authorization;
}

/* Who the token stands for; false: nobody. Both places are looked at in any case. */
static bool identify(const struct auth *auth, struct core *core, const char *token, struct identity *ret)
{
	size_t length = token ? strlen(token) : 0;
	uint8_t sum[TOKENS_SUM_BYTES];
	bool found;

	if (!length || length > AUTH_TOKEN_BYTES_MAX || tokens_sum(token, length, sum) < 0)
		return false;
	found = core && tokens_find(core, sum, (int64_t)time(NULL), ret);
	if (auth->has_token && !gnutls_memcmp(sum, auth->sum, sizeof(sum))) {
		*ret = (struct identity){ .role = ROLE_ADMIN };
		memcpy(ret->sum, sum, sizeof(sum));
		found = true;
	}
	return found;
}

static void set_actor(struct request *request, const struct identity *identity)
{
	request->role = identity->role;
	snprintf(request->actor, sizeof(request->actor), "token %s", *identity->token ? identity->token : "admin");
}

static enum auth_verdict check_token(struct auth *auth, const struct auth_peer *peer, const char *token, uint64_t now,
        struct request *request, struct identity *identity, unsigned *ret_wait)
{
	struct attempts *row = attempts_find(auth, peer, now);

	if (row && row->failures >= AUTH_FAILURES_MAX) {
		*ret_wait = (unsigned)(AUTH_WINDOW_S - (now - row->since));
		return AUTH_LIMITED;
	}
	if (!identify(auth, request->core, token, identity)) {
		row = row ? row : attempts_make(auth, peer, now);
		row->failures++;
		return AUTH_WRONG;
	}
	set_actor(request, identity);
	return AUTH_ALLOWED;
}

/* Whether the token behind a session is still worth something; the session follows its role. */
static bool still(const struct auth *auth, struct core *core, struct identity *identity)
{
	if (*identity->token)
		return tokens_still(core, (int64_t)time(NULL), identity);
	return auth->has_token && !gnutls_memcmp(identity->sum, auth->sum, sizeof(auth->sum));
}

static bool is_write(enum http_method method)
{
	return method != METHOD_GET && method != METHOD_HEAD && method != METHOD_OPTIONS;
}

/* A cookie that is out of date is no attempt at anything. */
static enum auth_verdict check_cookie(struct auth *auth, uint64_t now, struct request *request)
{
	const char *cookies = request_header(request, HEADER_COOKIE);
	struct session *session = cookies && request->services && request->services->sessions
	                                  ? sessions_find(request->services->sessions, cookies, now)
	                                  : NULL;

	if (!session)
		return AUTH_MISSING;
	if (!still(auth, request->core, &session->identity)) {
		sessions_close(session);
		return AUTH_MISSING;
	}
	set_actor(request, &session->identity);
	request->session = session;
	if (is_write(request->method) && !sessions_check_csrf(session, request_header(request, HEADER_CSRF)))
		return AUTH_NO_CSRF;
	return AUTH_ALLOWED;
}

static enum auth_verdict check_limited(
        struct auth *auth, const struct auth_peer *peer, uint64_t now, unsigned *ret_wait)
{
	const struct attempts *row = attempts_find(auth, peer, now);

	if (!row || row->failures < AUTH_FAILURES_MAX)
		return AUTH_ALLOWED;
	*ret_wait = (unsigned)(AUTH_WINDOW_S - (now - row->since));
	return AUTH_LIMITED;
}

enum auth_verdict auth_check(struct auth *auth, const struct auth_peer *peer, const char *authorization, uint64_t now,
        struct request *request, unsigned *ret_wait)
{
	struct identity identity;

	if (peer->unix_socket) {
		snprintf(request->actor, sizeof(request->actor), "uid %u", peer->uid);
		if (!peer->allowed)
			return AUTH_FORBIDDEN;
		request->role = ROLE_ADMIN;
		return AUTH_ALLOWED;
	}
	if (authorization)
		return check_token(auth, peer, bearer_of(authorization), now, request, &identity, ret_wait);
	if (check_limited(auth, peer, now, ret_wait) == AUTH_LIMITED)
		return AUTH_LIMITED;
	return check_cookie(auth, now, request);
}

static int refuse_token(const struct request *request, enum auth_verdict verdict, struct response *response)
{
	int r = response_header(response, "WWW-Authenticate", "Bearer realm=\"gatewayd\"%s",
	        verdict == AUTH_WRONG ? ", error=\"invalid_token\"" : "");

	if (r < 0)
		return r;
	return problem_answer(response, PROBLEM_UNAUTHORIZED, request, NULL,
	        verdict == AUTH_WRONG ? "The token is not valid." : "Send \"Authorization: Bearer TOKEN\".");
}

int auth_refuse(const struct request *request, enum auth_verdict verdict, unsigned wait, struct response *response)
{
	int r = 0;

	switch (verdict) {
	case AUTH_ALLOWED:
		return 0;
	case AUTH_MISSING:
	case AUTH_WRONG:
		r = refuse_token(request, verdict, response);
		break;
	case AUTH_FORBIDDEN:
		r = problem_answer(response, PROBLEM_FORBIDDEN, request, NULL,
		        "This socket is for root, the daemon's user and its group.");
		break;
	case AUTH_NO_CSRF:
		r = problem_answer(response, PROBLEM_FORBIDDEN, request, NULL,
		        "A write by cookie needs the session's csrf_token in the header X-CSRF-Token.");
		break;
	case AUTH_LIMITED:
		r = response_header(response, "Retry-After", "%u", wait);
		if (!r)
			r = problem_answer(response, PROBLEM_TOO_MANY, request, NULL,
			        "Too many failed attempts from this address; wait %u seconds.", wait);
		break;
	}
	return r < 0 ? r : 1;
}

int auth_login(struct request *request, const char *token, struct identity *ret, struct response *response)
{
	unsigned wait = 0;
	enum auth_verdict verdict =
	        check_token(request->services->auth, request->peer, token, watch_now() / 1000000, request, ret, &wait);

	return auth_refuse(request, verdict, wait, response);
}
