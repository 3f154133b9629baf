/*
 * HTTP for gatewayctl; the only file that knows libcurl. One connection, one
 * request at a time; what is received is bounded.
 */
#ifndef GW_CTL_CLIENT_H
#define GW_CTL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Most bytes of one answer: a configuration with a million addresses has about 64 MiB. */
#define CLIENT_ANSWER_MAX ((size_t)256 * 1024 * 1024)
/* Warnings of one answer that are kept; the daemon sends no more. */
#define CLIENT_WARNINGS_MAX 16

struct client;

/* Where to and as whom; borrowed. NULL is "not given". */
struct client_options {
	const char *socket; /* used unless there is a url */
	const char *url;
	const char *token;
	const char *cacert;
	bool insecure;
};

struct client_answer {
	long status;
	char *body; /* with a NUL behind its `length` bytes */
	size_t length;
	json_t *json; /* NULL if the body is no JSON */
	char *etag, *revision, *deadline, *location;
	char *warnings[CLIENT_WARNINGS_MAX];
	size_t n_warnings;
};

/* -ENOMEM, -EINVAL (a token or url that cannot be sent). */
int client_new(const struct client_options *options, struct client **ret);
void client_free(struct client *client);

/* One request: path begins with '/'. Any status is success. -EHOSTUNREACH (no answer: client_words says why),
 * -EMSGSIZE, -ENOMEM. if_match may be NULL, body too. */
int client_ask(struct client *client, const char *method, const char *path, json_t *body, const char *if_match,
        struct client_answer *ret);
void client_answer_clear(struct client_answer *answer);
/* Why the last request had no answer. */
const char *client_words(const struct client *client);
/* Where requests go, for people. */
const char *client_where(const struct client *client);

/* Called with each line of a stream, without its end; false ends the stream. */
typedef bool client_line(void *userdata, const char *line);
/* A GET whose answer has no end. 0 when it ended, or client_line said so; -EPERM with the refusal in ret;
 * -EHOSTUNREACH; -EPIPE when nobody reads `output` any more, where what comes of the lines is written to. after: value
 * of Last-Event-ID, or NULL. */
int client_follow(struct client *client, const char *path, const char *after, int output, client_line *line,
        void *userdata, struct client_answer *ret);

/* The text as one segment of a path, new; NULL when memory is out. */
char *client_escape(struct client *client, const char *text);

#define _cleanup_answer_ _cleanup_(client_answer_clear)

#endif
