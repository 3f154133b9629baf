/* Directories, the lock and the admin token on disk, called by daemon.c at start; and numbers in files of the kernel.
 */
#ifndef GW_FILES_H
#define GW_FILES_H

#include <stddef.h>

/* Characters of the admin token: 256 random bits in hexadecimal. */
#define FILES_TOKEN_LENGTH 64

/* Makes the directory (and its parents) if it is missing; the last one gets the mode. 0 or negative errno. */
int files_make_directory(const char *path, unsigned mode);
/* Takes the lock that only one daemon per runtime directory can hold, and writes our process id into it.
 * The descriptor to keep, or -EWOULDBLOCK with the holder's id in ret_holder (0: unknown), or negative errno. */
int files_lock(const char *runtime_dir, int *ret_holder);
/* Reads DIR/admin.token, or makes it with mode 0600. 0 or negative errno. */
int files_admin_token(const char *state_dir, char ret_token[FILES_TOKEN_LENGTH + 1]);
/* The number that a file (of /proc/sys) begins with; -1 if it cannot be read. */
long files_read_number(const char *path);

#endif
