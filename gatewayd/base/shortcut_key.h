/* Keys of the short cut's maps (bpf_shortcut.h). Used by the relay (udp_shortcut.c, tcp_stitch.c) and the daemon
 * (shortcut.c). */
#ifndef GW_BASE_SHORTCUT_KEY_H
#define GW_BASE_SHORTCUT_KEY_H

#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/bpf_shortcut.h"

/* Of packets from here to there. Both addresses are of one family; ports in host order. */
struct bpf_shortcut_key shortcut_key(
        const struct addr *source, uint16_t source_port, const struct addr *destination, uint16_t destination_port);
/* The addresses in it. */
struct addr shortcut_key_source(const struct bpf_shortcut_key *key);
struct addr shortcut_key_destination(const struct bpf_shortcut_key *key);
/* Of the answers to packets with this key. */
struct bpf_shortcut_key shortcut_key_reverse(const struct bpf_shortcut_key *key);

#endif
