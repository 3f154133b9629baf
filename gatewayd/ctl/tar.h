/* A tar archive (ustar), written file by file. Used by the command support-bundle. */
#ifndef GW_CTL_TAR_H
#define GW_CTL_TAR_H

#include <stddef.h>
#include <stdio.h>

/* Longest name of a file in it. */
#define TAR_NAME_MAX 99

/* A file of mode 0600. 0, -EINVAL (the name is too long, or 8 GiB), or -EIO. */
int tar_put(FILE *out, const char *name, const char *bytes, size_t length);
/* The end of the archive. 0 or -EIO. */
int tar_end(FILE *out);

#endif
