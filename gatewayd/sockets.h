/*
 * The sockets that the daemon makes: the relay's transparent listening
 * sockets, which outlive every relay, and those of the API.
 */
#ifndef GW_SOCKETS_H
#define GW_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>

/* Two protocols in two families. */
#define SOCKETS_PER_THREAD 4

/* One transparent listening socket, as in the LISTEN message. */
struct relay_socket {
	int fd;
	uint8_t protocol, family;
	uint16_t thread, port;
	bool handed; /* the relay that lives has it */
};

/* Makes for each thread a TCP and a UDP socket of each family, all on one port of 127.0.0.1 and ::1 that the kernel
 * chooses (or `port`, if it is not 0). marks: both bits of struct sockmark, for the relay to find on the UDP
 * sockets; TCP ones, and so what they accept, have only that of a socket of our own. Fills SOCKETS_PER_THREAD * threads
 * entries of ret, TCP first. 0 or negative errno with nothing open. */
int sockets_make_relay(unsigned threads, uint16_t port, uint32_t marks, struct relay_socket *ret);
/* Gives a socket that an earlier daemon made the mark of this one. 0 or negative errno. */
int sockets_mark_relay(const struct relay_socket *socket, uint32_t marks);

/* Claims the network namespace for this daemon, by a name that only one socket in it can have: two daemons would take
 * one table in the kernel for their own, whatever their directories. The descriptor to keep, or -EADDRINUSE with the
 * process and user of who has the name (0 and -1: not known; anybody can take it), or negative errno. */
int sockets_claim_network(int *ret_holder, int64_t *ret_uid);

/* A listening unix stream socket at path (an old one is removed), mode 0660, group gid (-1: left alone).
 * The descriptor, or negative errno. */
int sockets_make_api_unix(const char *path, int64_t gid);
/* The same with SOCK_SEQPACKET, mode 0600: for relay.sock. */
int sockets_make_relay_control(const char *path);
/* Connects to relay.sock. -ECONNREFUSED or -ENOENT: no relay lives. */
int sockets_connect_relay_control(const char *path);

/* Whether sockets_make_api_tcp takes this address at all. 0, or negative errno and fixed words. */
int sockets_check_api_tcp(const char *url, const char **ret_reason);
/* A listening TCP socket for "https://ADDRESS:PORT" or "http://ADDRESS:PORT" (IPv6 in brackets); http on loopback
 * addresses only. Prints nothing: ret_reason points to fixed words on failure. The descriptor, or negative errno. */
int sockets_make_api_tcp(const char *url, bool *ret_secure, const char **ret_reason);

#endif
