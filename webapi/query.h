/*
 * Parameters of a query that have to be numbers or one of a few words, with
 * the refusal that names the one at fault. Used by the handlers of documents
 * that are asked for in many ways.
 */
#ifndef GW_WEBAPI_QUERY_H
#define GW_WEBAPI_QUERY_H

#include "webapi/message.h"

/* The values of the known parameters, as url_parse_query gives them (to be freed with query_free). 0, 1 if the response
 * tells what is wrong, -ENOMEM. */
int query_parse(
        const struct request *request, const char *const *known, size_t n, char **values, struct response *response);
void query_free(char **values, size_t n);
/* A whole number from least to most; *ret stays as it is if the text is NULL. As query_parse. */
int query_number(const struct request *request, const char *name, const char *text, uint64_t least, uint64_t most,
        uint64_t *ret, struct response *response);
/* The index of the word among n; *ret stays as it is if the text is NULL. As query_parse. */
int query_word(const struct request *request, const char *name, const char *text, const char *const *words, size_t n,
        size_t *ret, struct response *response);
/* Refuses the parameter: `what` says what it has to be. 1 or -ENOMEM. */
int query_refuse(const struct request *request, const char *name, const char *what, struct response *response);

#endif
