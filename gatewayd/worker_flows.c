/*
 * The flows of a relay and their change of hands: how they are held, left
 * behind and offered to the next relay, and how a relay that lives is told to
 * hand over. See keeper.h, and worker.h for the whole.
 */
#include "gatewayd/worker_private.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/base/log.h"
#include "gatewayd/base/program.h"
#include "gatewayd/shortcut.h"
#include "gatewayd/spawn.h"

/* How long flows that still connect may take for it when their relay hands over. Meanwhile nothing new is accepted. */
#define HANDOVER_MS 1000

/* Flows that began and have not ended, by what the relays have counted. */
static uint64_t open_flows(const struct worker *worker)
{
	return stats_sum(meter_memory(worker->meter), STATS_flows_opened) -
	       stats_sum(meter_memory(worker->meter), STATS_flows_closed) -
	       stats_sum(meter_memory(worker->meter), STATS_flows_lost);
}

void worker_bequeath(struct worker *worker, unsigned bank, bool handed_over)
{
	uint32_t held = keeper_orphan(worker->keeper, worker->crashed);

	log_notice("%u flows wait for the next relay", (unsigned)held);
	worker->unaccounted = (int64_t)(open_flows(worker) - held - shortcut_straight_open(worker->owner.shortcut));
	if (worker->owner.relay_ended && bank < STATS_BANKS)
		worker->owner.relay_ended(worker->owner.userdata, bank, handed_over);
}

int worker_send_keep_channels(struct worker *worker)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < worker->relay_threads; i++) {
		struct proto_message message = { .type = PROTO_KEEP_CHANNEL, .keep_channel.thread = (uint16_t)i };
		_cleanup_close_ int fd = -1;

		r = keeper_channel(worker->keeper, i, &fd);
		if (r == 0)
			r = msg_send(worker->channel, &message, fd, WORKER_ANSWER_MS);
	}
	/* At once, before the configuration: orphans stand still until then. */
	if (r == 0)
		keeper_offer(worker->keeper, worker->relay_threads);
	return r;
}

/* A hang-up is most likely the relay's end, and its last words are still to be heard: only a relay that goes on without
 * the channel is to be killed for it (worker.c, on_ping). */
static void on_nonsense(void *userdata, const char *why)
{
	struct worker *worker = userdata;

	if (why)
		worker_kill(worker, why);
	else
		worker->keep_hung_up = true;
}

/* The next relay has taken everything over: what is missing now is lost. Of what was held, some flows had ended before
 * the death, and there is one more lost for each of them. */
static void on_settled(void *userdata)
{
	struct worker *worker = userdata;
	struct keeper_counts counts;
	int64_t lost;

	keeper_get_counts(worker->keeper, &counts);
	lost = worker->unaccounted + (int64_t)(counts.over - worker->over);
	worker->over = counts.over;
	worker->unaccounted = 0;
	if (lost > 0) {
		log_warning("%lld flows were too young to be held and are lost", (long long)lost);
		meter_add(worker->meter, STATS_flows_lost, (uint64_t)lost);
	}
}

int worker_make_keeper(struct worker *worker)
{
	struct keeper_owner owner = { worker, on_nonsense, on_settled };

	return keeper_new(worker->event, worker->threads, spawn_max_flows(worker->options), &owner, &worker->keeper);
}

uint64_t worker_flows(const struct worker *worker)
{
	return open_flows(worker);
}

void worker_kept(const struct worker *worker, struct keeper_counts *ret)
{
	keeper_get_counts(worker->keeper, ret);
}

struct stats_wanted *worker_wanted(const struct worker *worker)
{
	return meter_wanted(worker->meter);
}

struct stats_ring *worker_ring(const struct worker *worker, unsigned bank, unsigned thread)
{
	return meter_ring(worker->meter, bank, thread);
}

void worker_count(struct worker *worker, enum stats_counter counter, uint64_t amount)
{
	meter_add(worker->meter, counter, amount);
}

bool worker_holds(const struct worker *worker, uint64_t id)
{
	return keeper_holds(worker->keeper, id);
}

/* --- handing over --- */

void worker_note_hello(struct worker *worker, const struct proto_hello *hello)
{
	char today[PROGRAM_ID_MAX + 1];

	worker->foreign = hello->version != PROTO_VERSION;
	worker->relay_threads = hello->threads;
	if (worker->foreign && (worker->is_child || hello->keep_version != KEEP_VERSION)) {
		if (!worker->is_child)
			log_error("the flows of relay %d end: it keeps them by version %u, this daemon by %u",
			        (int)hello->pid, (unsigned)hello->keep_version, (unsigned)KEEP_VERSION);
		worker_kill(worker, "it speaks another version of the protocol");
	} else if (hello->threads == 0 || hello->threads > STATS_THREADS_MAX) {
		worker_kill(worker, "it has no threads that make sense");
	} else if (!worker->is_child) {
		worker->pid = (pid_t)hello->pid;
	}
	worker->outdated = program_id(worker->options->relay, today) == 0 && strcmp(today, hello->program) != 0;
}

bool worker_wants_successor(const struct worker *worker)
{
	int r;

	if (worker->state != WORKER_STARTING || worker->is_child || !(worker->foreign || worker->outdated))
		return false;
	r = spawn_probe(worker->options);
	if (r == 0)
		return true;
	log_error("%s cannot be started (%s)%s", worker->options->relay, strerror(-r),
	        worker->foreign ? "" : ": the relay that was found goes on");
	return worker->foreign;
}

static int send_handover(struct worker *worker)
{
	struct proto_message message = { .type = PROTO_HANDOVER, .handover.deadline_ms = HANDOVER_MS };
	int r = msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS);

	if (r == 0)
		r = msg_flush(worker->channel, WORKER_ANSWER_MS);
	worker->handing_over = r == 0;
	return r;
}

void worker_succeed(struct worker *worker)
{
	int r;

	log_notice("relay %d is of another build: it hands over", (int)worker->pid);
	r = worker_send_hello(worker, 0);
	if (r == 0)
		r = worker_send_keep_channels(worker);
	if (r == 0)
		r = send_handover(worker);
	if (r < 0)
		worker_kill(worker, "it does not listen");
}

struct target_state *worker_target(struct worker *worker, uint32_t id)
{
	return meter_target(worker->meter, id);
}

void worker_reap(struct worker *worker)
{
	struct proto_message message = { .type = PROTO_REAP };

	/* A relay that is just being configured looks by itself when it has its configuration. */
	if (worker->state == WORKER_RUNNING && msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS) == 0)
		(void)msg_flush(worker->channel, WORKER_ANSWER_MS);
}

int worker_probe(struct worker *worker, const struct proto_probe *probe)
{
	struct proto_message message = { .type = PROTO_PROBE, .probe = *probe };
	int r = worker->state == WORKER_RUNNING ? msg_send(worker->channel, &message, -1, 0) : -ENOENT;

	if (r == 0)
		(void)msg_flush(worker->channel, 0); /* no room: it goes with what is sent next */
	return r;
}

int worker_hand_over(struct worker *worker)
{
	int r;

	if (worker->state != WORKER_RUNNING || worker->handing_over)
		return -EBUSY;
	r = spawn_probe(worker->options);
	if (r < 0) {
		log_error("%s cannot be started (%s): the relay goes on", worker->options->relay, strerror(-r));
		return -ENOEXEC;
	}
	log_notice("relay %d hands over", (int)worker->pid);
	r = send_handover(worker);
	if (r < 0)
		worker_kill(worker, "it does not listen");
	return 0;
}
