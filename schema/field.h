/*
 * Descriptors of fields and resources: what decode, encode, the store, OpenAPI
 * and the boundary tests walk over. Derived from the .def tables; a new field
 * is one row there.
 */
#ifndef GW_SCHEMA_FIELD_H
#define GW_SCHEMA_FIELD_H

#include "schema/types.h"

enum field_kind {
	FIELD_NAME,
	FIELD_BOOL,
	FIELD_TEXT,
	FIELD_INT,
	FIELD_ENUM,
	FIELD_REF,
	FIELD_LIST,
	FIELD_ADDRESS,
	FIELD_CHILDREN,
	FIELD_KINDS
};

/* What the strings of a list are. */
enum item_kind {
	ITEM_INTERFACE, /* an interface name as the kernel takes it, of the characters a-z A-Z 0-9 . _ - @ */
	ITEM_PREFIX,    /* prefix or "first-last" range, canonical text */
	ITEM_PORTS,     /* "443" or "8000-8100" */
	ITEM_KINDS
};

/* Flags: which planes must hear of a change, and what else holds for the field. */
enum {
	PLANE_NFT = 1 << 0,
	PLANE_RELAY = 1 << 1,
	FLAG_KEY = 1 << 8, /* part of what tells an item from its siblings; a NAME always is */
};

struct field {
	const char *member; /* C member, SQL column and JSON key */
	enum field_kind kind;
	size_t offset;
	int64_t min, max;         /* INT, ENUM: value; NAME, TEXT: bytes; LIST, CHILDREN: items */
	int64_t initial;          /* BOOL, INT, ENUM */
	const char *const *words; /* ENUM: `max + 1` words */
	enum item_kind item;      /* LIST */
	enum resource_id target;  /* REF, CHILDREN */
	unsigned flags;
	const char *doc;
};

struct resource {
	enum resource_id id;
	const char *name;   /* "listener": the SQL table */
	const char *plural; /* "listeners" */
	const char *path;   /* below /api/v1, or NULL for an item of a parent */
	enum resource_id parent;
	const char *doc;
	size_t size; /* of the struct */
	const struct field *fields;
	size_t n_fields;
};

/* The descriptor of a resource; id must be in range. */
const struct resource *resource_get(enum resource_id id);
/* By the path below /api/v1 ("listeners"); NULL if there is none. */
const struct resource *resource_by_path(const char *path);
/* The field with this member name, or NULL. */
const struct field *resource_field(const struct resource *resource, const char *member);
/* The word of an enumerated value, e.g. "relay". */
const char *field_word(const struct field *field, int64_t value);
/* The value of a word, or -1 if the field has no such word. */
int64_t field_word_value(const struct field *field, const char *word);
/* Whether a document without this field is refused (names and addresses have no default). */
bool field_required(const struct field *field);
/* Whether the field tells rows of its resource apart: the name, or the FLAG_KEY fields of a child. */
bool field_is_key(const struct field *field);

/* The default into a zeroed member; 0 or -ENOMEM. */
int field_init(const struct field *field, struct row *row);
/* Frees what the member owns. */
void field_clear(const struct field *field, struct row *row);
/* A deep copy into a zeroed member; 0 or -ENOMEM. */
int field_copy(const struct field *field, struct row *to, const struct row *from);
bool field_equal(const struct field *field, const struct row *a, const struct row *b);
/* Typed access to a member of a row. */
#define FIELD_AT(row, field, type)       ((type *)(void *)((char *)(row) + (field)->offset))
#define FIELD_AT_CONST(row, field, type) ((const type *)(const void *)((const char *)(row) + (field)->offset))

#endif
