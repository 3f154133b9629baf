/*
 * Whether the running kernel does with sockets in a map what the sockmap mover
 * relies on. Version numbers do not tell (distributions carry fixes back, and
 * faults too), so it is tried: gatewayd runs itself with --bpf-check in a
 * process of its own before it hands the maps to a relay.
 */
#ifndef GW_RULES_BPF_CHECK_H
#define GW_RULES_BPF_CHECK_H

#include <stddef.h>

/* Longest time that the check may take; it takes some milliseconds, and seconds on a machine with much else to do.
 * After that SIGALRM ends the process. */
#define BPF_CHECK_S 30

/* Loads the program into maps of its own, makes two connections over loopback (in a network namespace of its own, if
 * it may make one), joins them and moves bytes: with a packet waiting at entry whose front was read, both ways at once
 * through small buffers and readers that pause, so that the program has to pass and to go back to redirecting, and with
 * an end of stream in one direction while the other goes on. 0, or a negative errno with words in why. */
int bpf_check_run(char *why, size_t why_size);

#endif
