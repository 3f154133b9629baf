/*
 * The descriptor tables, derived from the .def files: one struct field per
 * row, one struct resource per file. Nothing here names a field.
 */
#include "schema/field.h"

#include <assert.h>
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
	{ .member = #member_, .kind = kind_, .offset = offsetof(struct SELF, member_), .target = target_, __VA_ARGS__ },
#define FIELD(member_, kind_, ...) \
	FIELD_TO(member_, kind_, RESOURCE_NONE, __VA_ARGS__)
#define NAME(member_, doc_) FIELD(member_, FIELD_NAME, .min = 1, .max = NAME_MAX_BYTES, .flags = FLAG_KEY, .doc = doc_)
#define BOOL(member_, initial_, flags_, doc_) FIELD(member_, FIELD_BOOL, .max = 1, .initial = initial_, .flags = flags_, .doc = doc_)
#define TEXT(member_, max_, flags_, doc_) FIELD(member_, FIELD_TEXT, .max = max_, .flags = flags_, .doc = doc_)
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
#define SELF listener
static const struct field listener_fields[] = {
#include "schema/listener.def"
};
#undef SELF

static const struct resource resources[] = {
#define RESOURCE(upper, lower, plural_, path_, parent_, doc_) \
	[RESOURCE_##upper] = { .id = RESOURCE_##upper, .name = #lower, .plural = plural_, .path = path_, .parent = parent_, \
			       .doc = doc_, .size = sizeof(struct lower), .fields = lower##_fields, \
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

const struct field *resource_field(const struct resource *resource, const char *member)
{
	for (size_t i = 0; i < resource->n_fields; i++)
		if (strcmp(resource->fields[i].member, member) == 0)
			return &resource->fields[i];
	return NULL;
}
