/* Bodies by row, see kept.h. A table without chains: two rows of one place take turns. */
#include "webapi/kept.h"

#include <errno.h>
#include <string.h>

struct kept {
	struct {
		struct row *row; /* a reference; NULL: free */
		char *text;      /* owned */
		size_t length;
	} bodies[KEPT_BODIES];
};

struct kept *kept_new(void)
{
	return calloc(1, sizeof(struct kept));
}

void kept_free(struct kept *kept)
{
	for (size_t i = 0; kept && i < KEPT_BODIES; i++) {
		row_unref(kept->bodies[i].row);
		free(kept->bodies[i].text);
	}
	free(kept);
}

static size_t place_of(const struct row *row)
{
	return (size_t)row->id % KEPT_BODIES;
}

static char *copy(const char *text, size_t length)
{
	char *made = malloc(length);

	return made ? memcpy(made, text, length) : NULL;
}

int kept_answer(const struct kept *kept, const struct row *row, struct response *response)
{
	size_t place = place_of(row);
	char *body;

	if (kept->bodies[place].row != row)
		return 0;
	body = copy(kept->bodies[place].text, kept->bodies[place].length);
	if (!body)
		return -ENOMEM;
	response_body(response, 200, CONTENT_JSON, body, kept->bodies[place].length);
	return 1;
}

void kept_put(struct kept *kept, const struct row *row, const struct response *response)
{
	size_t place = place_of(row);
	char *text = response->length <= KEPT_BODY_MAX ? copy(response->body, response->length) : NULL;

	if (!text)
		return;
	row_unref(kept->bodies[place].row);
	free(kept->bodies[place].text);
	kept->bodies[place].row = row_ref((struct row *)row);
	kept->bodies[place].text = text;
	kept->bodies[place].length = response->length;
}
