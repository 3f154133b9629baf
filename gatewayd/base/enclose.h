/*
 * Takes the file system away from this process, for good: afterwards no path
 * can be opened, run, made or removed. Called by gateway-relay once it has
 * read what it needs, before it makes its threads. Descriptors that are open
 * stay what they are.
 */
#ifndef GW_BASE_ENCLOSE_H
#define GW_BASE_ENCLOSE_H

/* Forbids every use of paths, and signals and abstract sockets of others, as far as the kernel's Landlock goes. No new
 * privileges must be had any more (isolate_verify_relay). Returns the version of Landlock that holds, at least 1;
 * -ENOSYS or -EOPNOTSUPP: the kernel has none, or it is switched off; -EPERM: a filter of system calls forbids even
 * this; or another negative errno. Nothing is held then by this, only by isolate_filter_relay. */
int enclose(void);
/* Why it was not done, as words for people; "" for a version. */
const char *enclose_fault(int result);

#endif
