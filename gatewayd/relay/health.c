/* The health thread; see health.h, health_check.h for checks and health_rule.h for what they lead to. */
#include "gatewayd/relay/health.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/relay/config.h"
#include "gatewayd/relay/health_check.h"

/* The loops' wheel has ticks of 64 ms, too coarse for checks each 100 ms: here it counts eighths of a millisecond, and
 * so has ticks of 8 ms and a span of 8 s. */
#define WHEEL_UNITS_PER_MS 8
/* Orders that may wait; a power of two. A thread that lets so many pile up hangs. */
#define ORDERS_MAX 256
#define EVENTS     256

struct health {
	int epoll_fd, wake_fd, reply_fd;
	struct health_pool pool;
	struct health_table table;
	struct wheel wheel;
	struct stats_memory *memory; /* NULL: none yet, nothing is checked */
	struct health_target *queue; /* the last of those that wait for room in the pool; its `queue` is the first */
	uint64_t now_us, now_ms;
	uint64_t random;
	bool news; /* something for the control thread */
	pthread_t thread;
	_Alignas(64) _Atomic uint32_t orders_head; /* next to be written */
	_Alignas(64) _Atomic uint32_t orders_tail; /* next to be carried out */
	_Atomic uint64_t done, changes, resets;
	_Atomic int apply_result;
	struct health_order orders[ORDERS_MAX];
};

/* --- time and chance --- */

static void clock_read(struct health *health)
{
	health->now_us = clock_us();
	health->now_ms = health->now_us / 1000;
}

/* Below n, which is not 0. Nothing depends on its quality. */
static uint64_t random_below(struct health *health, uint64_t n)
{
	health->random ^= health->random << 13;
	health->random ^= health->random >> 7;
	health->random ^= health->random << 17;
	return health->random % n;
}

static void timer_set(struct health *health, struct health_target *target, uint64_t due_ms)
{
	target->due_ms = due_ms;
	wheel_set(&health->wheel, &target->timer, due_ms * WHEEL_UNITS_PER_MS);
}

/* From the beginning of one check to that of the next. */
static uint64_t pause_ms(struct health *health, const struct health_target *target)
{
	uint64_t interval = target->upstream->rules.interval_ms, part = interval / HEALTH_JITTER_PART;

	return interval - part + random_below(health, 2 * part + 1);
}

/* --- what is written --- */

static void add(_Atomic uint64_t *word, uint64_t amount)
{
	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + amount, memory_order_relaxed);
}

/* NULL if there is no place for it, or the place is another target's by now. */
static struct target_state *state_of(const struct health *health, const struct health_target *target)
{
	if (!health->memory || target->slot >= STATS_SLOTS_MAX ||
	        atomic_load_explicit(&health->memory->id[target->slot], memory_order_relaxed) != target->id)
		return NULL;
	return stats_target(health->memory, target->slot);
}

static void tell(struct health *health, const struct health_target *target, const struct target_state *state)
{
	add(&health->changes, 1);
	if (target->upstream->rules.reset &&
	        atomic_load_explicit(&state->health, memory_order_relaxed) == TARGET_HEALTH_DOWN)
		add(&health->resets, 1);
	health->news = true;
}

/* A check is over: what it means, and when the next one is. */
static void conclude(
        struct health *health, struct health_target *target, const struct health_verdict *verdict, uint64_t started_us)
{
	const struct proto_health_put *rules = &target->upstream->rules;
	struct health_rule rule = { .rise = rules->rise, .fall = rules->fall };
	struct target_state *state = state_of(health, target);
	uint64_t next_ms = health_rule_meet(started_us / 1000 + pause_ms(health, target), rules->interval_ms);

	add(&health->memory->health.checks, 1);
	if (verdict->cause != TARGET_CAUSE_OK)
		add(&health->memory->health.failures, 1);
	if (state && health_rule_note(&rule, &target->streak, state, verdict, health->now_ms))
		tell(health, target, state);
	timer_set(health, target, next_ms > health->now_ms ? next_ms : health->now_ms + 1);
}

/* --- those that wait for room --- */

static void queue_push(struct health *health, struct health_target *target)
{
	if (target->waiting)
		return;
	target->waiting = true;
	target->queue = health->queue ? health->queue->queue : target;
	if (health->queue)
		health->queue->queue = target;
	health->queue = target;
	add(&health->memory->health.late, 1);
}

static struct health_target *queue_pop(struct health *health)
{
	struct health_target *first = health->queue ? health->queue->queue : NULL;

	if (!first)
		return NULL;
	if (first == health->queue)
		health->queue = NULL;
	else
		health->queue->queue = first->queue;
	first->waiting = false;
	return first;
}

/* Takes it out wherever it stands; rare. */
static void queue_remove(struct health *health, const struct health_target *target)
{
	struct health_target *last = health->queue, *before = last;

	if (!target->waiting)
		return;
	while (before->queue != target)
		before = before->queue;
	before->queue = target->queue;
	if (last == target)
		health->queue = before == target ? NULL : before;
}

/* --- checks --- */

static void check_begin(struct health *health, struct health_target *target)
{
	struct health_verdict verdict;

	/* Others may have begun since the turn did, and each takes its time. */
	clock_read(health);
	if (health_check_begin(&health->pool, target, health->now_us, &verdict) == 0)
		timer_set(health, target, health->now_ms + target->upstream->rules.timeout_ms);
	else
		conclude(health, target, &verdict, health->now_us);
}

static void check_finish(struct health *health, struct health_check *check, const struct health_verdict *verdict)
{
	struct health_target *target = check->target;
	uint64_t started_us = check->started_us;

	health_check_end(&health->pool, check, verdict->cause == TARGET_CAUSE_OK);
	conclude(health, target, verdict, started_us);
}

static void check_due(struct health *health, struct health_target *target)
{
	struct health_verdict late = { .cause = TARGET_CAUSE_TIMEOUT, .detail = target->upstream->rules.timeout_ms };

	if (health->now_ms < target->due_ms)
		timer_set(health, target, target->due_ms);
	else if (target->check)
		check_finish(health, target->check, &late);
	else if (health_pool_has_room(&health->pool))
		check_begin(health, target);
	else
		queue_push(health, target);
}

static void timer_fired(struct wheel_entry *entry, void *context)
{
	check_due(context, (struct health_target *)((char *)entry - offsetof(struct health_target, timer)));
}

static void run_queue(struct health *health)
{
	struct health_target *target;

	while (health_pool_has_room(&health->pool) && (target = queue_pop(health)))
		check_begin(health, target);
}

/* --- the configuration --- */

static void target_stop(struct health *health, struct health_target *target)
{
	wheel_clear(&health->wheel, &target->timer);
	queue_remove(health, target);
	target->waiting = false;
	if (target->check)
		health_check_end(&health->pool, target->check, false);
}

static void target_gone(void *userdata, struct health_target *target)
{
	target_stop(userdata, target);
}

/* What was found so far stays until checks of the new kind say otherwise, unless there are none any more. */
static void target_changed(void *userdata, struct health_target *target)
{
	struct health *health = userdata;
	uint64_t interval = target->upstream->rules.interval_ms;
	struct target_state *state = state_of(health, target);

	target_stop(health, target);
	target->streak = (struct health_streak){ 0 };
	if (health->memory && health_table_port(target))
		timer_set(health, target,
		        health->now_ms +
		                random_below(health, interval < HEALTH_SPREAD_MS ? interval + 1 : HEALTH_SPREAD_MS));
	else if (state && !health_table_port(target) && health_rule_forget(&target->streak, state, health->now_ms))
		tell(health, target, state);
}

static void each_target(struct health *health, void (*function)(void *userdata, struct health_target *target))
{
	for (size_t i = 0; i < health->table.upstreams.n; i++) {
		const struct health_upstream *upstream = health->table.upstreams.items[i].value;

		for (size_t j = 0; j < upstream->targets.n; j++)
			function(health, upstream->targets.items[j].value);
	}
}

static void count_checked(void *userdata, struct health_target *target)
{
	struct health *health = userdata;

	if (health_table_port(target))
		atomic_fetch_add_explicit(&health->memory->health.targets, 1, memory_order_relaxed);
}

static void count_targets(struct health *health)
{
	if (!health->memory)
		return;
	atomic_store_explicit(&health->memory->health.targets, 0, memory_order_relaxed);
	each_target(health, count_checked);
}

/* --- orders --- */

int health_order(struct health *health, const struct health_order *order)
{
	uint32_t head = atomic_load_explicit(&health->orders_head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&health->orders_tail, memory_order_acquire);
	static const uint64_t one = 1;

	if (head - tail == ORDERS_MAX)
		return -EAGAIN;
	health->orders[head % ORDERS_MAX] = *order;
	atomic_store_explicit(&health->orders_head, head + 1, memory_order_release);
	return write(health->wake_fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

static void carry_out(struct health *health, const struct health_order *order)
{
	switch (order->kind) {
	case HEALTH_ORDER_APPLY:
		atomic_store_explicit(&health->apply_result, config_batch_apply_health(order->batch, &health->table),
		        memory_order_relaxed);
		count_targets(health);
		break;
	case HEALTH_ORDER_MEMORY:
		health->memory = order->memory;
		each_target(health, target_changed);
		count_targets(health);
		break;
	case HEALTH_ORDER_PING:
		break;
	}
	atomic_store_explicit(&health->done, order->sequence, memory_order_release);
}

static void orders_read(struct health *health)
{
	uint32_t tail = atomic_load_explicit(&health->orders_tail, memory_order_relaxed);
	uint64_t rung;

	(void)!read(health->wake_fd, &rung, sizeof(rung));
	while (tail != atomic_load_explicit(&health->orders_head, memory_order_acquire)) {
		carry_out(health, &health->orders[tail % ORDERS_MAX]);
		atomic_store_explicit(&health->orders_tail, ++tail, memory_order_release);
		health->news = true;
	}
}

uint64_t health_done(const struct health *health)
{
	return atomic_load_explicit(&health->done, memory_order_acquire);
}

int health_apply_result(const struct health *health)
{
	return atomic_load_explicit(&health->apply_result, memory_order_relaxed);
}

uint64_t health_changes(const struct health *health)
{
	return atomic_load_explicit(&health->changes, memory_order_acquire);
}

uint64_t health_resets(const struct health *health)
{
	return atomic_load_explicit(&health->resets, memory_order_acquire);
}

/* --- the thread --- */

static int wait_ms(const struct health *health, int longest_ms)
{
	int units = wheel_timeout(&health->wheel, health->now_ms * WHEEL_UNITS_PER_MS);
	int ms = units < 0 ? -1 : (units + WHEEL_UNITS_PER_MS - 1) / WHEEL_UNITS_PER_MS;

	return longest_ms >= 0 && (ms < 0 || ms > longest_ms) ? longest_ms : ms;
}

static void tell_control(struct health *health)
{
	static const uint64_t one = 1;

	if (health->memory)
		atomic_store_explicit(&health->memory->health.under_way, health->pool.busy, memory_order_relaxed);
	if (!health->news)
		return;
	health->news = false;
	(void)!write(health->reply_fd, &one, sizeof(one));
}

/* Orders come last: an event that was fetched with them may be of a check that an order ends. */
void health_turn(struct health *health, int longest_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(health->epoll_fd, events, EVENTS, wait_ms(health, longest_ms));
	bool ordered = false;

	clock_read(health);
	for (int i = 0; i < n; i++) {
		struct health_check *check = events[i].data.ptr;
		struct health_verdict verdict;

		if (!check)
			ordered = true;
		else if (check->target && health_check_event(check, events[i].events, health->now_us, &verdict))
			check_finish(health, check, &verdict);
	}
	wheel_advance(&health->wheel, health->now_ms * WHEEL_UNITS_PER_MS, timer_fired, health);
	run_queue(health);
	if (ordered)
		orders_read(health);
	tell_control(health);
}

static void *thread_main(void *context)
{
	for (;;)
		health_turn(context, -1);
	return NULL;
}

int health_start(struct health *health)
{
	return -pthread_create(&health->thread, NULL, thread_main, health);
}

static int mailbox_init(struct health *health)
{
	struct epoll_event event = { .events = EPOLLIN };

	health->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	health->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (health->epoll_fd < 0 || health->wake_fd < 0)
		return -errno;
	return epoll_ctl(health->epoll_fd, EPOLL_CTL_ADD, health->wake_fd, &event) < 0 ? -errno : 0;
}

int health_new(int reply_fd, uint32_t max_checks, struct health **ret)
{
	struct health *health = aligned_alloc(_Alignof(struct health), sizeof(*health));
	int r;

	if (!health)
		return -ENOMEM;
	memset(health, 0, sizeof(*health));
	health->reply_fd = reply_fd;
	health->epoll_fd = health->wake_fd = -1;
	health->table = (struct health_table){ .userdata = health, .changed = target_changed, .gone = target_gone };
	clock_read(health);
	health->random = health->now_us | 1;
	wheel_init(&health->wheel, health->now_ms * WHEEL_UNITS_PER_MS);
	r = mailbox_init(health);
	if (r == 0)
		r = health_pool_init(&health->pool, health->epoll_fd, max_checks);
	if (r < 0) {
		health_free(health);
		return r;
	}
	*ret = health;
	return 0;
}

void health_free(struct health *health)
{
	if (!health)
		return;
	health_table_clear(&health->table);
	health_pool_destroy(&health->pool);
	cleanup_close(&health->wake_fd);
	cleanup_close(&health->epoll_fd);
	free(health);
}
