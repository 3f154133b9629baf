/*
 * What all writes have in common: their query parameters, the headers of
 * their answers, and the answer of a dry run. Called by the handlers that
 * change the configuration (rest.c, config.c, transaction.c, history.c).
 *
 * ?dry_run=true          200 {"revision", "dry_run": true, "changed", "diff", "nft", "warnings"}; nothing is changed
 * ?confirm_within=SEC    the change is taken back unless it is confirmed (POST /revisions/{n}/confirm)
 * Gateway-Revision       of the configuration after the write
 * Gateway-Warning        "code; detail": what the writer should know of; one header for each
 * Server-Timing          milliseconds of each step of a change (apply.h), of its line in the audit log, and of all from
 *                        the request's last byte to the answer's first
 * Gateway-Confirm-Deadline  RFC 3339: when the change will be taken back
 */
#ifndef GW_WEBAPI_WRITE_H
#define GW_WEBAPI_WRITE_H

#include "webapi/message.h"

/* Seconds that a change can wait for its confirmation: long enough to look, short enough to be back tomorrow. */
#define WRITE_CONFIRM_MIN 5
#define WRITE_CONFIRM_MAX 86400
/* Warnings told in headers; a longer list ends with how many more there are. */
#define WRITE_WARNINGS_MAX 8
/* Bytes of one warning in a header. */
#define WRITE_WARNING_BYTES 256

struct write {
	struct core_request core;
	struct core_audit audit; /* status: 200, unless the handler says what else it will answer */
	char summary[192];       /* "PUT listeners/web" */
};

/* Reads the query. 0, 1 if the response tells a fault, -ENOMEM. `write` must stay where it is: core points into it.
 */
int write_begin(const struct request *request, struct write *write, struct response *response);
/* Takes no query parameters at all. 0, 1 if the response tells a fault, -ENOMEM. */
int write_refuse_query(const struct request *request, struct response *response);
/* The headers of an accepted write. 0 or -ENOMEM. */
int write_headers(const struct request *request, const struct write *write, const struct core_result *result,
        struct response *response);
/* The answer to a dry run. 0 or -ENOMEM. */
int write_answer_dry_run(const struct core_result *result, struct response *response);
/* The answer to a write that has no one object to show: {"revision", "changed", "warnings", "pending"} and what `more`
 * has (taken over; NULL: nothing) with the headers, or that of a dry run. 0 or -ENOMEM. */
int write_answer(const struct request *request, const struct write *write, const struct core_result *result,
        json_t *more, struct response *response);
/* Parses a body that must be one JSON object. 0, 1 if the response tells why not, -ENOMEM. */
int write_parse_body(const struct request *request, struct response *response, json_t **ret);
/* Parses a body that must be a JSON list of at most `max` items; `wanted` is said of any other. -EBADMSG with a fault
 * in errs, -ENOMEM. */
int write_parse_list(const struct request *request, const char *wanted, size_t max, struct errs *errs, json_t **ret);
/* Compares the preconditions with an entity tag (NULL: nothing there). 0 to go on, 1 if the response is ready (304 has
 * no body yet), -ENOMEM. */
int write_check_precondition(const struct request *request, const char *etag, struct response *response);

#define ETAG_BYTES 32
/* The entity tag of a revision. */
const char *write_etag(int64_t revision, char text[ETAG_BYTES]);

#define _cleanup_json_ _cleanup_(json_decrefp)
#define _cleanup_row_  _cleanup_(row_unref_p)

#endif
