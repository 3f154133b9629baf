/*
 * The files of the web UI, read into memory once at the start. A request can
 * only name an entry of that table, so no path leads out of it. Called by
 * http.c and through routes.def.
 */
#ifndef GW_WEBAPI_ASSETS_H
#define GW_WEBAPI_ASSETS_H

#include "webapi/router.h"

/* Reads every regular file below ui_dir whose name does not begin with a dot; links to directories are not followed.
 * NULL, or a directory that does not exist: a plain built-in page. 0, -ENOMEM, -E2BIG (ASSETS_FILES_MAX,
 * ASSETS_BYTES_MAX, ASSETS_DEPTH_MAX), or what the file system says. */
int assets_load(const char *ui_dir, struct assets **ret);
void assets_free(struct assets *assets);

/* Route handler: "/" is index.html; so is a directory that has one. */
int assets_answer(const struct request *request, struct response *response);

#endif
