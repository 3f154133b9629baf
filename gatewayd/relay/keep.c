/* Telling the daemon which flows to hold; see keep.h. */
#include "gatewayd/relay/keep.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/keepalive.h"
#include "gatewayd/base/log.h"
#include "gatewayd/relay/ledger.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"

/* --- begin and end --- */

int keep_init(struct keep *keep, uint32_t buffers, uint32_t buffer_size, uint32_t max_flows)
{
	int r = keep_memory_make(buffers, buffer_size, PIPES_MAX, &keep->memory, &keep->memory_fd);
	void *gone;

	keep->fd = -1;
	keep->resend = FLOW_NONE;
	if (r < 0) {
		keep->memory_fd = -1;
		return r;
	}
	max_flows = max_flows > UINT32_MAX / 2 ? UINT32_MAX : max_flows * 2;
	gone = mmap(NULL, (size_t)max_flows * sizeof(*keep->gone), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (gone == MAP_FAILED)
		return -ENOMEM;
	keep->gone = gone;
	keep->gone_max = max_flows;
	return 0;
}

void keep_destroy(struct keep *keep)
{
	adopt_clear(&keep->adopt);
	if (keep->gone)
		munmap(keep->gone, (size_t)keep->gone_max * sizeof(*keep->gone));
	keep_memory_unmap(&keep->memory);
	cleanup_close(&keep->memory_fd);
	cleanup_close(&keep->fd);
}

static void channel_close(struct loop *loop)
{
	struct keep *keep = &loop->keep;

	if (keep->fd < 0)
		return;
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, keep->fd, NULL);
	close(TAKE_FD(keep->fd));
	adopt_clear(&keep->adopt);
	wheel_clear(&loop->wheel, &keep->timer);
	keep->n_gone = 0;
	keep->n_batch = 0;
	keep->resend = FLOW_NONE;
}

/* --- sending --- */

/* Looks again a little later. */
static void wait_for_room(struct loop *loop)
{
	loop->keep.blocked = true;
	wheel_set(&loop->wheel, &loop->keep.timer, loop->now_ms + KEEP_RETRY_MS);
}

/* True if it was taken. */
static bool record_send(struct loop *loop, const struct keep_record *record)
{
	int r = keep_record_send(record, loop->keep.fd);

	if (r == 0)
		return true;
	if (r == -EAGAIN) {
		wait_for_room(loop);
	} else {
		if (r != -EPIPE)
			log_error("flows cannot be given to the daemon: %s", strerror(-r));
		channel_close(loop);
	}
	return false;
}

static bool tell_memory(struct loop *loop)
{
	const struct keep_memory *memory = &loop->keep.memory;
	struct keep_message message = { .type = KEEP_STORES,
		.stores = { .layout = KEEP_LAYOUT,
		        .buffers = memory->buffers,
		        .buffer_size = memory->buffer_size,
		        .pipes = memory->pipes } };
	struct keep_record record;

	if (loop->keep.memory_told)
		return true;
	keep_record_init(&record);
	(void)keep_record_put(&record, &message, &loop->keep.memory_fd);
	loop->keep.memory_told = record_send(loop, &record);
	return loop->keep.memory_told;
}

static bool tell_pipe(struct loop *loop, uint32_t pipe)
{
	const struct pipe_pair *pair = &loop->pipes.pair[pipe];
	struct keep_message message = { .type = KEEP_PIPE, .pipe.number = pipe };
	struct keep_record record;

	keep_record_init(&record);
	(void)keep_record_put(&record, &message, (int[]){ pair->read_fd, pair->write_fd });
	if (!record_send(loop, &record))
		return false;
	loop->keep.pipe_told[pipe] = true;
	return true;
}

/* The memory and all pipes, before the flows whose bytes may be in them. */
static bool tell_stores(struct loop *loop)
{
	if (!tell_memory(loop))
		return false;
	for (uint32_t i = 0; i < PIPES_MAX; i++)
		if (pipes_is_open(&loop->pipes, i) && !loop->keep.pipe_told[i] && !tell_pipe(loop, i))
			return false;
	return true;
}

static struct flow *slot_flow(struct loop *loop, const struct keep_slot *slot)
{
	struct flow *flow = &loop->flows.flows[slot->index];

	return flow->generation == slot->generation && flow->state == FLOW_RELAYING ? flow : NULL;
}

static uint8_t mover_number(const struct flow_direction *direction)
{
	return direction->mover == MOVER_SPLICE ? KEEP_MOVER_SPLICE : KEEP_MOVER_COPY;
}

static void flow_message(const struct loop *loop, const struct flow *flow, struct keep_message *ret)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	const struct flow_ledger ledger = flow_ledger(&loop->flows, flow);
	const struct flow_direction *direction = flow->direction;
	struct keep_flow *message = &ret->flow;

	*ret = (struct keep_message){ .type = KEEP_FLOW };
	keep_put_origin(&origin, message);
	message->idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms;
	message->base_up = ledger.base[FLOW_CLIENT];
	message->base_down = ledger.base[FLOW_TARGET];
	message->offset_up = (uint64_t)ledger.offset[FLOW_CLIENT];
	message->offset_down = (uint64_t)ledger.offset[FLOW_TARGET];
	message->mover_up = mover_number(&direction[FLOW_CLIENT]);
	message->mover_down = mover_number(&direction[FLOW_TARGET]);
	message->ended = (direction[FLOW_CLIENT].state == DIRECTION_ENDED ? 1 : 0) |
	                 (direction[FLOW_TARGET].state == DIRECTION_ENDED ? 2 : 0);
	message->mute = flow->carried;
}

/* The flows of the batch, into one record: KEEP_BATCH_MAX fit. */
static void fill_flows(struct loop *loop, struct keep_record *record)
{
	struct keep *keep = &loop->keep;

	for (unsigned i = 0; i < keep->n_batch; i++) {
		struct flow *flow = slot_flow(loop, &keep->batch[i]);
		struct keep_message message;

		if (!flow)
			continue;
		flow_message(loop, flow, &message);
		(void)keep_record_put(
		        record, &message, (int[]){ flow->end[FLOW_CLIENT].fd, flow->end[FLOW_TARGET].fd });
	}
}

/* What becomes of the batch's flows: the daemon has them, or they are tried again. */
static void settle_flows(struct loop *loop, bool told)
{
	struct keep *keep = &loop->keep;

	for (unsigned i = 0; i < keep->n_batch; i++) {
		struct flow *flow = slot_flow(loop, &keep->batch[i]);

		if (flow && told) {
			flow->kept.epoch = keep->epoch & FLOW_EPOCH_MASK;
			flow->kept.shared = true;
		} else if (flow) {
			wheel_set(&loop->wheel, &flow->timer, loop->now_ms + KEEP_RETRY_MS);
		}
	}
	keep->n_batch = 0;
}

/* As many ids from the end of the list as fit; how many. */
static uint32_t fill_gone(const struct keep *keep, struct keep_record *record)
{
	uint32_t n = 0;

	while (n < keep->n_gone) {
		struct keep_message message = { .type = KEEP_GONE, .gone = keep->gone[keep->n_gone - 1 - n] };

		if (keep_record_put(record, &message, NULL) < 0)
			break;
		n++;
	}
	return n;
}

/* Tells what there is to tell: at most one record of it. True: there is more, and room for it. */
static bool flush(struct loop *loop)
{
	struct keep *keep = &loop->keep;
	struct keep_record record;
	uint32_t n_gone;
	bool told;

	if (!tell_stores(loop)) {
		settle_flows(loop, false);
		return false;
	}
	keep_record_init(&record);
	if (keep->adopt.answer_due)
		(void)keep_record_put(&record,
		        &(struct keep_message){ .type = KEEP_END, .end = { keep->adopt.adopted, keep->adopt.over } },
		        NULL);
	fill_flows(loop, &record);
	n_gone = fill_gone(keep, &record);
	if (record.wire.offset == 0)
		return false;
	told = record_send(loop, &record);
	settle_flows(loop, told);
	if (!told)
		return false;
	if (keep->adopt.answer_due)
		keep->adopt.adopted = keep->adopt.over = 0;
	keep->adopt.answer_due = false;
	keep->n_gone -= n_gone;
	return keep->n_gone > 0;
}

/* Whether nothing is left to be told but what is told now. */
static bool tell_all(struct loop *loop)
{
	while (flush(loop))
		;
	return loop->keep.n_gone == 0 && !loop->keep.blocked;
}

/* --- flows --- */

/* The counters of one end. It may have been closed in order already and the rest of its stream not be taken yet: then
 * the stream towards it has been ended, and there is no error (one that was fetched would have ended the flow). */
static bool end_read(const struct flow *flow, enum flow_side side, struct ledger *ret)
{
	int fd = flow->end[side].fd;

	if (ledger_read(fd, ret) < 0 || ret->life == LEDGER_NO_STREAM)
		return false;
	if (ret->life != LEDGER_CLOSED)
		return true;
	if (flow->direction[!side].state != DIRECTION_ENDED || ledger_has_error(fd))
		return false;
	ret->taken--;
	return true;
}

bool keep_measure(struct loop *loop, struct flow *flow)
{
	struct flow_ledger own = { 0 };
	struct ledger ledger[FLOW_SIDES];

	if (flow->kept.measured)
		return true;
	/* From here on an urgent byte is one of the stream's; the client's socket has it from the listening one. */
	mover_take_urgent(flow->end[FLOW_TARGET].fd);
	/* So has it this; a short connection towards a target can do without. */
	(void)keepalive_set(flow->end[FLOW_TARGET].fd);
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		if (!end_read(flow, side, &ledger[side]))
			return false;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct flow_direction *direction = &flow->direction[side];
		int64_t offset = (int64_t)(ledger[side].taken - ledger[!side].given - direction->held);

		/* A few bytes, or what is read of the sockets cannot be relied on. */
		if (offset < INT32_MIN || offset > INT32_MAX)
			return false;
		own.base[side] = ledger[side].taken - direction->taken;
		own.offset[side] = (int32_t)offset;
	}
	flow_set_ledger(&loop->flows, flow, &own);
	flow->kept.measured = true;
	return true;
}

uint64_t keep_due_ms(const struct loop *loop, const struct flow *flow)
{
	uint32_t after = loop->keep.everything ? 0 : KEEP_AFTER_MS;
	uint32_t idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms;

	if (idle_timeout_ms > 0 && idle_timeout_ms < after)
		after = idle_timeout_ms;
	return loop->now_ms + after;
}

bool keep_add(struct loop *loop, struct flow *flow)
{
	struct keep *keep = &loop->keep;

	if (keep->fd < 0 || flow->kept.epoch == keep->epoch)
		return true;
	if (keep->blocked || keep->n_batch == KEEP_BATCH_MAX || !keep_measure(loop, flow))
		return false;
	keep->batch[keep->n_batch++] =
	        (struct keep_slot){ .index = flow_index(&loop->flows, flow), .generation = flow->generation };
	return true;
}

static void tell_later(struct loop *loop, const struct flow *flow, bool goes_on)
{
	struct keep *keep = &loop->keep;

	if (keep->fd < 0 || flow->kept.epoch != keep->epoch)
		return;
	if (keep->n_gone == keep->gone_max) { /* only if more were handed to us than we have room for */
		channel_close(loop);
		return;
	}
	keep->gone[keep->n_gone++] = (struct keep_gone){ .id = flow->id, .mute = flow->carried, .goes_on = goes_on };
	if (!wheel_is_set(&keep->timer))
		wheel_set(&loop->wheel, &keep->timer, loop->now_ms + KEEP_GONE_MS);
}

void keep_gone(struct loop *loop, const struct flow *flow)
{
	tell_later(loop, flow, false);
}

void keep_mute(struct loop *loop, const struct flow *flow)
{
	tell_later(loop, flow, true);
}

bool keep_pipe(struct loop *loop, uint32_t pipe)
{
	if (loop->keep.fd < 0 || loop->keep.pipe_told[pipe])
		return true;
	/* A daemon that has just gone is no reason not to move bytes. */
	return (tell_memory(loop) && tell_pipe(loop, pipe)) || loop->keep.fd < 0;
}

/* The next few flows that a new daemon has not been told. */
static void resend(struct loop *loop)
{
	struct keep *keep = &loop->keep;

	while (keep->resend < loop->flows.touched && keep->n_batch < KEEP_BATCH_MAX) {
		struct flow *flow = &loop->flows.flows[keep->resend];

		/* By the loop's time, as the timer that tells of it. */
		uint64_t started_ms = flow->account.started_us / 1000 - flow->lag_ms;
		bool due = keep->everything || started_ms + KEEP_AFTER_MS <= loop->now_ms;

		if (flow->state == FLOW_RELAYING && due && !keep_add(loop, flow))
			wheel_set(&loop->wheel, &flow->timer, loop->now_ms + KEEP_RETRY_MS);
		keep->resend++;
	}
	if (keep->resend >= loop->flows.touched)
		keep->resend = FLOW_NONE;
}

/* --- called by the loop --- */

void keep_open(struct loop *loop, int fd)
{
	struct keep *keep = &loop->keep;
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = loop_keep_cookie() };

	channel_close(loop);
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		log_error("no flow can be kept: %s", strerror(errno));
		close(fd);
		return;
	}
	keep->fd = fd;
	keep->epoch = keep->epoch < FLOW_EPOCH_MASK ? keep->epoch + 1 : 1;
	keep->blocked = false;
	keep->memory_told = false;
	memset(keep->pipe_told, 0, sizeof(keep->pipe_told));
	keep->resend = 0;
	(void)tell_stores(loop);
}

void keep_event(struct loop *loop)
{
	struct keep_record record;
	struct keep_message message;
	int fds[KEEP_DESCRIPTORS_EACH], r, s;

	if (loop->keep.fd < 0)
		return;
	r = keep_record_receive(&record, loop->keep.fd);
	if (r == -EAGAIN)
		return;
	while (r == 0 && (s = keep_record_next(&record, &message, fds)) != 0)
		r = s < 0 ? s : adopt_message(loop, &message, fds);
	keep_record_close(&record);
	if (r < 0) {
		if (r != -EPIPE)
			log_error("the daemon's words about flows are not understood: %s", strerror(-r));
		channel_close(loop);
	}
}

void keep_timer(struct loop *loop)
{
	loop->keep.blocked = false;
	if (flush(loop))
		wheel_set(&loop->wheel, &loop->keep.timer, loop->now_ms + 1);
}

bool keep_turn(struct loop *loop)
{
	struct keep *keep = &loop->keep;

	if (keep->fd < 0 || keep->blocked)
		return false;
	if (keep->resend != FLOW_NONE)
		resend(loop);
	if ((keep->n_batch > 0 || keep->adopt.answer_due || keep->n_gone >= KEEP_GONE_BATCH) && flush(loop))
		return true;
	return keep->resend != FLOW_NONE && !keep->blocked;
}

void keep_hand_over(struct loop *loop)
{
	loop->keep.everything = true;
	loop->keep.resend = loop->keep.fd >= 0 ? 0 : FLOW_NONE;
}

/* Flows that the daemon should be told of and is not. */
static bool any_left(const struct loop *loop)
{
	for (uint32_t i = 0; i < loop->flows.touched; i++) {
		const struct flow *flow = &loop->flows.flows[i];

		if (flow->state == FLOW_PEEKING || flow->state == FLOW_CONNECTING ||
		        (flow->state == FLOW_RELAYING && flow->kept.epoch != loop->keep.epoch))
			return true;
	}
	return false;
}

bool keep_handed_over(struct loop *loop)
{
	struct keep *keep = &loop->keep;

	if (keep->fd < 0 || loop->now_ms >= loop->handover_ms)
		return true;
	return keep->resend == FLOW_NONE && keep->n_batch == 0 && !keep->adopt.answer_due && !any_left(loop) &&
	       tell_all(loop);
}

/* --- origins --- */

void keep_put_origin(const struct flow_origin *origin, struct keep_flow *ret)
{
	ret->id = origin->id;
	ret->started_ms = origin->started_ms;
	ret->client_family = origin->client.family;
	ret->original_family = origin->original.family;
	ret->target_family = origin->target.family;
	memcpy(ret->client, origin->client.bytes, sizeof(ret->client));
	memcpy(ret->original, origin->original.bytes, sizeof(ret->original));
	memcpy(ret->target, origin->target.bytes, sizeof(ret->target));
	ret->client_port = origin->client_port;
	ret->original_port = origin->original_port;
	ret->target_port = origin->target_port;
	ret->listener = origin->objects.listener;
	ret->upstream = origin->objects.upstream;
	ret->target_id = origin->objects.target;
}

static int get_addr(uint8_t family, const uint8_t bytes[16], struct addr *ret)
{
	if (family != AF_INET && family != AF_INET6)
		return -EBADMSG;
	*ret = (struct addr){ .family = family };
	memcpy(ret->bytes, bytes, addr_bits(family) / 8);
	return 0;
}

int keep_get_origin(const struct keep_flow *message, struct flow_origin *ret)
{
	struct flow_origin origin = { .id = message->id,
		.started_ms = message->started_ms,
		.client_port = message->client_port,
		.original_port = message->original_port,
		.target_port = message->target_port,
		.objects = { message->listener, message->upstream, message->target_id } };

	if (message->id == 0 || get_addr(message->client_family, message->client, &origin.client) < 0 ||
	        get_addr(message->original_family, message->original, &origin.original) < 0 ||
	        get_addr(message->target_family, message->target, &origin.target) < 0)
		return -EBADMSG;
	*ret = origin;
	return 0;
}
