/* Keys of the short cut's maps; see shortcut_key.h. */
#include "gatewayd/base/shortcut_key.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static void key_end(const struct addr *addr, uint16_t port, __u8 bytes[16], __u16 *ret_port)
{
	memcpy(bytes, addr->bytes, addr->family == AF_INET ? 4 : 16);
	*ret_port = htons(port);
}

struct bpf_shortcut_key shortcut_key(
        const struct addr *source, uint16_t source_port, const struct addr *destination, uint16_t destination_port)
{
	struct bpf_shortcut_key key = { .family = source->family == AF_INET ? 4 : 6 };

	key_end(source, source_port, key.source, &key.source_port);
	key_end(destination, destination_port, key.destination, &key.destination_port);
	return key;
}

static struct addr addr_of(const __u8 bytes[16], __u32 family)
{
	struct addr ret = { .family = family == 4 ? AF_INET : AF_INET6 };

	memcpy(ret.bytes, bytes, sizeof(ret.bytes));
	return ret;
}

struct addr shortcut_key_source(const struct bpf_shortcut_key *key)
{
	return addr_of(key->source, key->family);
}

struct addr shortcut_key_destination(const struct bpf_shortcut_key *key)
{
	return addr_of(key->destination, key->family);
}

struct bpf_shortcut_key shortcut_key_reverse(const struct bpf_shortcut_key *key)
{
	struct bpf_shortcut_key ret = *key;

	memcpy(ret.source, key->destination, sizeof(ret.source));
	memcpy(ret.destination, key->source, sizeof(ret.destination));
	ret.source_port = key->destination_port;
	ret.destination_port = key->source_port;
	return ret;
}
