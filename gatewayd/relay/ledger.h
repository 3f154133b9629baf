/*
 * The kernel's own counters as the journal of a relayed flow: how many bytes
 * were taken from a socket and how many given to one, to the byte, whoever did
 * it and however that process ended. Read when a flow becomes a kept one and
 * when it is adopted, never in between.
 *
 * Theory of operation. For each direction from A to B
 *     taken(A) = tcpi_bytes_received - received end of stream (1) - unread
 *     given(B) = tcpi_bytes_acked + bytes written and not yet acknowledged
 * Both are monotonic, and only the relay changes their difference, which is
 * what it has in hand: taken(A) - given(B) = in hand + offset. The constant
 * offset is measured once, when the flow becomes kept, or before that goes into
 * the sockmap: as long as the relay knows what is in hand. It covers the SYN
 * that the kernel counts as a byte, and all that was put into the stream or
 * taken out of it before (a PROXY header). base is the same for taken(A)
 * against the relay's own count of moved bytes.
 *
 * The sum for given(B) is exact at any moment; bytes_sent - bytes_retrans +
 * notsent is not: a packet that the local queue discipline or an output chain
 * drops is counted as sent and then sent again as new.
 *
 * A number can change while the two system calls of a sum are made (bytes
 * arrive, acknowledgements arrive): the first is read again, until it is the
 * same before and after.
 */
#ifndef GW_RELAY_LEDGER_H
#define GW_RELAY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/* Tries for a reading that nothing interfered with. Packets come in microseconds, a try takes one. */
#define LEDGER_TRIES 256

/* What a socket's state says of the two ends of stream. */
enum ledger_life {
	LEDGER_OPEN,     /* neither received nor sent */
	LEDGER_RECEIVED, /* the peer has ended its stream */
	LEDGER_SENT,     /* we have */
	LEDGER_BOTH,     /* both have */
	LEDGER_CLOSED, /* nothing is sent any more: both have and all is acknowledged, or a reset; not to be told apart
	                * from the state alone */
	LEDGER_NO_STREAM, /* no connection: not a socket of a relayed flow */
};

struct ledger {
	uint8_t life;      /* enum ledger_life */
	uint64_t taken;    /* in state CLOSED a received end of stream counts as a byte */
	uint64_t given;    /* with our end of stream, if it was sent, as a byte */
	uint32_t unread;   /* bytes that wait to be taken */
	uint32_t quiet_ms; /* since bytes were last received or sent */
};

/* Reads the counters of a TCP socket. 0, -EAGAIN (they never stood still), or another negative errno. */
int ledger_read(int fd, struct ledger *ret);
/* Whether the peer has ended its stream, and whether we have; false in state CLOSED. */
bool ledger_received_end(const struct ledger *ledger);
bool ledger_sent_end(const struct ledger *ledger);
/* Whether an error waits at a socket; it goes on waiting, for to fetch it would be to lose it. */
bool ledger_has_error(int fd);

#endif
