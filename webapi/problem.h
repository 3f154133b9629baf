/*
 * Refusals as RFC 9457 documents. Called by every handler and by http.c;
 * knows the kinds (problems.def), not the reasons.
 */
#ifndef GW_WEBAPI_PROBLEM_H
#define GW_WEBAPI_PROBLEM_H

#include "webapi/message.h"

enum problem {
#define PROBLEM(upper, status, slug, title) PROBLEM_##upper,
#include "webapi/problems.def"
#undef PROBLEM
	PROBLEMS
};

/* Answers {type, title, status, detail, instance, errors}. `request` names the instance, `errs` the faults (both may
 * be NULL); the detail is formatted. Replaces what the response held, except its headers. 0 or -ENOMEM. */
int problem_answer(struct response *response, enum problem problem, const struct request *request,
        const struct errs *errs, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Answers a refusal of the core (core.h says which errno means what) or memory that ran out. */
int problem_from_errno(struct response *response, int error, const struct request *request, const struct errs *errs);

/* Answers without memory: a fixed document. Cannot fail. */
void problem_fallback(struct response *response);

/* A whole answer with headers, for a connection that is closed right after it; static text. */
const char *problem_raw_timeout(void);
const char *problem_raw_too_large(void);

#endif
