/* Entity tags and the If-Match and If-None-Match headers. Called by rest.c and assets.c. */
#ifndef GW_WEBAPI_PRECONDITION_H
#define GW_WEBAPI_PRECONDITION_H

#include "webapi/message.h"

enum precondition {
	PRECONDITION_PASSED,
	PRECONDITION_NOT_MODIFIED, /* 304: the client has it */
	PRECONDITION_FAILED,       /* 412 */
	PRECONDITION_MALFORMED,    /* 400: not a list of entity tags */
};

/* `etag` is the tag of what is there now, with its quotes; NULL if nothing is there. */
enum precondition precondition_check(const struct request *request, const char *etag);

#endif
