/* What a SYN's TCP header says, and a header with something else in it. Bytes come from outside. */
#ifndef GW_RELAY_SYN_H
#define GW_RELAY_SYN_H

#include <stddef.h>
#include <stdint.h>

#define SYN_HEADER_MAX 60

struct syn {
	uint32_t seq;
	uint8_t scale;   /* of the sender's window; 0: none */
	uint16_t mss;    /* 0: it does not say */
	uint16_t mss_at; /* where that stands in the header */
};

/* 0, or -EBADMSG: too short, or another length than it says. */
int syn_read(const uint8_t *header, size_t length, struct syn *ret);
/* Writes another largest segment; legal if it has one. */
void syn_set_mss(uint8_t *header, const struct syn *syn, uint16_t mss);

#endif
