/*
 * Probes of connections that are silent, so that a peer that is gone without a
 * word is found out long before the idle timeout. It need not have lost its
 * power: TCP sends a reset once, and does not take one that comes before the
 * bytes it stands behind (RFC 5961), so that on a busy path a reset can be
 * lost for good. The daemon sets it for the sockets that accept, the relay for
 * those towards targets.
 */
#ifndef GW_BASE_KEEPALIVE_H
#define GW_BASE_KEEPALIVE_H

/* Silence after which a peer is asked, pause between questions, and how many are not answered by one that is gone. */
#define KEEPALIVE_IDLE_S     60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES     4

/* For a TCP socket; those accepted from a listening one have it too. 0 or a negative errno. */
int keepalive_set(int fd);

#endif
