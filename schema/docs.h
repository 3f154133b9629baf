/*
 * Documents that gwgen makes from the field tables while building, held in
 * the program: nothing needs to be read from files at run time. Called by
 * webapi (OpenAPI, tables for the UI) and by the store (SQL).
 */
#ifndef GW_SCHEMA_DOCS_H
#define GW_SCHEMA_DOCS_H

#include <stddef.h>
#include <stdint.h>

/* Each returns static text with a terminator and, unless NULL, its length without it. */
const char *docs_openapi(size_t *ret_length); /* OpenAPI 3.1 as JSON */
const char *docs_schema(size_t *ret_length);  /* the resource tables as JSON */
const char *docs_sql(size_t *ret_length);     /* gateway.db.sql */

/* The version of the database that docs_sql makes. */
int docs_version(void);
/* The step of schema/migrate that leads to this version from the one before; NULL if there is none. */
const char *docs_migration(int64_t version, size_t *ret_length);

#endif
