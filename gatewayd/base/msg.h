/*
 * One end of the SOCK_SEQPACKET channel between gatewayd and gateway-relay.
 * Sending collects messages into records and sends them whole; receiving
 * hands out one message at a time with its descriptors. Both work on
 * non-blocking descriptors and can wait with a deadline.
 */
#ifndef GW_BASE_MSG_H
#define GW_BASE_MSG_H

#include "gatewayd/base/proto.h"

/* Descriptors in one record: a message with descriptors travels in a record of its own. */
#define MSG_DESCRIPTORS_MAX 4

struct msg_channel;

/* Takes over fd (closed by msg_channel_free). `sends` is the direction of what this end sends. */
int msg_channel_new(int fd, enum proto_direction sends, struct msg_channel **ret);
void msg_channel_free(struct msg_channel *channel);
int msg_channel_fd(const struct msg_channel *channel);

/* Puts a message into the open record, sending the record first if it is full. The descriptor (or -1)
 * stays the caller's. Waits at most timeout_ms for room in the socket. 0, -EAGAIN (no room in time),
 * -EPIPE (peer gone), other negative errno. */
int msg_send(struct msg_channel *channel, const struct proto_message *message, int fd, int timeout_ms);
/* Sends the open record, if any. Errors as above. */
int msg_flush(struct msg_channel *channel, int timeout_ms);

/* The next message; waits at most timeout_ms (0: not at all, -1: without end). ret_fd is -1 or a descriptor
 * that is now the caller's (close-on-exec). 0, -EAGAIN (none in time), -EPIPE (peer gone), -EBADMSG (nonsense:
 * close the channel; nothing of it can be trusted any more). */
int msg_receive(struct msg_channel *channel, struct proto_message *ret, int *ret_fd, int timeout_ms);
/* Passes over the rest of a record that msg_receive found to be nonsense, because it is of another version. */
void msg_skip(struct msg_channel *channel);
/* Whether decoded bytes of the last record still wait, so that polling the descriptor would miss them. */
bool msg_pending(const struct msg_channel *channel);

#endif
