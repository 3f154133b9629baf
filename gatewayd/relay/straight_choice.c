/* Ports for which SYNs are taken; see straight_choice.h. */
#include "gatewayd/relay/straight_choice.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_straight.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/route_ask.h"
#include "gatewayd/relay/straight.h"

#define PORTS   65536
#define LOOK_MS 1000

/* Ports that threads have chosen, each with its own count. */
static atomic_uint often;

int straight_choice_init(struct straight_choice *choice)
{
	choice->came = calloc(PORTS, sizeof(*choice->came));
	choice->ways = calloc(STRAIGHT_WAYS_MAX, sizeof(*choice->ways));
	choice->fd = route_ask_open();
	return choice->came && choice->ways ? 0 : -ENOMEM;
}

void straight_choice_destroy(struct straight_choice *choice)
{
	if (choice->fd >= 0)
		close(choice->fd);
	free(choice->came);
	free(choice->ways);
}

/* --- what is told to the filter --- */

static int choices(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_CHOICE];
}

static void put(const struct loop *loop, uint16_t port, enum bpf_straight_choice what)
{
	uint32_t key = port, value = bpf_straight_choice((uint32_t)getpid(), what);

	(void)bpf_map_put(choices(loop), &key, &value);
}

static bool is(const struct loop *loop, uint16_t port, enum bpf_straight_choice what)
{
	uint32_t key = port, value;

	return bpf_map_get(choices(loop), &key, &value) == 0 && value == bpf_straight_choice((uint32_t)getpid(), what);
}

/* --- what is chosen --- */

static struct straight_chosen *find(struct straight_choice *choice, uint16_t port)
{
	for (unsigned i = 0; i < choice->n; i++)
		if (choice->chosen[i].port == port)
			return &choice->chosen[i];
	return NULL;
}

static void timer_begin(struct loop *loop)
{
	struct straight_choice *choice = &loop->straight.choice;

	if (!wheel_is_set(&choice->timer))
		wheel_set(&loop->wheel, &choice->timer, loop->now_ms + LOOK_MS);
}

/* A place for the port; NULL: all are taken. */
static struct straight_chosen *add(struct loop *loop, uint16_t port)
{
	struct straight_choice *choice = &loop->straight.choice;

	if (choice->n == STRAIGHT_CHOSEN_MAX)
		return NULL;
	timer_begin(loop);
	choice->chosen[choice->n] = (struct straight_chosen){ .port = port };
	return &choice->chosen[choice->n++];
}

bool straight_choice_any(void)
{
	return atomic_load_explicit(&often, memory_order_relaxed) > 0;
}

/* One more connection to the port. Whether they are so many that it is to be chosen. */
static bool count(struct loop *loop, uint16_t port, const struct addr *target)
{
	struct straight_choice *choice = &loop->straight.choice;
	struct straight_came *came = &choice->came[port];
	uint32_t second = (uint32_t)(loop->now_ms / 1000);

	if (came->second != second)
		*came = (struct straight_came){ .second = second, .before = came->second + 1 == second ? came->n : 0 };
	if (came->n < UINT16_MAX)
		came->n++;
	if (came->n + STRAIGHT_ASKED < STRAIGHT_OFTEN || came->n > STRAIGHT_OFTEN || find(choice, port))
		return false;
	if (!straight_choice_reaches(loop, target))
		came->n = 0;
	return came->n == STRAIGHT_OFTEN;
}

void straight_choice_came(struct loop *loop, uint16_t port, const struct addr *target)
{
	if (!count(loop, port, target) || is(loop, port, BPF_STRAIGHT_PASS) || !add(loop, port))
		return;
	atomic_fetch_add_explicit(&often, 1, memory_order_relaxed);
	put(loop, port, BPF_STRAIGHT_OFTEN);
	straight_configured(loop);
}

void straight_choice_pass(struct loop *loop, uint16_t port)
{
	struct straight_choice *choice = &loop->straight.choice;
	struct straight_chosen *chosen = find(choice, port);

	if (!chosen)
		chosen = add(loop, port);
	else if (!chosen->passes)
		atomic_fetch_sub_explicit(&often, 1, memory_order_relaxed);
	put(loop, port, BPF_STRAIGHT_PASS);
	if (!chosen)
		return; /* until this relay ends */
	chosen->passes = true;
	chosen->until_ms = loop->now_ms + STRAIGHT_PASS_MS;
}

/* What came in the last whole second, or has come in this one already. */
static uint32_t rate_of(const struct straight_came *came, uint32_t second)
{
	if (came->second == second)
		return came->n > came->before ? came->n : came->before;
	return came->second + 1 == second ? came->n : 0;
}

/* A second has gone by. Whether the port stays chosen. */
static bool look_at(struct loop *loop, struct straight_chosen *chosen)
{
	uint32_t rate = rate_of(&loop->straight.choice.came[chosen->port], (uint32_t)(loop->now_ms / 1000));

	if (chosen->passes)
		return loop->now_ms < chosen->until_ms;
	if (is(loop, chosen->port, BPF_STRAIGHT_PASS))
		return false;
	if (rate >= STRAIGHT_SELDOM)
		chosen->quiet = 0;
	else if (++chosen->quiet >= STRAIGHT_QUIET_S)
		return false;
	if (!is(loop, chosen->port, BPF_STRAIGHT_OFTEN))
		put(loop, chosen->port, BPF_STRAIGHT_OFTEN); /* another thread has given it up */
	return true;
}

void straight_choice_timer(struct loop *loop)
{
	struct straight_choice *choice = &loop->straight.choice;

	for (unsigned i = 0; i < choice->n;) {
		struct straight_chosen *chosen = &choice->chosen[i];

		if (look_at(loop, chosen)) {
			i++;
			continue;
		}
		if (!chosen->passes)
			atomic_fetch_sub_explicit(&often, 1, memory_order_relaxed);
		if (is(loop, chosen->port, chosen->passes ? BPF_STRAIGHT_PASS : BPF_STRAIGHT_OFTEN))
			put(loop, chosen->port, BPF_STRAIGHT_NEITHER);
		*chosen = choice->chosen[--choice->n];
	}
	straight_configured(loop);
	if (choice->n > 0)
		wheel_set(&loop->wheel, &choice->timer, loop->now_ms + LOOK_MS);
}

/* --- ways --- */

static bool ask(struct loop *loop, const struct addr *target)
{
	uint32_t ifindex = route_ask(loop->straight.choice.fd, target), value;

	return ifindex && bpf_map_get(loop->shortcut->fd[PROTO_SHORTCUT_INTERFACES], &ifindex, &value) == 0;
}

bool straight_choice_reaches(struct loop *loop, const struct addr *target)
{
	uint32_t words[4];
	struct straight_way *way;

	memcpy(words, target->bytes, sizeof(words));
	words[0] = (words[0] ^ words[1] ^ words[2] ^ words[3]) * UINT32_C(2654435761);
	way = &loop->straight.choice.ways[(words[0] >> 16) % STRAIGHT_WAYS_MAX];
	if (loop->now_ms >= way->until_ms || !addr_equal(&way->to, target))
		*way = (struct straight_way){
			.to = *target, .translated = ask(loop, target), .until_ms = loop->now_ms + STRAIGHT_WAY_MS
		};
	return way->translated;
}
