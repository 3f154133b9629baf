/*
 * The resources as C structs, derived from the .def tables. A row is
 * immutable once it is in a snapshot and is shared by reference. Knows no
 * JSON, HTTP, SQLite or kernel.
 */
#ifndef GW_SCHEMA_TYPES_H
#define GW_SCHEMA_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/cleanup.h"

/* A resource's name: 1 to 63 of a-z 0-9 and '-', so that it fits a DNS label and needs no quoting anywhere. */
#define NAME_MAX_BYTES 63
/* Entries of one address set: at 18 bytes each in memory and about 30 on disk, a million is what a small gateway holds
 * without noticing. */
#define ADDRESS_SET_ENTRIES_MAX 1000000

// clang-format off
#define ENUM_BEGIN(table, upper) enum table {
#define ENUM_WORD(upper, word, json) upper##_##word,
#define ENUM_END(table, upper) upper##_WORDS };
#include "schema/enums.def"
#undef ENUM_BEGIN
#undef ENUM_WORD
#undef ENUM_END
// clang-format on

enum resource_id {
	RESOURCE_NONE = -1,
#define RESOURCE(upper, lower, plural, path, parent, flags, doc) RESOURCE_##upper,
#include "schema/resources.def"
#undef RESOURCE
	RESOURCES
};

/* Head of every row. */
struct row {
	enum resource_id resource;
	unsigned references;
	int64_t id;       /* primary key in the store, never used again; 0: not stored yet */
	int64_t revision; /* the revision that wrote this row */
};

/* A list of owned strings in canonical text; items is NULL when n is 0. */
struct strings {
	char **items;
	size_t n;
};

/* A list of owned references to rows. */
struct rows {
	struct row **items;
	size_t n;
};

/* Prefixes, sorted (prefix_compare), each once; list is NULL when n is 0. What it leads to is immutable and shared by
 * reference count: see schema/prefixes.h. */
struct prefixes {
	struct prefixes_list *list;
	size_t n;
};

// clang-format off
#define NAME(member, doc) char member[NAME_MAX_BYTES + 1];
#define BOOL(member, initial, flags, doc) bool member;
#define TEXT(member, max, flags, doc) char *member; /* never NULL in a decoded or loaded row */
#define INT(member, min, max, initial, flags, doc) int64_t member;
#define ENUM(member, table, initial, flags, doc) int64_t member;
#define REF(member, target, flags, doc) char *member; /* NULL: none */
#define LIST(member, item, max, flags, doc) struct strings member;
#define ADDRESS(member, flags, doc) char *member;
#define CHILDREN(member, child, max, flags, doc) struct rows member;
#define INTERFACE(member, doc) char member[NAME_MAX_BYTES + 1]; /* a name too */
#define FIXED(member, value, doc) char member[NAME_MAX_BYTES + 1];
#define TIME(member, flags, doc) int64_t member; /* seconds since 1970, UTC; 0: none */
#define NAMES(member, target, max, flags, doc) struct strings member;
#define PREFIXES(member, max, flags, doc) struct prefixes member;
#define GROUP_INT(group, key, min, max, initial, flags, doc) int64_t group##_##key;
#define GROUP_ENUM(group, key, table, initial, flags, doc) int64_t group##_##key;
#define GROUP_TEXT(group, key, max, initial, flags, doc) char *group##_##key;
#define GROUP_LIST(group, key, item, max, flags, doc) struct strings group##_##key;
#define RESOURCE(upper, lower, plural, path, parent, flags, doc) struct lower;
#include "schema/resources.def"
#undef RESOURCE
struct upstream {
	struct row row;
#include "schema/upstream.def"
};
struct target {
	struct row row;
#include "schema/target.def"
};
struct address_set {
	struct row row;
#include "schema/address_set.def"
};
struct rate_limit {
	struct row row;
#include "schema/rate_limit.def"
};
struct listener {
	struct row row;
#include "schema/listener.def"
};
struct listener_route {
	struct row row;
#include "schema/listener_route.def"
};
struct prefilter {
	struct row row;
#include "schema/prefilter.def"
};
struct token {
	struct row row;
#include "schema/token.def"
};
struct settings {
	struct row row;
#include "schema/settings.def"
};
#undef NAME
#undef BOOL
#undef TEXT
#undef INT
#undef ENUM
#undef REF
#undef LIST
#undef ADDRESS
#undef CHILDREN
#undef INTERFACE
#undef FIXED
#undef TIME
#undef NAMES
#undef PREFIXES
#undef GROUP_INT
#undef GROUP_ENUM
#undef GROUP_TEXT
#undef GROUP_LIST
// clang-format on

/* A new row with every field at its default and one reference; NULL only when memory is out. */
struct row *row_new(enum resource_id resource);
struct row *row_ref(struct row *row);
void row_unref(struct row *row);
/* A deep copy with one reference, for editing before it is shared; NULL when memory is out. */
struct row *row_copy(const struct row *row);
/* The row's name; NULL for an item of a parent. */
const char *row_name(const struct row *row);
/* Whether all fields that the resource table names are equal (ids and revisions do not count). */
bool row_equal(const struct row *a, const struct row *b);
CLEANUP_DEFINE(struct row *, row_unref)

/* Appends; takes over the reference, also on failure. 0 or -ENOMEM. */
int rows_append(struct rows *rows, struct row *row);
/* Inserts before index `at` (at most n); takes over the reference, also on failure. 0 or -ENOMEM. */
int rows_insert(struct rows *rows, size_t at, struct row *row);
/* Fills an empty list with references to the same rows. 0 or -ENOMEM. */
int rows_share(struct rows *rows, const struct rows *from);
void rows_clear(struct rows *rows);
/* Appends a copy of the text. 0 or -ENOMEM. */
int strings_append(struct strings *strings, const char *text);
void strings_clear(struct strings *strings);
bool strings_equal(const struct strings *a, const struct strings *b);

#endif
