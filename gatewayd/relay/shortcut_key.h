/* Keys of the short cut's maps (base/bpf_shortcut.h). Used by udp_shortcut.c and tcp_stitch.c. */
#ifndef GW_RELAY_SHORTCUT_KEY_H
#define GW_RELAY_SHORTCUT_KEY_H

#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/bpf_shortcut.h"

/* Of packets from here to there. Both addresses are of one family; ports in host order. */
struct bpf_shortcut_key shortcut_key(
        const struct addr *source, uint16_t source_port, const struct addr *destination, uint16_t destination_port);
/* Of the answers to packets with this key. */
struct bpf_shortcut_key shortcut_key_reverse(const struct bpf_shortcut_key *key);

#endif
