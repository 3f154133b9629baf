/*
 * The descriptor tables, derived from the .def files: one struct field per
 * row, one struct resource per file. Nothing here names a field.
 */
#include "schema/field.h"

#include <assert.h>
#include <net/if.h>
#include <string.h>

// clang-format off
#define ENUM_BEGIN(table, upper) static const char *const table##_words[] = {
#define ENUM_WORD(upper, word, json) [upper##_##word] = json,
#define ENUM_END(table, upper) }; \
	static_assert(ARRAY_SIZE(table##_words) == upper##_WORDS, "a word for each value");
#include "schema/enums.def"
#undef ENUM_BEGIN
#undef ENUM_WORD
#undef ENUM_END

#define FIELD_TO(member_, kind_, target_, ...) \
	{ .member = #member_, .key = #member_, .kind = kind_, .offset = offsetof(struct SELF, member_), .target = target_, __VA_ARGS__ },
#define FIELD(member_, kind_, ...) \
	FIELD_TO(member_, kind_, RESOURCE_NONE, __VA_ARGS__)
#define NAME(member_, doc_) FIELD(member_, FIELD_NAME, .min = 1, .max = NAME_MAX_BYTES, .flags = FLAG_KEY, .doc = doc_)
#define BOOL(member_, initial_, flags_, doc_) FIELD(member_, FIELD_BOOL, .max = 1, .initial = initial_, .flags = flags_, .doc = doc_)
#define TEXT(member_, max_, flags_, doc_) \
	FIELD(member_, FIELD_TEXT, .max = max_, .initial_text = "", .flags = flags_, .doc = doc_)
#define INTERFACE(member_, doc_) \
	FIELD(member_, FIELD_NAME, .min = 1, .max = IFNAMSIZ - 1, .flags = FLAG_KEY | FLAG_INTERFACE, .doc = doc_)
#define FIXED(member_, value_, doc_) \
	FIELD(member_, FIELD_NAME, .min = 1, .max = NAME_MAX_BYTES, .initial_text = value_, .flags = FLAG_KEY | FLAG_FIXED, .doc = doc_)
#define TIME(member_, flags_, doc_) FIELD(member_, FIELD_TIME, .min = 1, .max = FIELD_TIME_MAX, .flags = flags_, .doc = doc_)
#define NAMES(member_, target_, max_, flags_, doc_) \
	FIELD_TO(member_, FIELD_NAMES, target_, .max = max_, .flags = flags_, .doc = doc_)
#define PREFIXES(member_, max_, flags_, doc_) \
	FIELD(member_, FIELD_PREFIXES, .max = max_, .flags = flags_, .doc = doc_)
#define IN_GROUP(group_, key_, kind_, ...) \
	{ .member = #group_ "_" #key_, .group = #group_, .key = #key_, .kind = kind_, \
	  .offset = offsetof(struct SELF, group_##_##key_), .target = RESOURCE_NONE, __VA_ARGS__ },
#define GROUP_INT(group_, key_, min_, max_, initial_, flags_, doc_) \
	IN_GROUP(group_, key_, FIELD_INT, .min = min_, .max = max_, .initial = initial_, .flags = flags_, .doc = doc_)
#define GROUP_ENUM(group_, key_, table_, initial_, flags_, doc_) \
	IN_GROUP(group_, key_, FIELD_ENUM, .max = ARRAY_SIZE(table_##_words) - 1, .initial = initial_, .words = table_##_words, .flags = flags_, .doc = doc_)
#define GROUP_TEXT(group_, key_, max_, initial_, flags_, doc_) \
	IN_GROUP(group_, key_, FIELD_TEXT, .max = max_, .initial_text = initial_, .flags = flags_, .doc = doc_)
#define GROUP_LIST(group_, key_, item_, max_, flags_, doc_) \
	IN_GROUP(group_, key_, FIELD_LIST, .max = max_, .item = item_, .flags = flags_, .doc = doc_)
#define INT(member_, min_, max_, initial_, flags_, doc_) \
	FIELD(member_, FIELD_INT, .min = min_, .max = max_, .initial = initial_, .flags = flags_, .doc = doc_)
#define ENUM(member_, table_, initial_, flags_, doc_) \
	FIELD(member_, FIELD_ENUM, .max = ARRAY_SIZE(table_##_words) - 1, .initial = initial_, .words = table_##_words, .flags = flags_, .doc = doc_)
#define REF(member_, target_, flags_, doc_) FIELD_TO(member_, FIELD_REF, target_, .max = NAME_MAX_BYTES, .flags = flags_, .doc = doc_)
#define LIST(member_, item_, max_, flags_, doc_) FIELD(member_, FIELD_LIST, .max = max_, .item = item_, .flags = flags_, .doc = doc_)
#define ADDRESS(member_, flags_, doc_) FIELD(member_, FIELD_ADDRESS, .flags = flags_, .doc = doc_)
#define CHILDREN(member_, child_, max_, flags_, doc_) FIELD_TO(member_, FIELD_CHILDREN, child_, .max = max_, .flags = flags_, .doc = doc_)

#define SELF upstream
static const struct field upstream_fields[] = {
#include "schema/upstream.def"
};
#undef SELF
#define SELF target
static const struct field target_fields[] = {
#include "schema/target.def"
};
#undef SELF
#define SELF address_set
static const struct field address_set_fields[] = {
#include "schema/address_set.def"
};
#undef SELF
#define SELF rate_limit
static const struct field rate_limit_fields[] = {
#include "schema/rate_limit.def"
};
#undef SELF
#define SELF listener
static const struct field listener_fields[] = {
#include "schema/listener.def"
};
#undef SELF
#define SELF listener_route
static const struct field listener_route_fields[] = {
#include "schema/listener_route.def"
};
#undef SELF
#define SELF prefilter
static const struct field prefilter_fields[] = {
#include "schema/prefilter.def"
};
#undef SELF
#define SELF token
static const struct field token_fields[] = {
#include "schema/token.def"
};
#undef SELF
#define SELF settings
static const struct field settings_fields[] = {
#include "schema/settings.def"
};
#undef SELF

static const struct resource resources[] = {
#define RESOURCE(upper, lower, plural_, path_, parent_, flags_, doc_) \
	[RESOURCE_##upper] = { .id = RESOURCE_##upper, .name = #lower, .plural = plural_, .path = path_, .parent = parent_, \
			       .flags = flags_, .doc = doc_, .size = sizeof(struct lower), .fields = lower##_fields, \
			       .n_fields = ARRAY_SIZE(lower##_fields) },
#include "schema/resources.def"
#undef RESOURCE
};
// clang-format on
static_assert(ARRAY_SIZE(resources) == RESOURCES, "a descriptor for each resource");

const struct resource *resource_get(enum resource_id id)
{
	assert(id >= 0 && id < RESOURCES);
	return &resources[id];
}

const struct resource *resource_by_path(const char *path)
{
	for (size_t i = 0; i < RESOURCES; i++)
		if (resources[i].path && strcmp(resources[i].path, path) == 0)
			return &resources[i];
	return NULL;
}

const struct resource *resource_by_name(const char *name)
{
	for (size_t i = 0; i < RESOURCES; i++)
		if (strcmp(resources[i].name, name) == 0)
			return &resources[i];
	return NULL;
}

const struct field *resource_field(const struct resource *resource, const char *member)
{
	for (size_t i = 0; i < resource->n_fields; i++)
		if (strcmp(resource->fields[i].member, member) == 0)
			return &resource->fields[i];
	return NULL;
}
