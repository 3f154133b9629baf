/* Sessions of the web UI, see sessions.h. */
#include "webapi/sessions.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <time.h>

#include "webapi/auth.h"
#include "webapi/problem.h"
#include "webapi/watch.h"
#include "webapi/write.h"

struct sessions {
	struct session all[SESSIONS_MAX];
};

struct sessions *sessions_new(void)
{
	return calloc(1, sizeof(struct sessions));
}

void sessions_free(struct sessions *sessions)
{
	free(sessions);
}

static bool in_time(const struct session *session, uint64_t now)
{
	return *session->id && now - session->used < SESSION_IDLE_S && now - session->begun < SESSION_S;
}

int sessions_open(struct sessions *sessions, const struct identity *identity, uint64_t now, struct session **ret)
{
	struct session *best = &sessions->all[0], made = { .identity = *identity, .begun = now, .used = now };

	if (tokens_random(made.id, SESSION_DIGITS) < 0 || tokens_random(made.csrf, SESSION_DIGITS) < 0)
		return -EIO;
	for (size_t i = 0; i < SESSIONS_MAX && in_time(best, now); i++)
		if (!in_time(&sessions->all[i], now) || sessions->all[i].used < best->used)
			best = &sessions->all[i];
	*best = made;
	*ret = best;
	return 0;
}

/* The value of our cookie in "a=b; c=d", of exactly SESSION_DIGITS bytes; NULL if there is none. */
static const char *cookie_of(const char *cookies)
{
	static const char name[] = SESSION_COOKIE "=";

	while (*cookies) {
		cookies += strspn(cookies, "; \t");
		if (!strncmp(cookies, name, sizeof(name) - 1)) {
			cookies += sizeof(name) - 1;
			return strcspn(cookies, "; \t") == SESSION_DIGITS ? cookies : NULL;
		}
		cookies += strcspn(cookies, ";");
	}
	return NULL;
}

/* Looks at all, whatever is found, so that the time tells nothing. */
struct session *sessions_find(struct sessions *sessions, const char *cookies, uint64_t now)
{
	const char *id = cookie_of(cookies);
	struct session *found = NULL;

	for (size_t i = 0; id && i < SESSIONS_MAX; i++)
		if (!gnutls_memcmp(sessions->all[i].id, id, SESSION_DIGITS))
			found = &sessions->all[i];
	if (!found || !in_time(found, now))
		return NULL;
	found->used = now;
	return found;
}

bool sessions_check_csrf(const struct session *session, const char *text)
{
	return text && strlen(text) == SESSION_DIGITS && !gnutls_memcmp(session->csrf, text, SESSION_DIGITS);
}

void sessions_close(struct session *session)
{
	gnutls_memset(session, 0, sizeof(*session));
}

static const char *role_word(enum role role)
{
	switch (role) {
	case ROLE_ADMIN:
		return "admin";
	case ROLE_OPERATOR:
		return "operator";
	case ROLE_VIEWER:
		return "viewer";
	case ROLE_NONE:
		break;
	}
	return "none";
}

static json_t *expiry(const struct session *session)
{
	uint64_t now = watch_now() / 1000000, age = now - session->begun;
	time_t end = time(NULL) + (time_t)(SESSION_S - age);
	struct tm parts;
	char text[32];

	gmtime_r(&end, &parts);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
	return json_string(text);
}

static int answer(const struct request *request, const struct session *session, struct response *response)
{
	return response_json(response, 200, CONTENT_JSON,
	        json_pack("{s:s, s:s, s:o, s:o}", "actor", request->actor, "role", role_word(request->role),
	                "csrf_token", session ? json_string(session->csrf) : json_null(), "expires_at",
	                session ? expiry(session) : json_null()));
}

static int set_cookie(const struct request *request, const char *id, unsigned seconds, struct response *response)
{
	return response_header(response, "Set-Cookie",
	        SESSION_COOKIE "=%s; Path=/; HttpOnly; SameSite=Strict; Max-Age=%u%s", id, seconds,
	        request->services->secure ? "; Secure" : "");
}

/* The token out of the body. 0, 1 if the response tells a fault, -ENOMEM. */
static int read_login(const struct request *request, struct response *response, json_t **ret)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, ret);
	if (r)
		return r;
	if (json_object_size(*ret) == 1 && json_is_string(json_object_get(*ret, "token")))
		return 0;
	errs_add(&errs, "/token", "required", "The body is {\"token\": \"...\"} and nothing else.");
	return problem_answer(response, PROBLEM_INVALID, request, &errs, "%s", errs.items[0].detail) < 0 ? -ENOMEM : 1;
}

int session_login(const struct request *request, struct response *response)
{
	_cleanup_json_ json_t *body = NULL;
	struct request who = *request; /* the one who logs in is not yet the one who asks */
	struct identity identity;
	struct session *session;
	int r = read_login(request, response, &body);

	if (!r)
		r = auth_login(&who, json_string_value(json_object_get(body, "token")), &identity, response);
	if (r)
		return r < 0 ? r : 0;
	r = sessions_open(request->services->sessions, &identity, watch_now() / 1000000, &session);
	if (r < 0)
		return problem_from_errno(response, r, request, NULL);
	r = set_cookie(request, session->id, SESSION_S, response);
	return r < 0 ? r : answer(&who, session, response);
}

int session_get(const struct request *request, struct response *response)
{
	int r = write_refuse_query(request, response);

	return r ? (r < 0 ? r : 0) : answer(request, request->session, response);
}

int session_logout(const struct request *request, struct response *response)
{
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!request->session)
		return problem_answer(
		        response, PROBLEM_NOT_FOUND, request, NULL, "This request is not part of a session.");
	sessions_close(request->session);
	response->status = 204;
	return set_cookie(request, "", 0, response);
}
