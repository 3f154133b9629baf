/*
 * Many elements at once; see kernel_bulk.h. The text is our own renderer's:
 * a command is a line, but for elements, which stand one a line between
 * "add element inet gatewayd NAME {" and "}".
 */
#include "rules/kernel_bulk.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/kernel_netlink.h"
#include "rules/nftset.h"
#include "rules/render_nft.h"

#define PREFIX " inet " NFT_TABLE " "
#define TABLE  "add table inet " NFT_TABLE "\n"
#define GONE   "delete table inet " NFT_TABLE "\n"
#define FRESH  TABLE GONE TABLE

/* Room for one element with both ends of its key, and for the head of a message. */
#define ELEMENT_ROOM (6U * 4U + 2U * NFTSET_KEY_MAX)
#define HEAD_ROOM    256U
/* A list of elements is an attribute, whose length has 16 bits. */
#define LIST_MAX 32768U
/* Longest line of an element. */
#define LINE_MAX 192

/* --- the text --- */

/* The next line, without its newline; NULL at the end. */
static const char *next_line(const char **text, size_t *ret_length)
{
	const char *line = *text;

	if (*line == '\0')
		return NULL;
	*ret_length = strcspn(line, "\n");
	*text = line + *ret_length + (line[*ret_length] == '\n');
	return line;
}

/* The name in "WORDS NAME..." if the line begins with the words, in a buffer. */
static bool name_behind(const char *line, const char *words, char name[NFTSET_NAME_MAX])
{
	size_t skip = strlen(words), length;

	if (strncmp(line, words, skip) != 0)
		return false;
	length = strcspn(line + skip, " \n");
	if (length == 0 || length >= NFTSET_NAME_MAX)
		return false;
	memcpy(name, line + skip, length);
	name[length] = '\0';
	return true;
}

/* Whether the line begins elements of one of our sets that lead nowhere. */
static bool begins_elements(const char *line, size_t length, const char *words, struct group *ret)
{
	char name[NFTSET_NAME_MAX];

	return line[length - 1] == '{' && name_behind(line, words, name) && nftset_group_of_name(name, ret) == 0 &&
	       ret->verdict != VERDICT_LIMITED;
}

/* What stands before the closing line. */
static const char *end_of_block(const char *lines)
{
	const char *end = strstr(lines, "\n}\n");

	return end ? end + 1 : lines + strlen(lines);
}

bool kernel_bulk_replaces(const char *text)
{
	return strncmp(text, FRESH, strlen(FRESH)) == 0;
}

/* A set that the text declares. */
struct declared {
	const char *line;
	size_t length;
	bool deleted; /* the text deletes one of this name before */
};

struct splitting {
	struct bulk *bulk;
	struct declared *sets;
	size_t n_sets, sets_size, parts_size;
	bool replaces;
	FILE *before, *after, *undo;
};

static bool is_named(const struct declared *set, const char *name)
{
	char other[NFTSET_NAME_MAX];

	return (name_behind(set->line, "add set" PREFIX, other) ||
	               name_behind(set->line, "delete set" PREFIX, other)) &&
	       strcmp(other, name) == 0;
}

static const struct declared *find_set(const struct splitting *splitting, const char *name)
{
	for (size_t i = 0; i < splitting->n_sets; i++)
		if (is_named(&splitting->sets[i], name))
			return &splitting->sets[i];
	return NULL;
}

static int note_set(struct splitting *splitting, const char *line, size_t length)
{
	char name[NFTSET_NAME_MAX];
	bool deleted = name_behind(line, "delete set" PREFIX, name);

	if (!deleted && !name_behind(line, "add set" PREFIX, name))
		return 0;
	if (array_reserve(&splitting->sets, &splitting->sets_size, splitting->n_sets + 1, sizeof(*splitting->sets)) < 0)
		return -ENOMEM;
	/* The first that is noted of a name is what find_set finds. */
	splitting->sets[splitting->n_sets++] = (struct declared){ line, length, deleted };
	return 0;
}

static int take_part(struct splitting *splitting, const struct declared *set, const struct bulk_part *part)
{
	struct bulk *bulk = splitting->bulk;
	char name[NFTSET_NAME_MAX];

	if (array_reserve(&bulk->parts, &splitting->parts_size, bulk->n + 1, sizeof(*part)) < 0)
		return -ENOMEM;
	bulk->parts[bulk->n++] = *part;
	nftset_name(&part->group, name);
	/* One that is there already was left behind, and what is in it with it. */
	fprintf(splitting->before, "%.*s\nflush set" PREFIX "%s\n", (int)set->length, set->line, name);
	if (!splitting->replaces)
		fprintf(splitting->undo, "delete set" PREFIX "%s\n", name);
	return 0;
}

/* A line that begins elements; *text stands behind it, and behind the block afterwards. */
static int take_block(struct splitting *splitting, const char *line, const char **text, const struct group *group)
{
	struct bulk_part part = { *group, *text, end_of_block(*text) };
	const char *end = part.end + strcspn(part.end, "\n");
	bool large = (size_t)(part.end - part.lines) >= KERNEL_LARGE / 4;
	const struct declared *set;
	char name[NFTSET_NAME_MAX];

	nftset_name(group, name);
	set = large ? find_set(splitting, name) : NULL;
	*text = *end ? end + 1 : end;
	if (set && !set->deleted)
		return take_part(splitting, set, &part);
	fwrite(line, 1, (size_t)(*text - line), splitting->after);
	return 0;
}

static int split(struct splitting *splitting, const char *text)
{
	const char *line;
	size_t length = 0;
	int r = 0;

	splitting->replaces = kernel_bulk_replaces(text);
	if (splitting->replaces) {
		text += strlen(FRESH);
		fputs(GONE, splitting->undo);
		fputs(TABLE, splitting->before);
		fputs(TABLE, splitting->after);
	}
	while (r == 0 && (line = next_line(&text, &length))) {
		struct group group;

		if (length > 0 && begins_elements(line, length, "add element" PREFIX, &group)) {
			r = take_block(splitting, line, &text, &group);
			continue;
		}
		r = note_set(splitting, line, length);
		fwrite(line, 1, (size_t)(text - line), splitting->after);
	}
	return r;
}

/* Closes the stream; its buffer is complete then. */
static int finish(FILE *out)
{
	bool failed = !out || ferror(out);

	return (out && fclose(out) != 0) || failed ? -ENOMEM : 0;
}

int kernel_bulk_split(const char *text, struct bulk *ret)
{
	struct bulk bulk = { 0 };
	size_t sizes[3];
	struct splitting splitting = { .bulk = &bulk,
		.before = open_memstream(&bulk.before, &sizes[0]),
		.after = open_memstream(&bulk.after, &sizes[1]),
		.undo = open_memstream(&bulk.undo, &sizes[2]) };
	int r = splitting.before && splitting.after && splitting.undo ? split(&splitting, text) : -ENOMEM;

	r = finish(splitting.before) < 0 ? -ENOMEM : r;
	r = finish(splitting.after) < 0 ? -ENOMEM : r;
	r = finish(splitting.undo) < 0 ? -ENOMEM : r;
	free(splitting.sets);
	if (r < 0 || bulk.n == 0) {
		kernel_bulk_clear(&bulk);
		return r;
	}
	*ret = bulk;
	return 1;
}

void kernel_bulk_clear(struct bulk *bulk)
{
	free(bulk->parts);
	free(bulk->before);
	free(bulk->after);
	free(bulk->undo);
	*bulk = (struct bulk){ 0 };
}

/* --- messages --- */

/* A batch that is being written. */
struct batch {
	char *bytes;
	size_t length;
	uint32_t sequence;
	struct nlmsghdr *last; /* the last message of elements */
	struct nlmsghdr *message;
	struct nlattr *list; /* open in it */
};

static struct nlmsghdr *put_message(struct batch *batch, uint16_t type, uint16_t flags, uint8_t family, uint16_t id)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(batch->bytes + batch->length);
	struct nfgenmsg *head = mnl_nlmsg_put_extra_header(message, sizeof(*head));

	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = ++batch->sequence;
	*head = (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(id) };
	return message;
}

static void end_message(struct batch *batch)
{
	if (!batch->message)
		return;
	if (batch->list)
		mnl_attr_nest_end(batch->message, batch->list);
	batch->length += batch->message->nlmsg_len;
	batch->last = batch->message;
	batch->message = NULL;
	batch->list = NULL;
}

static void begin_message(struct batch *batch, bool add, const char *set)
{
	end_message(batch);
	batch->message = put_message(batch,
	        (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | (add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM)),
	        add ? NLM_F_CREATE : 0, NFPROTO_INET, 0);
	mnl_attr_put_strz(batch->message, NFTA_SET_ELEM_LIST_TABLE, NFT_TABLE);
	mnl_attr_put_strz(batch->message, NFTA_SET_ELEM_LIST_SET, set);
}

static void put_value(struct batch *batch, uint16_t type, const void *value, size_t size)
{
	struct nlattr *nest = mnl_attr_nest_start(batch->message, type);

	mnl_attr_put(batch->message, NFTA_DATA_VALUE, size, value);
	mnl_attr_nest_end(batch->message, nest);
}

static void put_key(struct batch *batch, const void *key, size_t size, const void *end)
{
	struct nlattr *element;

	if (!batch->list)
		batch->list = mnl_attr_nest_start(batch->message, NFTA_SET_ELEM_LIST_ELEMENTS);
	element = mnl_attr_nest_start(batch->message, NFTA_LIST_ELEM);
	put_value(batch, NFTA_SET_ELEM_KEY, key, size);
	if (end)
		put_value(batch, NFTA_SET_ELEM_KEY_END, end, size);
	mnl_attr_nest_end(batch->message, element);
}

static int put_element(struct batch *batch, const char *line, size_t length, const struct group *group)
{
	uint8_t key[NFTSET_KEY_MAX], end[NFTSET_KEY_MAX];
	struct element element;
	char copy[LINE_MAX];
	size_t size;
	int r;

	if (length == 0 || length >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, line, length);
	copy[length] = '\0';
	r = nftset_parse_element(copy, group, &element);
	if (r < 0)
		return r;
	size = nftset_key(&element, false, key);
	if (group_is_interval(group))
		nftset_key(&element, true, end);
	put_key(batch, key, size, group_is_interval(group) ? end : NULL);
	return 0;
}

static int put_part(struct batch *batch, bool add, const struct bulk_part *part)
{
	const char *text = part->lines;
	char name[NFTSET_NAME_MAX];
	int r = 0;

	nftset_name(&part->group, name);
	begin_message(batch, add, name);
	while (r == 0 && text < part->end) {
		size_t length = 0;
		const char *line = next_line(&text, &length);

		if (batch->message->nlmsg_len > LIST_MAX)
			begin_message(batch, add, name);
		r = put_element(batch, line, length, &part->group);
	}
	return r;
}

/* Room for a text: an element is a line, the head of a message has two of its own (the last of them closes the list) or
 * is short, and a list that grows too long gets another head. */
static int batch_begin(struct batch *batch, const char *text, const char *end)
{
	size_t lines = 1, size;

	static_assert(2 * ELEMENT_ROOM >= HEAD_ROOM, "two lines have room for a head");
	for (const char *at = text; at < end; at++)
		lines += *at == '\n';
	size = (lines + 2) * ELEMENT_ROOM + (lines * ELEMENT_ROOM / LIST_MAX + 8) * HEAD_ROOM;
	*batch = (struct batch){ .bytes = malloc(size) };
	if (!batch->bytes)
		return -ENOMEM;
	batch->length = put_message(batch, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES)->nlmsg_len;
	return 0;
}

/* Of the messages of elements the last is acknowledged, once all are in. */
static int receive(struct mnl_socket *socket, uint32_t sequence)
{
	char buffer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));

	for (;;) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));
		const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;

		if (n < 0)
			return -errno;
		for (int left = (int)n; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			const struct nlmsgerr *error = mnl_nlmsg_get_payload(message);

			if (message->nlmsg_type != NLMSG_ERROR)
				continue;
			if (error->error < 0 || message->nlmsg_seq == sequence)
				return error->error;
		}
	}
}

static int open_socket(struct bulk_socket *through)
{
	int on = 1, r = 0;

	through->socket = kernel_netlink_open(NETLINK_NETFILTER);
	if (!through->socket)
		return -errno;
	/* A refusal comes without the message, which would not fit where it is received. */
	if (mnl_socket_setsockopt(through->socket, NETLINK_CAP_ACK, &on, sizeof(on)) < 0) {
		r = -errno;
		kernel_bulk_close(through);
	}
	return r;
}

void kernel_bulk_close(struct bulk_socket *through)
{
	if (through->socket)
		mnl_socket_close(through->socket);
	*through = (struct bulk_socket){ 0 };
}

static int batch_send(struct bulk_socket *through, struct batch *batch)
{
	int r, size;

	end_message(batch);
	batch->last->nlmsg_flags |= NLM_F_ACK;
	batch->length += put_message(batch, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES)->nlmsg_len;
	size = (int)batch->length;
	r = through->socket ? 0 : open_socket(through);
	if (r < 0)
		return r;
	/* A message has to fit into the socket's buffer whole. */
	if (size > through->room &&
	        setsockopt(mnl_socket_get_fd(through->socket), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) == 0)
		through->room = size;
	r = mnl_socket_sendto(through->socket, batch->bytes, batch->length) < 0 ? -errno : 0;
	if (r == 0)
		r = receive(through->socket, batch->last->nlmsg_seq);
	/* More may come of what was refused: it would be taken for the next one's answer. */
	if (r < 0)
		kernel_bulk_close(through);
	return r;
}

static int load_part(struct bulk_socket *through, const struct bulk_part *part)
{
	struct batch batch;
	int r = batch_begin(&batch, part->lines, part->end);

	if (r < 0)
		return r;
	r = put_part(&batch, true, part);
	if (r == 0)
		r = batch_send(through, &batch);
	free(batch.bytes);
	return r;
}

int kernel_bulk_load(struct bulk_socket *through, const struct bulk *bulk, unsigned *ret_commits)
{
	int r = 0;

	*ret_commits = 0;
	for (size_t i = 0; r == 0 && i < bulk->n; i++) {
		r = load_part(through, &bulk->parts[i]);
		*ret_commits += r == 0;
	}
	return r;
}

/* --- a text of elements --- */

static int put_command(struct batch *batch, const char *line, size_t length, const char **text)
{
	struct bulk_part part = { .lines = *text };
	bool add = begins_elements(line, length, "add element" PREFIX, &part.group);
	unsigned generation;

	if (add || begins_elements(line, length, "delete element" PREFIX, &part.group)) {
		const char *end;

		part.end = end_of_block(part.lines);
		end = part.end + strcspn(part.end, "\n");
		*text = *end ? end + 1 : end;
		return put_part(batch, add, &part);
	}
	if (strncmp(line, "flush set" PREFIX "generation\n", length + 1) == 0) {
		begin_message(batch, false, "generation");
		return 0;
	}
	if (sscanf(line, "add element" PREFIX "generation { 0x%8x }", &generation) != 1)
		return -ENOTSUP;
	begin_message(batch, true, "generation");
	put_key(batch, &generation, sizeof(generation), NULL);
	return 0;
}

int kernel_bulk_elements(struct bulk_socket *through, const char *text)
{
	struct batch batch;
	const char *line;
	size_t length = 0;
	int r = batch_begin(&batch, text, text + strlen(text));

	if (r < 0)
		return r;
	while (r == 0 && (line = next_line(&text, &length)))
		r = length > 0 ? put_command(&batch, line, length, &text) : -ENOTSUP;
	if (r == 0)
		r = batch.message ? batch_send(through, &batch) : -ENOTSUP;
	free(batch.bytes);
	return r;
}
