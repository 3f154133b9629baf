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

#define SUM_BYTES 32
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
	uint8_t sum[SUM_BYTES];
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

static bool token_is_right(const struct auth *auth, const char *authorization)
{
	const char *token = bearer_of(authorization);
	size_t length = token ? strlen(token) : 0;
	uint8_t sum[SUM_BYTES];

	if (!auth->has_token || !length || length > AUTH_TOKEN_BYTES_MAX)
		return false;
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, token, length, sum) < 0)
		return false;
	return gnutls_memcmp(sum, auth->sum, sizeof(sum)) == 0;
}

enum auth_verdict auth_check(struct auth *auth, const struct auth_peer *peer, const char *authorization, uint64_t now,
        struct request *request, unsigned *ret_wait)
{
	struct attempts *row;

	if (peer->unix_socket) {
		if (!peer->allowed)
			return AUTH_FORBIDDEN;
		snprintf(request->actor, sizeof(request->actor), "uid %u", peer->uid);
		request->role = ROLE_ADMIN;
		return AUTH_ALLOWED;
	}
	row = attempts_find(auth, peer, now);
	if (row && row->failures >= AUTH_FAILURES_MAX) {
		*ret_wait = (unsigned)(AUTH_WINDOW_S - (now - row->since));
		return AUTH_LIMITED;
	}
	if (!authorization)
		return AUTH_MISSING;
	if (!token_is_right(auth, authorization)) {
		row = row ? row : attempts_make(auth, peer, now);
		row->failures++;
		return AUTH_WRONG;
	}
	snprintf(request->actor, sizeof(request->actor), "token admin");
	request->role = ROLE_ADMIN;
	return AUTH_ALLOWED;
}
