/* The native protocol of journald; see journal.h. */
#include "gatewayd/base/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t device, inode;
	struct stat found;

	return stream && sscanf(stream, "%ju:%ju", &device, &inode) == 2 && fstat(fd, &found) == 0 &&
	       found.st_dev == device && found.st_ino == inode;
}

int journal_open(const char *path, int fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int made, r = 0;

	if (!is_journal(fd))
		return -ENOENT;
	if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (made < 0)
		return -errno;
	if (connect(made, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r < 0)
		close(made);
	return r < 0 ? r : made;
}

/* What is being put together. */
struct record {
	size_t n;
	bool full;
	char bytes[JOURNAL_RECORD_MAX];
};

static void put(struct record *record, const void *bytes, size_t n)
{
	if (n > sizeof(record->bytes) - record->n) {
		record->full = true;
		return;
	}
	memcpy(record->bytes + record->n, bytes, n);
	record->n += n;
}

/* KEY=value, or, if the value has lines of its own, the key, the length in 8 bytes with the least first, the value. */
static void put_field(struct record *record, const char *prefix, const char *key, const char *value)
{
	size_t length = strlen(value);
	uint8_t size[8];

	put(record, prefix, strlen(prefix));
	put(record, key, strlen(key));
	if (strchr(value, '\n')) {
		for (size_t i = 0; i < sizeof(size); i++)
			size[i] = (uint8_t)((uint64_t)length >> (8 * i));
		put(record, "\n", 1);
		put(record, size, sizeof(size));
	} else {
		put(record, "=", 1);
	}
	put(record, value, length);
	put(record, "\n", 1);
}

int journal_send(int fd, int priority, const char *program, const char *message, const struct log_field *fields)
{
	struct record record;
	char number[32];

	record.n = 0;
	record.full = false;
	snprintf(number, sizeof(number), "%d", priority);
	put_field(&record, "", "PRIORITY", number);
	put_field(&record, "", "SYSLOG_IDENTIFIER", program);
	put_field(&record, "", "MESSAGE", message);
	for (; fields && fields->name; fields++) {
		snprintf(number, sizeof(number), "%lld", fields->number);
		put_field(&record, "GATEWAY_", fields->name, fields->text ? fields->text : number);
	}
	if (record.full)
		return -EMSGSIZE;
	return send(fd, record.bytes, record.n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}
