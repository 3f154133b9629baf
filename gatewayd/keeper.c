/* Descriptors of flows, held for the next relay; see keeper.h. */
#include "gatewayd/keeper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/keep_memory.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/stats.h"
#include "gatewayd/keeper_entry.h"

#define NONE UINT32_MAX
/* Pipes of one thread: as many as its pool has (relay/pipes.h), which the daemon does not include. */
#define PIPES_EACH 256
/* Records read from one channel before other work has its turn. */
#define RECORDS_AT_ONCE 16

struct pipe_ends {
	int fd[KEEP_DESCRIPTORS_EACH];
};

struct lot {
	struct keep_stores stores;
	int memory_fd;
	struct pipe_ends pipe[PIPES_EACH]; /* -1: none */
};

enum push_phase { PUSH_IDLE, PUSH_STORES, PUSH_PIPES, PUSH_FLOWS, PUSH_END, PUSH_WAIT /* for the relay's END */ };

struct channel {
	struct keeper *keeper;
	sd_event_source *source;
	int fd; /* -1: none */
	uint16_t thread;
	struct lot *lot; /* of the thread that lives; NULL until it has said so */
	uint32_t orphans;
	enum push_phase phase;
	uint32_t lot_index, pipe_index;
	bool pending; /* the record is filled and waits for room */
	struct keep_record record;
};

struct keeper {
	sd_event *event;
	struct keeper_owner owner;
	struct keeper_entry *entries;
	struct keeper_pools pools;
	uint32_t *buckets;
	uint32_t max, touched, free_head, used, n_buckets;
	struct lot *lots[KEEPER_LOTS_MAX]; /* of the dead, the latest first */
	uint32_t n_lots;
	struct channel *channels[STATS_THREADS_MAX];
	struct keeper_counts counts;
};

/* --- descriptors --- */

/* The descriptor at a number that no select() of this process has to deal with; -1 if there is none left. */
static int move_up(int fd)
{
	int high = fd;

	if (fd >= 0 && fd < KEEPER_FD_LEAST) {
		high = fcntl(fd, F_DUPFD_CLOEXEC, KEEPER_FD_LEAST);
		close(fd);
	}
	return high < 0 ? -1 : high;
}

static bool take_up(const int fds[KEEP_DESCRIPTORS_EACH], int ret[KEEP_DESCRIPTORS_EACH])
{
	ret[0] = move_up(fds[0]);
	ret[1] = move_up(fds[1]);
	if (ret[0] >= 0 && ret[1] >= 0)
		return true;
	cleanup_close(&ret[0]);
	cleanup_close(&ret[1]);
	return false;
}

/* --- the table --- */

static uint32_t *bucket_of(const struct keeper *keeper, uint64_t id)
{
	return &keeper->buckets[(id * UINT64_C(0x9E3779B97F4A7C15)) >> 32 & (keeper->n_buckets - 1)];
}

static struct keeper_entry *entry_find(const struct keeper *keeper, uint64_t id)
{
	for (uint32_t i = *bucket_of(keeper, id); i != NONE; i = keeper->entries[i].next)
		if (keeper->entries[i].id == id)
			return &keeper->entries[i];
	return NULL;
}

bool keeper_holds(const struct keeper *keeper, uint64_t id)
{
	return entry_find(keeper, id) != NULL;
}

static struct keeper_entry *entry_add(struct keeper *keeper, const struct keep_flow *flow)
{
	uint32_t *bucket = bucket_of(keeper, flow->id), index = keeper->free_head;

	if (index != NONE)
		keeper->free_head = keeper->entries[index].next;
	else if (keeper->touched < keeper->max)
		index = keeper->touched++;
	else
		return NULL;
	keeper_entry_fill(&keeper->entries[index], &keeper->pools, flow);
	keeper->entries[index].state = ENTRY_HELD;
	keeper->entries[index].next = *bucket;
	*bucket = index;
	keeper->used++;
	return &keeper->entries[index];
}

/* Closes the sockets and frees the place. */
static void entry_drop(struct keeper *keeper, struct keeper_entry *entry)
{
	uint32_t *link = bucket_of(keeper, entry->id), index = (uint32_t)(entry - keeper->entries);

	while (*link != index)
		link = &keeper->entries[*link].next;
	*link = entry->next;
	close(entry->fd[0]);
	close(entry->fd[1]);
	keeper_entry_leave(entry, &keeper->pools);
	entry->state = ENTRY_FREE;
	entry->next = keeper->free_head;
	keeper->free_head = index;
	keeper->used--;
}

/* --- lots --- */

static struct lot *lot_new(const struct keep_stores *stores, int memory_fd)
{
	struct lot *lot = malloc(sizeof(*lot));

	if (!lot)
		return NULL;
	lot->stores = *stores;
	lot->memory_fd = memory_fd;
	for (unsigned i = 0; i < PIPES_EACH; i++)
		lot->pipe[i] = (struct pipe_ends){ { -1, -1 } };
	return lot;
}

static void pipe_close(struct keeper *keeper, struct pipe_ends *pipe)
{
	if (pipe->fd[0] < 0)
		return;
	close(pipe->fd[0]);
	close(pipe->fd[1]);
	*pipe = (struct pipe_ends){ { -1, -1 } };
	keeper->counts.pipes--;
}

static void lot_free(struct keeper *keeper, struct lot *lot)
{
	if (!lot)
		return;
	for (unsigned i = 0; i < PIPES_EACH; i++)
		pipe_close(keeper, &lot->pipe[i]);
	cleanup_close(&lot->memory_fd);
	free(lot);
}

static void lots_clear(struct keeper *keeper)
{
	while (keeper->n_lots > 0)
		lot_free(keeper, keeper->lots[--keeper->n_lots]);
}

static void lot_bury(struct keeper *keeper, struct lot *lot)
{
	if (!lot)
		return;
	if (keeper->n_lots == KEEPER_LOTS_MAX)
		lot_free(keeper, keeper->lots[--keeper->n_lots]);
	memmove(keeper->lots + 1, keeper->lots, keeper->n_lots * sizeof(keeper->lots[0]));
	keeper->lots[0] = lot;
	keeper->n_lots++;
}

/* --- handing over --- */

/* The relays know the numbers by the order of the list. Index of the next lot to be told. */
static void fill_stores(struct channel *channel)
{
	struct keeper *keeper = channel->keeper;

	while (channel->lot_index < keeper->n_lots) {
		const struct lot *lot = keeper->lots[channel->lot_index];
		struct keep_message message = { .type = KEEP_STORES, .stores = lot->stores };

		if (keep_record_put(&channel->record, &message, &lot->memory_fd) < 0)
			return;
		channel->lot_index++;
	}
	channel->lot_index = channel->pipe_index = 0;
	channel->phase = PUSH_PIPES;
}

static bool has_bytes(const struct pipe_ends *pipe)
{
	int bytes = 0;

	return pipe->fd[0] >= 0 && ioctl(pipe->fd[0], FIONREAD, &bytes) == 0 && bytes > 0;
}

static void fill_pipes(struct channel *channel)
{
	struct keeper *keeper = channel->keeper;

	for (; channel->lot_index < keeper->n_lots; channel->lot_index++, channel->pipe_index = 0)
		for (; channel->pipe_index < PIPES_EACH; channel->pipe_index++) {
			const struct pipe_ends *pipe = &keeper->lots[channel->lot_index]->pipe[channel->pipe_index];
			struct keep_message message = { .type = KEEP_PIPE,
				.pipe = { .memory = channel->lot_index, .number = channel->pipe_index } };

			if (has_bytes(pipe) && keep_record_put(&channel->record, &message, pipe->fd) < 0)
				return;
		}
	channel->phase = PUSH_FLOWS;
}

static void fill_flows(struct channel *channel)
{
	struct keeper *keeper = channel->keeper;

	while (channel->orphans != NONE) {
		struct keeper_entry *entry = &keeper->entries[channel->orphans];
		struct keep_message message = { .type = KEEP_FLOW, .flow = keeper_entry_flow(entry, &keeper->pools) };

		if (keep_record_put(&channel->record, &message, entry->fd) < 0)
			return;
		channel->orphans = entry->sibling;
		entry->state = ENTRY_OFFERED;
		entry->thread = (uint8_t)channel->thread;
	}
	channel->phase = PUSH_END;
}

static void fill_record(struct channel *channel)
{
	struct keep_message end = { .type = KEEP_END };

	keep_record_init(&channel->record);
	if (channel->phase == PUSH_STORES)
		fill_stores(channel);
	if (channel->phase == PUSH_PIPES)
		fill_pipes(channel);
	if (channel->phase == PUSH_FLOWS)
		fill_flows(channel);
	if (channel->phase == PUSH_END && keep_record_put(&channel->record, &end, NULL) == 0)
		channel->phase = PUSH_WAIT;
}

/* Sends as much as there is room for; the rest when there is more. */
static void channel_push(struct channel *channel)
{
	int r = 0;

	while (r == 0 && (channel->pending || (channel->phase != PUSH_IDLE && channel->phase != PUSH_WAIT))) {
		if (!channel->pending)
			fill_record(channel);
		channel->pending = true;
		r = keep_record_send(&channel->record, channel->fd);
		if (r == 0)
			channel->pending = false;
	}
	if (r < 0 && r != -EAGAIN && r != -EPIPE)
		channel->keeper->owner.nonsense(channel->keeper->owner.userdata, "it cannot be given its flows");
	if (channel->source)
		(void)sd_event_source_set_io_events(channel->source, r == -EAGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static bool all_settled(const struct keeper *keeper)
{
	for (unsigned i = 0; i < STATS_THREADS_MAX; i++)
		if (keeper->channels[i] && keeper->channels[i]->phase != PUSH_IDLE)
			return false;
	return true;
}

/* --- messages of the relay --- */

static int on_stores(struct channel *channel, const struct keep_stores *message, int *fd)
{
	if (channel->lot || *fd < 0 || !keep_memory_is_sealed(*fd))
		return -EBADMSG;
	*fd = move_up(*fd);
	if (*fd < 0)
		return -EMFILE;
	channel->lot = lot_new(message, *fd);
	if (!channel->lot)
		return -ENOMEM;
	*fd = -1;
	return 0;
}

static int on_pipe(struct channel *channel, const struct keep_pipe *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	struct keeper *keeper = channel->keeper;
	struct pipe_ends pipe;

	if (!channel->lot || message->number >= PIPES_EACH || message->memory != 0)
		return -EBADMSG;
	if (!take_up((int[]){ TAKE_FD(fds[0]), TAKE_FD(fds[1]) }, pipe.fd)) {
		keeper->counts.refused++;
		return 0;
	}
	pipe_close(keeper, &channel->lot->pipe[message->number]);
	channel->lot->pipe[message->number] = pipe;
	keeper->counts.pipes++;
	return 0;
}

static bool is_family(uint8_t family)
{
	return family == AF_INET || family == AF_INET6;
}

/* A few bytes, in two's complement. */
static bool is_offset(uint64_t offset)
{
	return offset == (uint64_t)(int32_t)offset;
}

/* What closes the sockets, here or in the relay, says nothing from here on. */
static void mute(const struct keeper_entry *entry)
{
	static const int on = 1;

	for (unsigned i = 0; i < KEEP_DESCRIPTORS_EACH; i++)
		if (setsockopt(entry->fd[i], IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
			log_debug("a socket cannot be closed without a word: %s", strerror(errno));
}

static int on_flow(struct channel *channel, const struct keep_flow *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	struct keeper *keeper = channel->keeper;
	struct keeper_entry *entry;
	int high[KEEP_DESCRIPTORS_EACH];

	if (message->id == 0 || !is_family(message->client_family) || !is_family(message->original_family) ||
	        !is_family(message->target_family) || message->mover_up >= KEEP_MOVERS ||
	        message->mover_down >= KEEP_MOVERS || message->ended > 3 || !is_offset(message->offset_up) ||
	        !is_offset(message->offset_down) || entry_find(keeper, message->id))
		return -EBADMSG;
	if (keeper->used == keeper->max || !take_up((int[]){ TAKE_FD(fds[0]), TAKE_FD(fds[1]) }, high)) {
		keeper->counts.refused++;
		return 0;
	}
	entry = entry_add(keeper, message);
	entry->thread = (uint8_t)channel->thread;
	memcpy(entry->fd, high, sizeof(high));
	if (message->mute)
		mute(entry);
	return 0;
}

/* A flow that we did not hold may go as well: there was no room for it. */
static int on_gone(struct channel *channel, const struct keep_gone *message)
{
	struct keeper_entry *entry = entry_find(channel->keeper, message->id);

	if (!entry)
		return 0;
	if (entry->state == ENTRY_ORPHAN || entry->thread != channel->thread)
		return -EBADMSG;
	if (message->mute)
		mute(entry);
	if (message->goes_on)
		return 0;
	entry_drop(channel->keeper, entry);
	return 0;
}

/* This thread has taken over all that it was offered. */
static int on_end(struct channel *channel, const struct keep_end *message)
{
	struct keeper *keeper = channel->keeper;

	if (channel->phase != PUSH_WAIT || channel->pending)
		return -EBADMSG;
	channel->phase = PUSH_IDLE;
	keeper->counts.adopted += message->count;
	keeper->counts.over += message->over;
	for (uint32_t i = 0; i < keeper->touched; i++) {
		struct keeper_entry *entry = &keeper->entries[i];

		if (entry->state == ENTRY_OFFERED && entry->thread == channel->thread) {
			entry->state = ENTRY_HELD;
			entry->crashes = 0;
		}
	}
	if (all_settled(keeper)) {
		lots_clear(keeper);
		keeper->owner.settled(keeper->owner.userdata);
	}
	return 0;
}

static int handle(struct channel *channel, const struct keep_message *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	switch (message->type) {
	case KEEP_STORES:
		return on_stores(channel, &message->stores, &fds[0]);
	case KEEP_PIPE:
		return on_pipe(channel, &message->pipe, fds);
	case KEEP_FLOW:
		return on_flow(channel, &message->flow, fds);
	case KEEP_GONE:
		return on_gone(channel, &message->gone);
	case KEEP_END:
		return on_end(channel, &message->end);
	case KEEP_NONE:
	case KEEP_TYPES:
		break;
	}
	return -EBADMSG;
}

/* One record. 0, -EAGAIN, -EPIPE, or -EBADMSG and others: nonsense. */
static int channel_read(struct channel *channel)
{
	struct keep_record record;
	struct keep_message message;
	int fds[KEEP_DESCRIPTORS_EACH], s;
	int r = keep_record_receive(&record, channel->fd);

	if (r < 0)
		return r;
	while (r == 0 && (s = keep_record_next(&record, &message, fds)) != 0) {
		r = s < 0 ? s : handle(channel, &message, fds);
		for (unsigned i = 0; s > 0 && i < KEEP_DESCRIPTORS_EACH; i++)
			cleanup_close(&fds[i]);
	}
	keep_record_close(&record);
	return r;
}

static int on_channel(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct channel *channel = userdata;
	struct keeper_owner *owner = &channel->keeper->owner;
	int r = 0;

	(void)fd;
	for (unsigned i = 0; r == 0 && i < RECORDS_AT_ONCE; i++)
		r = channel_read(channel);
	if (r < 0 && r != -EAGAIN) {
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
		/* A hang-up is most likely its death, which others notice too. */
		owner->nonsense(owner->userdata, r == -EPIPE ? NULL : "it sends nonsense about its flows");
	} else if (events & EPOLLOUT) {
		channel_push(channel);
	}
	return 0;
}

/* --- channels --- */

static void channel_free(struct channel *channel)
{
	if (!channel)
		return;
	sd_event_source_disable_unref(channel->source);
	cleanup_close(&channel->fd);
	lot_free(channel->keeper, channel->lot);
	free(channel);
}

int keeper_channel(struct keeper *keeper, unsigned thread, int *ret_fd)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	int pair[2], r;

	if (!channel)
		return -ENOMEM;
	*channel = (struct channel){ .keeper = keeper, .fd = -1, .thread = (uint16_t)thread, .orphans = NONE };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		free(channel);
		return -errno;
	}
	channel->fd = pair[0];
	r = sd_event_add_io(keeper->event, &channel->source, channel->fd, EPOLLIN, on_channel, channel);
	if (r < 0) {
		close(pair[1]);
		channel_free(channel);
		return r;
	}
	channel_free(keeper->channels[thread]);
	keeper->channels[thread] = channel;
	*ret_fd = pair[1];
	return 0;
}

void keeper_offer(struct keeper *keeper, unsigned threads)
{
	bool any = false;

	for (uint32_t i = 0; i < keeper->touched; i++) {
		struct keeper_entry *entry = &keeper->entries[i];
		struct channel *channel = keeper->channels[entry->thread % threads];

		if (entry->state != ENTRY_ORPHAN || !channel)
			continue;
		entry->sibling = channel->orphans;
		channel->orphans = i;
		channel->phase = PUSH_STORES;
		any = true;
	}
	if (!any) {
		lots_clear(keeper);
		keeper->owner.settled(keeper->owner.userdata);
	}
	for (unsigned i = 0; any && i < threads; i++)
		if (keeper->channels[i])
			channel_push(keeper->channels[i]);
}

uint32_t keeper_orphan(struct keeper *keeper, bool crashed)
{
	for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
		struct channel *channel = keeper->channels[i];

		if (!channel)
			continue;
		while (channel_read(channel) == 0)
			;
		lot_bury(keeper, TAKE_PTR(channel->lot));
		channel_free(channel);
		keeper->channels[i] = NULL;
	}
	for (uint32_t i = 0; i < keeper->touched; i++) {
		struct keeper_entry *entry = &keeper->entries[i];

		if (entry->state == ENTRY_OFFERED && crashed && ++entry->crashes >= KEEPER_CRASHES_MAX)
			entry_drop(keeper, entry);
		else if (entry->state == ENTRY_HELD || entry->state == ENTRY_OFFERED)
			entry->state = ENTRY_ORPHAN;
	}
	return keeper->used;
}

/* --- as a whole --- */

/* How many flows the limit of descriptors leaves room for, once it is raised. */
static uint32_t room(unsigned threads)
{
	rlim_t beside = KEEPER_FD_LEAST + (rlim_t)threads * PIPES_EACH * 2;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warning("the limit of descriptors cannot be raised: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= beside)
		return 0;
	return (limit.rlim_cur - beside) / 2 > UINT32_MAX / 4 ? UINT32_MAX / 4
	                                                      : (uint32_t)((limit.rlim_cur - beside) / 2);
}

int keeper_new(
        sd_event *event, unsigned threads, uint32_t max_flows, const struct keeper_owner *owner, struct keeper **ret)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	uint32_t limit = room(threads);

	if (!keeper)
		return -ENOMEM;
	*keeper = (struct keeper){ .event = event, .owner = *owner, .max = max_flows, .free_head = NONE };
	if (limit < max_flows) {
		log_warning("only %u of %u flows can outlive a relay: the limit of descriptors is too low",
		        (unsigned)limit, (unsigned)max_flows);
		keeper->max = limit;
	}
	for (keeper->n_buckets = 1; keeper->n_buckets < keeper->max; keeper->n_buckets *= 2)
		;
	/* These are large and mostly untouched: the kernel gives pages as they are used. */
	keeper->entries = calloc(keeper->max + 1, sizeof(*keeper->entries));
	keeper->buckets = malloc(keeper->n_buckets * sizeof(*keeper->buckets));
	if (!keeper->entries || !keeper->buckets || keeper_pools_init(&keeper->pools, keeper->max) < 0) {
		keeper_free(keeper);
		return -ENOMEM;
	}
	memset(keeper->buckets, 0xff, keeper->n_buckets * sizeof(*keeper->buckets));
	*ret = keeper;
	return 0;
}

void keeper_free(struct keeper *keeper)
{
	if (!keeper)
		return;
	for (unsigned i = 0; i < STATS_THREADS_MAX; i++)
		channel_free(keeper->channels[i]);
	for (uint32_t i = 0; i < keeper->touched; i++)
		if (keeper->entries[i].state != ENTRY_FREE)
			entry_drop(keeper, &keeper->entries[i]);
	lots_clear(keeper);
	keeper_pools_destroy(&keeper->pools);
	free(keeper->entries);
	free(keeper->buckets);
	free(keeper);
}

void keeper_get_counts(const struct keeper *keeper, struct keeper_counts *ret)
{
	*ret = keeper->counts;
	ret->kept = keeper->used;
}
