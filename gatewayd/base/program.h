/* Which file a program was started from, so that a daemon can tell whether a relay that it finds is that of today. */
#ifndef GW_BASE_PROGRAM_H
#define GW_BASE_PROGRAM_H

#define PROGRAM_ID_MAX 63

/* A word for the file at path as it is now: another one as soon as it is replaced or written. 0 or a negative errno. */
int program_id(const char *path, char ret[PROGRAM_ID_MAX + 1]);

#endif
