/*
 * For which ports SYNs are taken (straight.c), as far as the relay decides it:
 * those of listeners with `mover: auto` where connections come often, and not
 * those whose packets would go where nobody translates them.
 *
 * Theory of operation. The daemon says for which ports SYNs may be taken, and
 * for which they always are (base/bpf_straight.h). For the rest a thread counts
 * what comes, and chooses a port when it is worth it: one second with
 * STRAIGHT_OFTEN connections. It looks once a second, and gives a port up when
 * it has been quiet for a while. A target that is reached by an interface
 * without our program makes its port pass: its connections go by sockets for
 * STRAIGHT_PASS_MS.
 *
 * What is chosen is written for all threads, with the number of this process:
 * the choice of a relay that is gone counts for nothing.
 */
#ifndef GW_RELAY_STRAIGHT_CHOICE_H
#define GW_RELAY_STRAIGHT_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/relay/wheel.h"

struct loop;
struct config_listener;

/* Connections to a port in a second and one thread that make it worth it. */
#define STRAIGHT_OFTEN 200
/* The last ones of these are asked whether their targets' answers would be translated. */
#define STRAIGHT_ASKED 16
/* With less than this for STRAIGHT_QUIET_S seconds it is not any more. */
#define STRAIGHT_SELDOM  50
#define STRAIGHT_QUIET_S 10
/* A port passes for so long. */
#define STRAIGHT_PASS_MS (60 * 1000)
/* Ports of a thread that are chosen at once. */
#define STRAIGHT_CHOSEN_MAX 64
/* Targets of a thread whose ways are remembered, for STRAIGHT_WAY_MS. */
#define STRAIGHT_WAYS_MAX 256
#define STRAIGHT_WAY_MS   1000

/* What came to a port in this second, and in the one before. */
struct straight_came {
	uint32_t second;
	uint16_t n, before;
};

struct straight_chosen {
	uint16_t port;
	bool passes;
	uint8_t quiet;     /* seconds */
	uint64_t until_ms; /* of one that passes */
};

struct straight_way {
	struct addr to;
	bool translated; /* answers come by an interface with our program */
	uint64_t until_ms;
};

struct straight_choice {
	int fd; /* to ask for ways; -1: none */
	unsigned n;
	struct straight_came *came; /* by port */
	struct straight_way *ways;
	struct straight_chosen chosen[STRAIGHT_CHOSEN_MAX];
	struct wheel_entry timer;
};

/* 0 or a negative errno. */
int straight_choice_init(struct straight_choice *choice);
void straight_choice_destroy(struct straight_choice *choice);
/* A connection for this port and of this target, of a listener that leaves the choice to us; by sockets or without. */
void straight_choice_came(struct loop *loop, uint16_t port, const struct addr *target);
/* Whether what a target answers comes by an interface whose packets are translated. */
bool straight_choice_reaches(struct loop *loop, const struct addr *target);
/* Connections for this port go by sockets for a while. */
void straight_choice_pass(struct loop *loop, uint16_t port);
/* Whether any thread has chosen a port. */
bool straight_choice_any(void);
/* The timer has fired. */
void straight_choice_timer(struct loop *loop);

#endif
