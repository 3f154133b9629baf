/* Flows that another process began; see adopt.h. */
#include "gatewayd/relay/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/relay/account.h"
#include "gatewayd/relay/account_object.h"
#include "gatewayd/relay/keep.h"
#include "gatewayd/relay/ledger.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/record.h"
#include "gatewayd/relay/shape.h"
#include "gatewayd/relay/tcp_sockmap.h"
#include "gatewayd/relay/tcp_stitch.h"

void adopt_clear(struct adopt *adopt)
{
	for (uint32_t i = 0; i < adopt->n_memories; i++)
		keep_memory_unmap(&adopt->memories[i]);
	for (uint32_t i = 0; i < adopt->n_pipes; i++) {
		cleanup_close(&adopt->pipes[i].pair.read_fd);
		cleanup_close(&adopt->pipes[i].pair.write_fd);
	}
	free(adopt->memories);
	free(adopt->pipes);
	heir_clear(&adopt->heir);
	*adopt = (struct adopt){ 0 };
}

/* --- what the dead relay had in hand --- */

/* Room for one more in an array of n that has room for the next power of two; NULL: no memory. */
static void *grown(void *array, uint32_t n, size_t size)
{
	return n & (n - 1) ? array : reallocarray(array, n == 0 ? 1 : (size_t)n * 2, size);
}

static int on_stores(struct adopt *adopt, const struct keep_stores *message, int fd)
{
	struct keep_memory *memories;
	/* One of another layout, or one that cannot be mapped, keeps its number, but there is nothing in it. */
	struct keep_memory memory = { 0 };

	if (adopt->n_memories == ADOPT_MEMORIES_MAX)
		return -EBADMSG;
	memories = grown(adopt->memories, adopt->n_memories, sizeof(*memories));
	if (!memories)
		return -ENOMEM;
	adopt->memories = memories;
	if (message->layout != KEEP_LAYOUT ||
	        keep_memory_map(fd, message->buffers, message->buffer_size, message->pipes, &memory) < 0)
		log_warning("bytes that a dead relay had in hand cannot be read");
	memories[adopt->n_memories++] = memory;
	return 0;
}

static int on_pipe(struct adopt *adopt, const struct keep_pipe *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	struct adopt_pipe *pipes;

	if (adopt->n_pipes == ADOPT_PIPES_MAX || message->memory >= adopt->n_memories)
		return -EBADMSG;
	pipes = grown(adopt->pipes, adopt->n_pipes, sizeof(*pipes));
	if (!pipes)
		return -ENOMEM;
	adopt->pipes = pipes;
	pipes[adopt->n_pipes++] = (struct adopt_pipe){
		.memory = message->memory, .number = message->number, .pair = { TAKE_FD(fds[0]), TAKE_FD(fds[1]) }
	};
	return 0;
}

static bool is_owner(const struct keep_owner *owner, const struct flow *flow, enum flow_side side)
{
	return owner->flow == flow->id && owner->side == side;
}

static struct adopt_pipe *pipe_find(struct adopt *adopt, uint32_t memory, uint32_t number)
{
	for (uint32_t i = 0; i < adopt->n_pipes; i++)
		if (adopt->pipes[i].memory == memory && adopt->pipes[i].number == number)
			return &adopt->pipes[i];
	return NULL;
}

/* Bytes in hand that lie in a pipe of this memory: the pipe becomes the direction's. */
static bool take_pipe(
        struct loop *loop, struct flow *flow, enum flow_side side, uint32_t memory_number, uint32_t in_hand)
{
	struct adopt *adopt = &loop->keep.adopt;
	const struct keep_memory *memory = &adopt->memories[memory_number];
	struct flow_direction *direction = &flow->direction[side];

	for (uint32_t i = 0; i < memory->pipes; i++) {
		struct adopt_pipe *found =
		        is_owner(&memory->pipe_owner[i], flow, side) ? pipe_find(adopt, memory_number, i) : NULL;
		int bytes = 0;

		if (!found || found->pair.read_fd < 0 || ioctl(found->pair.read_fd, FIONREAD, &bytes) < 0 ||
		        (uint32_t)bytes != in_hand)
			continue;
		direction->store = pipes_adopt(&loop->pipes, &found->pair);
		if (direction->store == PIPE_NONE)
			return false;
		found->pair = (struct pipe_pair){ -1, -1 };
		pipes_own(&loop->pipes, direction->store, flow->id, side);
		direction->mover = MOVER_SPLICE;
		direction->held = in_hand;
		return true;
	}
	return false;
}

/* Bytes in hand that lie in a buffer of this memory: they are copied into one of ours, to the same place. */
static bool take_buffer(
        struct loop *loop, struct flow *flow, enum flow_side side, const struct keep_memory *memory, uint32_t in_hand)
{
	struct flow_direction *direction = &flow->direction[side];
	uint64_t first = direction->taken - in_hand; /* the place in the stream of the first byte in hand */

	for (uint32_t i = 0; i < memory->buffers; i++) {
		const struct keep_owner owner = memory->buffer_owner[i];
		uint64_t offset = first - owner.position;

		if (!is_owner(&owner, flow, side) || offset >= BUFFER_SIZE || offset + in_hand > BUFFER_SIZE ||
		        offset + in_hand > memory->buffer_size || !buffers_available(&loop->buffers))
			continue;
		buffers_own(&loop->buffers, flow->id, side, owner.position);
		memcpy(buffers_data(&loop->buffers, loop->buffers.scratch) + offset,
		        memory->data + (size_t)i * memory->buffer_size + offset, in_hand);
		direction->store = buffers_take_scratch(&loop->buffers);
		direction->mover = MOVER_COPY;
		direction->offset = (uint32_t)offset;
		direction->held = in_hand;
		return true;
	}
	return false;
}

static bool take_in_hand(struct loop *loop, struct flow *flow, enum flow_side side, uint32_t in_hand)
{
	const struct adopt *adopt = &loop->keep.adopt;

	for (uint32_t i = 0; i < adopt->n_memories; i++)
		if (adopt->memories[i].map && (take_pipe(loop, flow, side, i, in_hand) ||
		                                      take_buffer(loop, flow, side, &adopt->memories[i], in_hand)))
			return true;
	return false;
}

/* Bytes that were given on and not taken yet. */
static bool drop(struct flow *flow, enum flow_side side, uint32_t amount)
{
	while (amount > 0) {
		ssize_t dropped = recv(flow->end[side].fd, NULL, amount, MSG_TRUNC | MSG_DONTWAIT);

		if (dropped <= 0)
			return false;
		amount -= (uint32_t)dropped;
		flow->direction[side].taken += (uint64_t)dropped;
	}
	return true;
}

/* Which mover goes on with a direction that another process moved by this one, and has nothing in hand. Here it is to
 * be decided for each kind of mover what the next relay makes of it. */
static uint8_t mover_for(const struct loop *loop, uint8_t number)
{
	if (loop->mode == PROTO_MOVER_COPY || loop->mode == PROTO_MOVER_SPLICE)
		return loop->mode == PROTO_MOVER_SPLICE ? MOVER_SPLICE : MOVER_COPY;
	return number == KEEP_MOVER_SPLICE ? MOVER_SPLICE : MOVER_COPY;
}

/* The direction as the dead relay left it. False: it does not add up. */
static bool direction_restore(struct loop *loop, struct flow *flow, enum flow_side side,
        const struct ledger ledger[FLOW_SIDES], uint8_t mover)
{
	struct flow_direction *direction = &flow->direction[side];
	const struct flow_ledger own = flow_ledger(&loop->flows, flow);
	int64_t in_hand = (int64_t)(ledger[side].taken - ledger[!side].given) - own.offset[side];
	bool ended = ledger_sent_end(&ledger[!side]);
	int r;

	direction->mover = mover_for(loop, mover);
	direction->reason = loop->mode == PROTO_MOVER_AUTO ? MOVER_REASON_START : MOVER_REASON_FORCED;
	direction->store = UINT32_MAX;
	direction->taken = ledger[side].taken - own.base[side];
	direction->moved = direction->taken > 0;
	if (ended)
		direction->state = DIRECTION_ENDED;
	r = tcp_sockmap_adopt(loop, flow, side, ended);
	if (r != 0 || ended)
		return r >= 0;
	if (in_hand < 0)
		return -in_hand <= (int64_t)ledger[side].unread && drop(flow, side, (uint32_t)-in_hand);
	if (in_hand > UINT32_MAX)
		return false;
	return in_hand == 0 || take_in_hand(loop, flow, side, (uint32_t)in_hand);
}

/* --- what became of the connection meanwhile --- */

enum verdict {
	VERDICT_GO_ON,
	VERDICT_BROKEN, /* one end was reset; what came before can still be passed on, then its error is an event */
	VERDICT_RESET,  /* one end was reset, and nobody else will say so any more */
	VERDICT_OVER,   /* both directions have ended in order, or nothing can be sent any more */
	VERDICT_WRONG,  /* this is no relayed connection */
};

/* What was taken from this side if nothing of it is in hand. to: the other side. */
static uint64_t given_and_offset(
        const struct loop *loop, const struct flow *flow, enum flow_side side, const struct ledger *to)
{
	return to->given + (uint64_t)flow_ledger(&loop->flows, flow).offset[side];
}

/* One end is closed; see adopt.h. Corrects its ledger if the end was an orderly one. */
static enum verdict judge_closed(const struct loop *loop, const struct flow *flow, enum flow_side closed, uint8_t ended,
        struct ledger ledger[FLOW_SIDES])
{
	struct ledger *e = &ledger[closed], *o = &ledger[!closed];
	bool ended_towards = ended & (1 << !closed);

	if (ledger_received_end(o) && o->unread == 0 && o->taken + 1 == given_and_offset(loop, flow, !closed, e))
		ended_towards = true;
	if (ledger_has_error(flow->end[closed].fd)) {
		e->life = ended_towards ? LEDGER_SENT : LEDGER_CLOSED;
		return VERDICT_BROKEN;
	}
	if (!ended_towards)
		return VERDICT_RESET;
	if (ledger_sent_end(o))
		return VERDICT_OVER;
	if (e->unread == 0 && e->taken == given_and_offset(loop, flow, closed, o))
		return VERDICT_RESET;
	e->taken--;
	e->life = LEDGER_BOTH;
	return VERDICT_GO_ON;
}

/* The same for a flow in the sockmap, of which the kernel has moved bytes past every count of ours. */
static enum verdict judge_closed_in_map(
        const struct loop *loop, const struct flow *flow, enum flow_side closed, struct ledger ledger[FLOW_SIDES])
{
	if (ledger_has_error(flow->end[closed].fd))
		return VERDICT_BROKEN;
	if (!ledger_received_end(&ledger[!closed]) || !tcp_sockmap_had_ended(loop, flow, !closed))
		return VERDICT_RESET;
	if (ledger_sent_end(&ledger[!closed]))
		return VERDICT_OVER;
	ledger[closed].life = LEDGER_BOTH;
	return VERDICT_GO_ON;
}

static enum verdict judge(
        const struct loop *loop, const struct flow *flow, uint8_t ended, bool in_map, struct ledger ledger[FLOW_SIDES])
{
	bool closed[FLOW_SIDES];

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		if (ledger_read(flow->end[side].fd, &ledger[side]) < 0 || ledger[side].life == LEDGER_NO_STREAM)
			return VERDICT_WRONG;
		closed[side] = ledger[side].life == LEDGER_CLOSED;
	}
	if (closed[FLOW_CLIENT] && closed[FLOW_TARGET])
		return VERDICT_OVER;
	if (in_map && (closed[FLOW_CLIENT] || closed[FLOW_TARGET]))
		return judge_closed_in_map(loop, flow, closed[FLOW_CLIENT] ? FLOW_CLIENT : FLOW_TARGET, ledger);
	if (closed[FLOW_CLIENT] || closed[FLOW_TARGET])
		return judge_closed(loop, flow, closed[FLOW_CLIENT] ? FLOW_CLIENT : FLOW_TARGET, ended, ledger);
	if (ledger_sent_end(&ledger[FLOW_CLIENT]) && ledger_sent_end(&ledger[FLOW_TARGET]))
		return VERDICT_OVER;
	return VERDICT_GO_ON;
}

/* --- flows --- */

/* A few bytes, in two's complement. */
static bool is_offset(uint64_t offset)
{
	return offset == (uint64_t)(int32_t)offset;
}

static void fill_common(struct loop *loop, struct flow *flow, const struct keep_flow *message)
{
	struct flow_way way = *flow_way(&loop->flows, flow);
	const struct flow_ledger ledger = { .base = { message->base_up, message->base_down },
		.offset = { (int32_t)message->offset_up, (int32_t)message->offset_down } };

	way.idle_timeout_ms = message->idle_timeout_ms;
	flow_set_way(&loop->flows, flow, &way);
	flow_set_ledger(&loop->flows, flow, &ledger);
}

static int flow_fill(struct loop *loop, struct flow *flow, const struct keep_flow *message, int fds[2])
{
	struct flow_origin origin;
	int r;

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		/* Likely, and shown to be wrong by the first system call if it is. */
		flow->end[side] = (struct flow_end){ .fd = TAKE_FD(fds[side]), .readable = true, .writable = true };
		/* Whoever the dead relay was: nothing that it sends may make us wait. */
		(void)fcntl(flow->end[side].fd, F_SETFL, O_NONBLOCK);
	}
	flow->state = FLOW_RELAYING;
	flow->mode = loop->mode & 7U;
	flow->kept =
	        (struct flow_kept){ .epoch = loop->keep.epoch & FLOW_EPOCH_MASK, .shared = true, .measured = true };
	r = keep_get_origin(message, &origin);
	if (r < 0 || message->mover_up >= KEEP_MOVERS || message->mover_down >= KEEP_MOVERS ||
	        !is_offset(message->offset_up) || !is_offset(message->offset_down))
		return -EBADMSG;
	flow_put_origin(&loop->flows, flow, &origin);
	fill_common(loop, flow, message);
	flow->account.started_us = origin.started_ms * 1000;
	return 0;
}

static void tell_broken(const struct flow *flow)
{
	char id[20];

	snprintf(id, sizeof(id), "%016" PRIx64, flow->id); /* as the API writes it */
	log_write_about(
	        LOG_WARNING, LOG_ABOUT(LOG_TEXT("FLOW", id)), "flow %s cannot go on: its counters do not add up", id);
}

/* Whether its bytes go on; then it is one of ours. */
static bool flow_restore(struct loop *loop, struct flow *flow, const struct keep_flow *message, bool in_map,
        const struct ledger ledger[FLOW_SIDES])
{
	uint32_t quiet_ms = ledger[FLOW_CLIENT].quiet_ms < ledger[FLOW_TARGET].quiet_ms ? ledger[FLOW_CLIENT].quiet_ms
	                                                                                : ledger[FLOW_TARGET].quiet_ms;
	uint32_t idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms;

	flow->active_ms = loop->now_ms > quiet_ms ? loop->now_ms - quiet_ms : 0;
	if (!direction_restore(loop, flow, FLOW_CLIENT, ledger, message->mover_up) ||
	        !direction_restore(loop, flow, FLOW_TARGET, ledger, message->mover_down))
		return false;
	if (life_poll(loop, flow, FLOW_CLIENT) < 0 || life_poll(loop, flow, FLOW_TARGET) < 0)
		return false;
	if (idle_timeout_ms > 0)
		wheel_set(&loop->wheel, &flow->timer, flow->active_ms + idle_timeout_ms);
	if (loop->shortcut)
		wheel_set(&loop->wheel, &flow->timer, loop->now_ms + STITCH_LOOK_MS);
	if (in_map) {
		wheel_set(&loop->wheel, &flow->timer, loop->now_ms + SOCKMAP_ACCOUNT_MS);
		loop_queue(loop, flow);
	}
	return true;
}

/* The relay before may have died between the last end of stream and counting that the flow has ended. */
static bool end_was_counted(const struct loop *loop, const struct flow *flow)
{
	return !loop->place.memory || !stats_flow_is_shown(loop->place.memory, flow->id);
}

/* The flow begins to live here, with what was known of it before. */
static void begin_again(struct loop *loop, struct flow *flow)
{
	struct flow_way way = *flow_way(&loop->flows, flow);
	struct stats_flow before;
	bool known = heir_find(&loop->keep.adopt.heir, loop->place.memory, flow->id, &before);

	if (known) {
		way.ifindex = before.ifindex;
		flow_set_way(&loop->flows, flow, &way);
		flow->route = before.route;
		flow->n_tried = before.status.retries;
		flow->account.connect_us = before.status.connect_us;
		shape_inherit(loop, flow, before.limit, before.status.at_rate);
	}
	shape_read(loop, flow);
	life_begin(loop, flow, true);
	if (known && *before.sni)
		account_name(loop, flow, before.sni, strlen(before.sni));
}

/* It cannot go on: what was known of it is told once more. */
static void lose(struct loop *loop, struct flow *flow)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	struct stats_flow before;

	if (!heir_find(&loop->keep.adopt.heir, loop->place.memory, flow->id, &before))
		before = account_row_of(&origin, IPPROTO_TCP);
	record_end_flow(loop, &before, FLOW_END_lost);
	life_lose(loop, flow);
}

/* The kernel carries it: its sockets are as they were when that began, and only what had moved by then is read from
 * them. */
static void take_over_carried(struct loop *loop, struct flow *flow, const struct keep_flow *message)
{
	const uint8_t movers[FLOW_SIDES] = { message->mover_up, message->mover_down };

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		struct flow_direction *direction = &flow->direction[side];
		struct ledger ledger;

		direction->mover = mover_for(loop, movers[side]);
		direction->store = UINT32_MAX;
		direction->moved = true;
		if (ledger_read(flow->end[side].fd, &ledger) == 0)
			direction->taken = ledger.taken - flow_ledger(&loop->flows, flow).base[side];
	}
	begin_again(loop, flow);
	loop->keep.adopt.adopted++;
	tcp_stitch_adopt(loop, flow);
	wheel_set(&loop->wheel, &flow->timer, loop->now_ms + STITCH_LOOK_MS);
}

static void flow_take_over(struct loop *loop, struct flow *flow, const struct keep_flow *message)
{
	struct ledger ledger[FLOW_SIDES];
	bool in_map = tcp_sockmap_find(loop, flow);
	enum verdict verdict;

	if (tcp_stitch_find(loop, flow)) {
		take_over_carried(loop, flow, message);
		return;
	}
	verdict = judge(loop, flow, message->ended, in_map, ledger);

	if ((verdict == VERDICT_GO_ON || verdict == VERDICT_BROKEN) &&
	        !flow_restore(loop, flow, message, in_map, ledger)) {
		if (verdict == VERDICT_GO_ON)
			tell_broken(flow);
		verdict = verdict == VERDICT_GO_ON ? VERDICT_WRONG : VERDICT_RESET;
	}
	if (verdict == VERDICT_WRONG) {
		lose(loop, flow);
		return;
	}
	if (verdict == VERDICT_OVER && end_was_counted(loop, flow)) {
		loop->keep.adopt.over++;
		life_forget(loop, flow);
		return;
	}
	begin_again(loop, flow);
	loop->keep.adopt.adopted++;
	if (verdict == VERDICT_RESET)
		life_reset(loop, flow, FLOW_END_reset);
	else if (verdict == VERDICT_OVER)
		life_close(loop, flow, FLOW_END_closed);
}

static int on_flow(struct loop *loop, const struct keep_flow *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	struct flow *flow = fds[0] >= 0 && fds[1] >= 0 ? flow_alloc(&loop->flows) : NULL;
	int r;

	if (!flow) { /* no room, or the limit of descriptors has cut the record */
		stats_add(loop->stats, STATS_flows_lost, 1);
		loop_warn(loop, STATS_flows_lost, -EMFILE);
		return 0;
	}
	r = flow_fill(loop, flow, message, fds);
	if (r < 0)
		life_lose(loop, flow);
	else
		flow_take_over(loop, flow, message);
	return r;
}

static int on_end(struct loop *loop)
{
	struct adopt *adopt = &loop->keep.adopt;
	uint32_t adopted = adopt->adopted, over = adopt->over;

	adopt_clear(adopt);
	adopt->adopted = adopted;
	adopt->over = over;
	adopt->answer_due = true;
	log_info("%u flows taken over, %u had ended", (unsigned)adopted, (unsigned)over);
	return 0;
}

static int handle(struct loop *loop, const struct keep_message *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	struct adopt *adopt = &loop->keep.adopt;

	switch (message->type) { /* only some go downward */
	case KEEP_STORES:
		return on_stores(adopt, &message->stores, fds[0]);
	case KEEP_PIPE:
		return on_pipe(adopt, &message->pipe, fds);
	case KEEP_FLOW:
		return on_flow(loop, &message->flow, fds);
	case KEEP_END:
		return on_end(loop);
	default:
		return -EBADMSG;
	}
}

int adopt_message(struct loop *loop, const struct keep_message *message, int fds[KEEP_DESCRIPTORS_EACH])
{
	int r = handle(loop, message, fds);

	for (unsigned i = 0; i < KEEP_DESCRIPTORS_EACH; i++)
		cleanup_close(&fds[i]);
	return r;
}
