/* A packet on the command line, as POST /explain and /trace want it. */
#ifndef GW_CTL_PACKET_H
#define GW_CTL_PACKET_H

#include <jansson.h>

#include "gatewayd/ctl/args.h"

/* From the words "tcp|udp SOURCE[:PORT] DESTINATION:PORT", a new object; NULL when they are none, which was said. */
json_t *packet_of(const struct args *args);

#endif
