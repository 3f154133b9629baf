/*
 * Lines for systemd-journald with fields, by its native protocol: a datagram
 * of KEY=value lines. Not by libsystemd: sd_journal_sendv opens its socket when
 * it is first used, and needs memfds and sysctl files for what is long; the
 * relay cannot open anything by then, and links no library but the C library.
 * Called by log.c.
 */
#ifndef GW_BASE_JOURNAL_H
#define GW_BASE_JOURNAL_H

#include "gatewayd/base/log.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
/* Most bytes of one line with its fields; journald itself takes much more. */
#define JOURNAL_RECORD_MAX 4096

/* A socket to journald at this path, if the descriptor is the stream that $JOURNAL_STREAM names, which is how a service
 * manager says that what is written there ends in the journal. -ENOENT: it is something else, or another errno. */
int journal_open(const char *path, int fd);
/* One line; fields end with one without a name, and may be NULL. 0, -EMSGSIZE, or a negative errno: it is to be told in
 * another way. Never waits. */
int journal_send(int fd, int priority, const char *program, const char *message, const struct log_field *fields);

#endif
