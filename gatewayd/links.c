/* The counts of interfaces; see links.h. */
#include "gatewayd/links.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/cleanup.h"

/* "  eth0: BYTES PACKETS ..."; a name may hold a colon, a number does not. */
static bool parse_line(const char *line, struct link_count *ret)
{
	const char *colon = strrchr(line, ':');
	size_t length;

	line += strspn(line, " ");
	length = colon && colon > line ? (size_t)(colon - line) : 0;
	if (length == 0 || length >= IFNAMSIZ)
		return false;
	*ret = (struct link_count){ 0 };
	memcpy(ret->interface, line, length);
	return sscanf(colon + 1, "%" SCNu64 " %" SCNu64, &ret->bytes, &ret->packets) == 2;
}

int links_parse(FILE *file, struct link_count **ret, size_t *ret_n)
{
	_cleanup_free_ struct link_count *all = NULL;
	_cleanup_free_ char *line = NULL;
	size_t n = 0, size = 0, line_size = 0;
	struct link_count one;

	while (getline(&line, &line_size, file) > 0) {
		if (!parse_line(line, &one))
			continue;
		if (array_reserve(&all, &size, n + 1, sizeof(*all)) < 0)
			return -ENOMEM;
		all[n++] = one;
	}
	*ret = TAKE_PTR(all);
	*ret_n = n;
	return 0;
}

int links_read(struct link_count **ret, size_t *ret_n)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/self/net/dev", "re");

	return file ? links_parse(file, ret, ret_n) : -ENOENT;
}
