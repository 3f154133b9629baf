/* HTTP over libcurl, see client.h. */
#include "gatewayd/ctl/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gatewayd/base/cleanup.h"

/* Seconds until a connection must stand, and until an answer must be there: the longest, an import of a million
 * addresses, takes some 20. */
#define CONNECT_S 5L
#define ANSWER_S  120L
/* Longest line of a stream: an event has at most 16 KiB. */
#define LINE_MAX_BYTES ((size_t)64 * 1024)

struct client {
	CURL *curl;
	char *base, *authorization, *where;
	char words[CURL_ERROR_SIZE];
};

/* What a transfer fills. */
struct transfer {
	struct client *client;
	struct client_answer *answer;
	size_t capacity; /* of the answer's body */
	bool too_long, out_of_memory;
	client_line *line; /* NULL: no stream */
	void *userdata;
	bool ended;
	int output; /* of a stream: where what comes of it goes to */
	bool unread;
};

void client_free(struct client *client)
{
	if (!client)
		return;
	curl_easy_cleanup(client->curl);
	free(client->base);
	free(client->authorization);
	free(client->where);
	free(client);
}

static bool is_line(const char *text)
{
	return text[strcspn(text, "\r\n")] == '\0';
}

/* Where to, and with which rights. False: memory is out. */
static bool set_up(struct client *client, const struct client_options *options)
{
	size_t length = options->url ? strlen(options->url) : 0;

	while (length > 0 && options->url[length - 1] == '/')
		length--;
	client->base = options->url ? strndup(options->url, length) : strdup("http://localhost");
	client->where = strdup(options->url ? options->url : options->socket);
	if (options->token && asprintf(&client->authorization, "Authorization: Bearer %s", options->token) < 0)
		client->authorization = NULL;
	curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(client->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(client->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
	curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->words);
	if (!options->url)
		curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, options->socket);
	if (options->cacert)
		curl_easy_setopt(client->curl, CURLOPT_CAINFO, options->cacert);
	if (options->insecure) {
		curl_easy_setopt(client->curl, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(client->curl, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return client->base && client->where && (!options->token || client->authorization);
}

int client_new(const struct client_options *options, struct client **ret)
{
	struct client *client;

	if ((options->token && !is_line(options->token)) || (options->url && !is_line(options->url)))
		return -EINVAL;
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->curl = curl_easy_init();
	if (!client->curl || !set_up(client, options)) {
		client_free(client);
		return -ENOMEM;
	}
	*ret = client;
	return 0;
}

const char *client_words(const struct client *client)
{
	return client->words;
}

const char *client_where(const struct client *client)
{
	return client->where;
}

void client_answer_clear(struct client_answer *answer)
{
	free(answer->body);
	free(answer->etag);
	free(answer->revision);
	free(answer->deadline);
	free(answer->location);
	for (size_t i = 0; i < answer->n_warnings; i++)
		free(answer->warnings[i]);
	json_decref(answer->json);
	*answer = (struct client_answer){ 0 };
}

char *client_escape(struct client *client, const char *text)
{
	char *escaped = curl_easy_escape(client->curl, text, 0), *copy = escaped ? strdup(escaped) : NULL, *at = copy;

	curl_free(escaped);
	/* A colon may stand in a segment, and addresses are read in the audit log. */
	while (at && (at = strstr(at, "%3A"))) {
		*at++ = ':';
		memmove(at, at + 2, strlen(at + 2) + 1);
	}
	return copy;
}

/* The value behind "name:", new, if the line is that header. */
static char *header_value(const char *line, size_t length, const char *name)
{
	size_t n = strlen(name);

	if (length <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
		return NULL;
	line += n + 1;
	length -= n + 1;
	while (length > 0 && *line == ' ') {
		line++;
		length--;
	}
	while (length > 0 && strchr("\r\n ", line[length - 1]))
		length--;
	return strndup(line, length);
}

static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	struct client_answer *answer = ((struct transfer *)userdata)->answer;
	const struct {
		const char *name;
		char **value;
	} known[] = { { "ETag", &answer->etag }, { "Gateway-Revision", &answer->revision },
		{ "Gateway-Confirm-Deadline", &answer->deadline }, { "Location", &answer->location } };
	char *warning = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!*known[i].value)
			*known[i].value = header_value(line, size * n, known[i].name);
	if (answer->n_warnings < CLIENT_WARNINGS_MAX)
		warning = header_value(line, size * n, "Gateway-Warning");
	if (warning)
		answer->warnings[answer->n_warnings++] = warning;
	return size * n;
}

static bool append(struct transfer *transfer, const char *bytes, size_t n, size_t most)
{
	struct client_answer *answer = transfer->answer;
	char *grown;

	if (answer->length + n > most) {
		transfer->too_long = true;
		return false;
	}
	if (answer->length + n + 1 > transfer->capacity) {
		/* By doubling: an answer may have many pieces. */
		transfer->capacity = 2 * (answer->length + n + 1);
		grown = realloc(answer->body, transfer->capacity);
		if (!grown) {
			transfer->out_of_memory = true;
			return false;
		}
		answer->body = grown;
	}
	memcpy(answer->body + answer->length, bytes, n);
	answer->length += n;
	answer->body[answer->length] = '\0';
	return true;
}

/* Gives the whole lines of what has come to the reader, and keeps the rest. */
static bool give_lines(struct transfer *transfer)
{
	struct client_answer *answer = transfer->answer;
	char *from = answer->body, *end;

	while (!transfer->ended && (end = memchr(from, '\n', answer->length - (size_t)(from - answer->body)))) {
		*end = '\0';
		transfer->ended = !transfer->line(transfer->userdata, from);
		from = end + 1;
	}
	answer->length -= (size_t)(from - answer->body);
	memmove(answer->body, from, answer->length + 1);
	return !transfer->ended;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *userdata)
{
	struct transfer *transfer = userdata;
	long status = 0;

	curl_easy_getinfo(transfer->client->curl, CURLINFO_RESPONSE_CODE, &status);
	if (!append(transfer, bytes, size * n, transfer->line ? LINE_MAX_BYTES : CLIENT_ANSWER_MAX))
		return 0;
	/* A refusal is a document, not a stream. */
	if (transfer->line && status == 200 && !give_lines(transfer))
		return 0;
	return size * n;
}

/* Whether the reader of the output is gone. */
static bool is_unread(int output)
{
	struct pollfd end = { .fd = output };

	return poll(&end, 1, 0) > 0 && (end.revents & (POLLERR | POLLHUP));
}

/* A round of a stream: what has come is given, then it is waited for more, or for the end of who reads the output. */
static CURLMcode go_on(CURLM *multi, struct transfer *transfer, int *ret_running)
{
	struct curl_waitfd output = { .fd = transfer->output };
	CURLMcode code = curl_multi_perform(multi, ret_running);

	if (code == CURLM_OK && *ret_running)
		code = curl_multi_poll(multi, &output, 1, 1000, NULL);
	transfer->unread = is_unread(transfer->output);
	return code;
}

/* As curl_easy_perform(), but it also ends when nobody reads the output any more: an event may be hours away. */
static CURLcode perform_stream(struct transfer *transfer)
{
	CURLM *multi = curl_multi_init();
	CURL *curl = transfer->client->curl;
	const CURLMsg *message;
	CURLcode code = CURLE_OK;
	int running = 1, left;

	if (!multi || curl_multi_add_handle(multi, curl) != CURLM_OK) {
		curl_multi_cleanup(multi);
		return CURLE_OUT_OF_MEMORY;
	}
	while (running && !transfer->unread)
		if (go_on(multi, transfer, &running) != CURLM_OK)
			code = CURLE_OUT_OF_MEMORY, running = 0;
	while ((message = curl_multi_info_read(multi, &left)))
		if (message->msg == CURLMSG_DONE)
			code = message->data.result;
	curl_multi_remove_handle(multi, curl);
	curl_multi_cleanup(multi);
	return code;
}

/* Runs what the handle is set to. */
static int perform(struct client *client, struct transfer *transfer)
{
	long error = 0;
	CURLcode code;

	client->words[0] = '\0';
	curl_easy_setopt(client->curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(client->curl, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, transfer);
	code = transfer->line ? perform_stream(transfer) : curl_easy_perform(client->curl);
	curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &transfer->answer->status);
	if (transfer->ended)
		return 0;
	if (transfer->unread)
		return -EPIPE;
	if (transfer->out_of_memory || code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (transfer->too_long)
		return -EMSGSIZE;
	curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &error);
	/* The library speaks of a port, which a unix socket has not. */
	if (code == CURLE_COULDNT_CONNECT && error != 0)
		snprintf(client->words, sizeof(client->words), "%s", strerror((int)error));
	else if (code != CURLE_OK && !client->words[0])
		strncpy(client->words, curl_easy_strerror(code), sizeof(client->words) - 1);
	return code == CURLE_OK ? 0 : -EHOSTUNREACH;
}

/* False: memory is out. */
static bool add_header(struct curl_slist **headers, const char *name, const char *value)
{
	_cleanup_free_ char *line = NULL;
	struct curl_slist *longer = NULL;

	if (asprintf(&line, "%s%s%s", name, value ? ": " : "", value ? value : "") < 0)
		line = NULL;
	if (line)
		longer = curl_slist_append(*headers, line);
	if (longer)
		*headers = longer;
	return longer != NULL;
}

static int set_url(struct client *client, const char *path)
{
	_cleanup_free_ char *url = NULL;

	if (asprintf(&url, "%s%s", client->base, path) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	return curl_easy_setopt(client->curl, CURLOPT_URL, url) == CURLE_OK ? 0 : -ENOMEM;
}

static int set_body(struct client *client, const char *method, const char *body)
{
	curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
	if (body) {
		curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
		if (curl_easy_setopt(client->curl, CURLOPT_COPYPOSTFIELDS, body) != CURLE_OK)
			return -ENOMEM;
	}
	curl_easy_setopt(client->curl, CURLOPT_CUSTOMREQUEST, method);
	return 0;
}

static const char *type_for(const char *method)
{
	return strcmp(method, "PATCH") == 0 ? "application/merge-patch+json" : "application/json";
}

int client_ask(struct client *client, const char *method, const char *path, json_t *body, const char *if_match,
        struct client_answer *ret)
{
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct curl_slist *headers = NULL;
	struct transfer transfer = { .client = client, .answer = ret };
	/* Without "Expect": the daemon would have to answer twice. */
	bool made = add_header(&headers, "Expect:", NULL);
	int r;

	*ret = (struct client_answer){ 0 };
	if (body)
		made = made && add_header(&headers, "Content-Type", type_for(method));
	if (if_match)
		made = made && add_header(&headers, "If-Match", if_match);
	if (client->authorization)
		made = made && add_header(&headers, client->authorization, NULL);
	curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, ANSWER_S);
	r = made && (!body || text) ? set_url(client, path) : -ENOMEM;
	if (r == 0)
		r = set_body(client, method, text);
	if (r == 0)
		r = perform(client, &transfer);
	curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	if (r < 0)
		client_answer_clear(ret);
	else if (ret->length > 0)
		ret->json = json_loadb(ret->body, ret->length, JSON_DECODE_ANY, NULL);
	return r;
}

int client_follow(struct client *client, const char *path, const char *after, int output, client_line *line,
        void *userdata, struct client_answer *ret)
{
	struct transfer transfer = {
		.client = client, .answer = ret, .line = line, .userdata = userdata, .output = output
	};
	struct curl_slist *headers = NULL;
	bool made = add_header(&headers, "Accept", "text/event-stream");
	int r;

	*ret = (struct client_answer){ 0 };
	if (after)
		made = made && add_header(&headers, "Last-Event-ID", after);
	if (client->authorization)
		made = made && add_header(&headers, client->authorization, NULL);
	curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, 0L);
	r = made ? set_url(client, path) : -ENOMEM;
	if (r == 0)
		r = set_body(client, "GET", NULL);
	if (r == 0)
		r = perform(client, &transfer);
	curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	if (r == 0 && !transfer.ended && ret->status != 200) {
		ret->json = ret->length > 0 ? json_loadb(ret->body, ret->length, 0, NULL) : NULL;
		return -EPERM;
	}
	client_answer_clear(ret);
	return r;
}
