/*
 * The marks of the relay's sockets, which the ruleset looks at (rules/
 * render_chains.c): two bits of those that are ours beside the mark of
 * intercepted packets. The daemon puts both on the sockets that it hands to
 * the relay, which finds them there and puts them on those that it makes.
 */
#ifndef GW_BASE_SOCKMARK_H
#define GW_BASE_SOCKMARK_H

#include <stdint.h>

struct sockmark {
	/* On a UDP socket that is connected: what is sent to it is the relay's, whatever the listeners say. On a
	 * listening TCP socket, and so on those it accepts, not on those to targets: the packets are a client's. */
	uint32_t own;
	/* ICMP errors about the socket's packets are for whom they are addressed to: they are forwarded. */
	uint32_t errors;
};

/* The two lowest of the bits; a member is 0 if there are fewer. */
static inline struct sockmark sockmark_of(uint32_t bits)
{
	struct sockmark mark = { .own = bits & (~bits + 1) };

	bits &= ~mark.own;
	mark.errors = bits & (~bits + 1);
	return mark;
}

#endif
