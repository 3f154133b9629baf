/* ustar, see tar.h. */
#include "gatewayd/ctl/tar.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define BLOCK 512

/* The head of a file, as POSIX has it: all numbers in octal text. */
struct head {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
	        version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
static_assert(sizeof(struct head) == BLOCK, "one block");

static void set_checksum(struct head *head)
{
	const unsigned char *bytes = (const unsigned char *)head;
	unsigned sum = 0;

	memset(head->checksum, ' ', sizeof(head->checksum));
	for (size_t i = 0; i < sizeof(*head); i++)
		sum += bytes[i];
	snprintf(head->checksum, sizeof(head->checksum), "%06o", sum & 0777777U);
}

int tar_put(FILE *out, const char *name, const char *bytes, size_t length)
{
	static const char zeros[BLOCK];
	struct head head = { .mode = "0000600", .uid = "0000000", .gid = "0000000", .type = '0', .version = "00" };
	size_t pad = (BLOCK - length % BLOCK) % BLOCK;

	if (strlen(name) > TAR_NAME_MAX || length > 077777777777)
		return -EINVAL;
	memcpy(head.magic, "ustar", sizeof(head.magic));
	memcpy(head.name, name, strlen(name));
	snprintf(head.size, sizeof(head.size), "%011llo", (unsigned long long)length & 077777777777ULL);
	snprintf(head.mtime, sizeof(head.mtime), "%011llo", (unsigned long long)time(NULL) & 077777777777ULL);
	set_checksum(&head);
	if (fwrite(&head, sizeof(head), 1, out) != 1 || fwrite(bytes, 1, length, out) != length ||
	        fwrite(zeros, 1, pad, out) != pad)
		return -EIO;
	return 0;
}

int tar_end(FILE *out)
{
	static const char zeros[2 * BLOCK];

	return fwrite(zeros, sizeof(zeros), 1, out) == 1 && fflush(out) == 0 ? 0 : -EIO;
}
