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
	FIELD_TIME,     /* RFC 3339 text in documents, or null */
	FIELD_NAMES,    /* names of rows of another resource */
	FIELD_PREFIXES, /* as many as there are, in a table of their own; at most one such field in a resource */
	FIELD_KINDS
};

/* What the strings of a list are. */
enum item_kind {
	ITEM_INTERFACE,  /* an interface name as the kernel takes it, of the characters a-z A-Z 0-9 . _ - @ */
	ITEM_PREFIX,     /* prefix or "first-last" range, canonical text; or "@name" of an address set */
	ITEM_PORTS,      /* "443" or "8000-8100" */
	ITEM_HOST,       /* DNS name in lower case, or "*." and one */
	ITEM_ALPN,       /* protocol name as TLS has it, visible ASCII */
	ITEM_METHOD,     /* HTTP method in upper case */
	ITEM_PATH,       /* beginning of an HTTP path */
	ITEM_FLOW_FIELD, /* of a record of a flow (flow_field.h) */
	ITEM_KINDS
};

/* Flags: which planes must hear of a change, and what else holds for the field. */
enum {
	PLANE_NFT = 1 << 0,
	PLANE_RELAY = 1 << 1,
	PLANE_XDP = 1 << 2,
	FLAG_KEY = 1 << 8,        /* part of what tells an item from its siblings; a NAME always is */
	FLAG_REQUIRED = 1 << 9,   /* a document without it is refused, although the member has an initial value */
	FLAG_SECRET = 1 << 10,    /* never in a document: set by code, stored, and told to nobody */
	FLAG_FIXED = 1 << 11,     /* NAME that is always initial_text; not in documents */
	FLAG_INTERFACE = 1 << 12, /* NAME that is the name of an interface */
};

/* What holds for a resource as a whole. */
enum {
	RESOURCE_IS_SINGLE = 1 << 0,  /* there is exactly one row, at /api/v1/{path}; it cannot be deleted */
	RESOURCE_IS_PRIVATE = 1 << 1, /* no part of the configuration document, its hash, history and rollback */
	/* A row is shown with what is observed of it, as FIELD_OBSERVED. A write may have that, so that what was got
	 * can be put; it is not looked at. */
	RESOURCE_IS_OBSERVED = 1 << 2,
};
#define FIELD_OBSERVED "observed"

/* 9999-12-31T23:59:59Z, the last second with a year of four digits. */
#define FIELD_TIME_MAX INT64_C(253402300799)

struct field {
	const char *member; /* C member and SQL column */
	const char *group;  /* object in documents that the field stands in, e.g. "health"; NULL: the row's own */
	const char *key;    /* key in that object; without a group the member's name */
	enum field_kind kind;
	size_t offset;
	int64_t min, max;         /* INT, ENUM, TIME: value; NAME, TEXT: bytes; lists of all kinds: items */
	int64_t initial;          /* BOOL, INT, ENUM */
	const char *initial_text; /* TEXT, and a fixed NAME */
	const char *const *words; /* ENUM: `max + 1` words */
	enum item_kind item;      /* LIST */
	enum resource_id target;  /* REF, NAMES, CHILDREN */
	unsigned flags;
	const char *doc;
};

struct resource {
	enum resource_id id;
	const char *name;   /* "listener": the SQL table */
	const char *plural; /* "listeners" */
	const char *path;   /* below /api/v1, or NULL for an item of a parent */
	enum resource_id parent;
	unsigned flags; /* RESOURCE_IS_... */
	const char *doc;
	size_t size; /* of the struct */
	const struct field *fields;
	size_t n_fields;
};

/* The descriptor of a resource; id must be in range. */
const struct resource *resource_get(enum resource_id id);
/* By the path below /api/v1 ("listeners"); NULL if there is none. */
const struct resource *resource_by_path(const char *path);
/* By its name ("listener"); NULL if there is none. */
const struct resource *resource_by_name(const char *name);
/* The field with this member name, or NULL. */
const struct field *resource_field(const struct resource *resource, const char *member);
/* The word of an enumerated value, e.g. "relay". */
const char *field_word(const struct field *field, int64_t value);
/* The value of a word, or -1 if the field has no such word. */
int64_t field_word_value(const struct field *field, const char *word);
/* Whether a document without this field is refused (names and addresses have no default). */
bool field_required(const struct field *field);
/* Whether documents have the field: not if it is secret or fixed. */
bool field_in_documents(const struct field *field);
/* Whether the store keeps the field in a column of its resource's table. */
bool field_has_column(const struct field *field);
/* Whether the member has the value that a new row has. */
bool field_is_initial(const struct field *field, const struct row *row);
/* Whether the field tells rows of its resource apart: the name, or the FLAG_KEY fields of a child. */
bool field_is_key(const struct field *field);

/* A name that a row gives to another row: its upstream, a rate limit, "@name" in a list of prefixes. */
struct reference {
	enum resource_id target;
	const char *name;    /* borrowed */
	const char *pointer; /* to the value in the row's document, e.g. "/routes/0/upstream"; borrowed */
};

/* Visits every reference of the row and of its children. What the visitor returns ends the walk unless it is 0, and is
 * passed on. */
typedef int (*reference_visitor)(void *userdata, const struct reference *reference);
int resource_references(const struct row *row, reference_visitor visitor, void *userdata);

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
