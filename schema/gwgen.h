/*
 * The build tool's parts: each makes one artefact from the resource tables
 * and writes it to a stream. Called by gwgen.c only; errors of the stream
 * are found there when it is closed.
 */
#ifndef GW_SCHEMA_GWGEN_H
#define GW_SCHEMA_GWGEN_H

#include <jansson.h>
#include <stdio.h>

#include "schema/field.h"

/* 1 to begin with; raised with each step in schema/migrate/. Refused by the store if a database has a higher one. */
#define GWGEN_USER_VERSION 6
/* "gwdb": says in the file's header that it is ours. */
#define GWGEN_APPLICATION_ID 0x67776462

/* gateway.db.sql. */
void gwgen_sql(FILE *out);
/* openapi.json. */
void gwgen_openapi(FILE *out);
/* The tables as JSON, for the UI's forms. */
void gwgen_schema(FILE *out);
/* docs/reference.md. */
void gwgen_manual(FILE *out);
/* Dictionary for libFuzzer. */
void gwgen_dict(FILE *out);

/* For JSON documents: ends the program when memory is out. */
json_t *gwgen_need(json_t *value);
/* Writes the document, readable, and releases it. */
void gwgen_dump(json_t *document, FILE *out);
/* The default of a field as it stands in a document; NULL for a field without one. */
json_t *gwgen_default(const struct field *field);
/* "name", "bool", ...: words for the UI's tables. */
const char *gwgen_kind(enum field_kind kind);
const char *gwgen_item(enum item_kind item);

#endif
