/*
 * Any bytes as a request line's target and as headers: splitting, routing,
 * query, screening. No control byte and no empty segment gets through; the
 * route's names are among the segments. Links the fake core.
 */
#include "tests/unit/fake_core.h"

#include "tests/fuzz/fuzz.h"
#include "webapi/router.h"
#include "webapi/screen.h"
#include "webapi/url.h"

static void check_segments(const struct request *request)
{
	for (size_t i = 0; i < request->n_segments; i++) {
		const unsigned char *at = (const unsigned char *)request->segments[i];

		for (; *at; at++)
			FUZZ_EXPECT(*at >= ' ' && *at != 0x7f && *at != '/');
	}
}

static void try_query(const char *query)
{
	static const char *const known[] = { "dry_run", "confirm_within", "limit", "after" };
	_cleanup_errs_ struct errs errs = { 0 };
	char *values[4];
	int r = url_parse_query(query, known, 4, values, &errs);

	FUZZ_EXPECT((r < 0) == (errs.n > 0));
	for (size_t i = 0; i < 4; i++) {
		if (r < 0)
			FUZZ_EXPECT(values[i] == NULL);
		free(values[i]);
	}
}

/* Header lines of the input: "Name: value" each. */
static void take_headers(struct request *request, char *lines)
{
	for (char *line = lines, *next; line && *line; line = next) {
		char *colon = strchr(line, ':');
		enum header_id id;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!colon)
			continue;
		*colon++ = '\0';
		id = header_parse(line);
		if (id == HEADERS || request->headers[id].count++)
			continue;
		request->headers[id].value = colon + strspn(colon, " ");
	}
}

static void try_screens(struct request *request, const struct route *route)
{
	struct response response = { 0 };

	if (screen_framing(request, &response) == 0 && screen_host(request, "gw.example", &response) == 0 &&
	        screen_method(request, &response) == 0 && route)
		(void)screen_body(request, route, &response);
	(void)screen_announced(request);
	FUZZ_EXPECT(response.status == 0 || (response.status >= 400 && response.status < 600));
	response_clear(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct request request = { .http_1_1 = true };
	const struct route *route = NULL;
	unsigned methods = 0;
	char *text, *lines, *query;

	if (size < 1)
		return 0;
	text = fuzz_text(data + 1, size - 1);
	lines = strchr(text, '\n');
	if (lines)
		*lines++ = '\0';
	request.method = (enum http_method)(data[0] % METHODS);
	request.path = strdup(text);
	FUZZ_EXPECT(request.path);
	query = strchr(request.path, '?');
	request.query = query ? query + 1 : "";
	if (query)
		*query = '\0';
	try_query(request.query);
	take_headers(&request, lines);
	if (url_split_path(&request) == 0) {
		check_segments(&request);
		route = router_find(&request, &methods);
		FUZZ_EXPECT(!route || route->handler);
	}
	try_screens(&request, route);
	request_clear(&request);
	free(text);
	return 0;
}
