/* The configuration file: lines "key = value", "#" begins a comment line. Called by options.c, which knows the keys. */
#ifndef GW_CONF_H
#define GW_CONF_H

/* A file longer than this is not ours: it has a handful of settings. */
#define CONF_BYTES_MAX 65536
/* Room for "FILE:LINE". */
#define CONF_AT_MAX 4160

/* Calls set for each line that has a setting, in their order, until it fails. at is "FILE:LINE" and lasts for the call;
 * key and value live as long as the program. Prints to stderr what is wrong with the file. 0, -EINVAL (a line that is
 * none, also a NUL or an empty value), -EFBIG, what set returned, or why the file cannot be read. */
int conf_read(const char *path, int (*set)(void *userdata, const char *at, const char *key, const char *value),
        void *userdata);

#endif
