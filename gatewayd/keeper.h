/*
 * Holds the descriptors of the relay's flows, so that they outlive the relay.
 * Each relay thread tells over a channel of its own which flows to hold and
 * which have ended (base/keep.h); when the relay is dead, all that is held is
 * handed to the next one. Called by worker.c; moves no byte and knows nothing
 * of a flow but its name and its sockets.
 *
 * Theory of operation. What one thread of one relay leaves behind besides its
 * flows is its lot: the memory with bytes in flight and its pipes. A flow is
 * HELD while a relay that lives has it too, ORPHAN when its relay has died and
 * OFFERED when it has been sent to the next one, which has not yet said that it
 * has taken over everything. Lots of the dead are kept until then, because a
 * relay that dies in the middle leaves flows whose bytes lie in older lots. A
 * flow that was being taken over by several relays when they crashed, and that
 * may be what they crashed of, is let go.
 *
 * A relay may say what it likes: what does not fit its place is nonsense, and
 * the owner kills it. Kept descriptors get high numbers, for libraries in this
 * process use select(), which must not see a number above 1023.
 */
#ifndef GW_KEEPER_H
#define GW_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

/* Kept descriptors have numbers from here on: FD_SETSIZE. */
#define KEEPER_FD_LEAST 1024
/* A flow is let go when so many relays in a row have crashed on taking over what it was among. */
#define KEEPER_CRASHES_MAX 3
/* Lots of dead relays; what is older is let go, and flows with bytes in it end. */
#define KEEPER_LOTS_MAX 256

struct keeper_owner {
	void *userdata;
	/* The relay says what makes no sense, or has closed a channel. Not to call keeper_orphan from within. */
	void (*nonsense)(void *userdata, const char *why);
	/* The relay has taken over all it was offered. */
	void (*settled)(void *userdata);
};

struct keeper_counts {
	uint64_t kept;    /* flows held now */
	uint64_t adopted; /* taken over by a next relay so far */
	uint64_t over;    /* of those that were held when a relay died, had ended already */
	uint64_t refused; /* could not be held: no room or no descriptors */
	uint64_t pipes;
};

struct keeper;

/* threads: of the relay; bounds the room for pipes. Raises this process's limit of descriptors as far as it goes and
 * holds as many flows as it allows, max_flows at most. 0 or -ENOMEM. */
int keeper_new(
        sd_event *event, unsigned threads, uint32_t max_flows, const struct keeper_owner *owner, struct keeper **ret);
/* Closes everything: flows that no relay has end in a reset. */
void keeper_free(struct keeper *keeper);

/* Makes the channel of one thread of a new relay. ret_fd is the relay's end and the caller's. 0 or a negative errno. */
int keeper_channel(struct keeper *keeper, unsigned thread, int *ret_fd);
/* All `threads` channels are made: hands the orphans to them. */
void keeper_offer(struct keeper *keeper, unsigned threads);
/* The relay is dead: hears what it still said, and makes orphans of its flows. crashed: by its own fault. How many
 * flows are held now. */
uint32_t keeper_orphan(struct keeper *keeper, bool crashed);

/* Whether the flow of this id is held. */
bool keeper_holds(const struct keeper *keeper, uint64_t id);
/* What is held now, and what became of flows since the start of the daemon. */
void keeper_get_counts(const struct keeper *keeper, struct keeper_counts *ret);

#endif
