/* The configuration as a text beside the database; see lastgood.h. */
#include "gatewayd/lastgood.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "schema/decode.h"
#include "schema/encode.h"
#include "schema/hash.h"

#define FORMAT 1

static bool is_kept(enum resource_id id)
{
	return !(resource_get(id)->flags & RESOURCE_IS_PRIVATE);
}

static int hash_of(const struct snapshot *snapshot, char text[CONFIG_HASH_TEXT])
{
	struct config_hash hash = { 0 };
	int r = 0;

	for (enum resource_id i = 0; i < RESOURCES && r == 0; i++)
		r = config_hash_add_rows(&hash, &snapshot->rows[i]);
	config_hash_text(&hash, text);
	return r;
}

/* ---- writing ---- */

/* The ids of all children, field after field. */
static void write_children(struct text *text, const struct row *row)
{
	const struct resource *resource = resource_get(row->resource);
	const char *separator = "";

	text_add(text, ",\"children\":[");
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		for (size_t j = 0; field->kind == FIELD_CHILDREN && j < FIELD_AT_CONST(row, field, struct rows)->n;
		        j++) {
			text_add(text, separator);
			text_number(text, FIELD_AT_CONST(row, field, struct rows)->items[j]->id);
			separator = ",";
		}
	}
	text_add(text, "]");
}

static int write_row(FILE *out, struct text *text, const struct row *row, bool first)
{
	text_restart(text);
	text_add(text, first ? "\n{\"resource\":" : ",\n{\"resource\":");
	text_json(text, resource_get(row->resource)->name);
	text_add(text, ",\"id\":");
	text_number(text, row->id);
	text_add(text, ",\"revision\":");
	text_number(text, row->revision);
	write_children(text, row);
	text_add(text, ",\"row\":");
	if (encode_text(row, 0, text) < 0)
		return -ENOMEM;
	text_add(text, "}");
	if (text->failed)
		return -ENOMEM;
	return fwrite(text->bytes, 1, text->n, out) == text->n ? 0 : -EIO;
}

static int write_rows(FILE *out, const struct snapshot *snapshot)
{
	_cleanup_text_ struct text text = { 0 };
	bool first = true;
	int r = 0;

	for (enum resource_id i = 0; i < RESOURCES; i++)
		for (size_t j = 0; is_kept(i) && j < snapshot->rows[i].n && r == 0; j++) {
			r = write_row(out, &text, snapshot->rows[i].items[j], first);
			first = false;
		}
	return r;
}

static int write_document(FILE *out, const struct snapshot *snapshot)
{
	char hash[CONFIG_HASH_TEXT];
	int r = hash_of(snapshot, hash);

	if (r < 0)
		return r;
	fprintf(out, "{\"format\":%d,\"revision\":%lld,\"rows\":[", FORMAT, (long long)snapshot->revision);
	r = write_rows(out, snapshot);
	if (r < 0)
		return r;
	fprintf(out, "\n],\"config_hash\":\"%s\"}\n", hash);
	if (fflush(out) != 0 || ferror(out))
		return errno ? -errno : -EIO;
	return fsync(fileno(out)) < 0 ? -errno : 0;
}

static int write_file(const char *path, const struct snapshot *snapshot)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	_cleanup_fclose_ FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (!out)
		return -errno;
	fd = -1;
	return write_document(out, snapshot);
}

static int sync_directory(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_close_ int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (!copy)
		return -ENOMEM;
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int lastgood_write(const char *path, const struct snapshot *snapshot)
{
	_cleanup_free_ char *partial = NULL;
	int r;

	if (asprintf(&partial, "%s.new", path) < 0)
		return -ENOMEM;
	r = write_file(partial, snapshot);
	if (r == 0 && rename(partial, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(partial);
		return r;
	}
	return sync_directory(path);
}

/* ---- reading ---- */

static int refuse(char **ret_reason, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int refuse(char **ret_reason, const char *path, const char *format, ...)
{
	char words[512];
	va_list args;

	va_start(args, format);
	vsnprintf(words, sizeof(words), format, args);
	va_end(args);
	if (asprintf(ret_reason, "%s: %s", path, words) < 0)
		*ret_reason = NULL;
	return -EUCLEAN;
}

/* A document under examination. */
struct reader {
	const char *path;
	char **reason;
	struct snapshot *snapshot;
};

/* 0, or -EUCLEAN if the document has other children than ids. */
static int read_children(json_t *ids, struct row *row)
{
	const struct resource *resource = resource_get(row->resource);
	size_t at = 0;

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		for (size_t j = 0; field->kind == FIELD_CHILDREN && j < FIELD_AT(row, field, struct rows)->n; j++) {
			struct row *child = FIELD_AT(row, field, struct rows)->items[j];

			child->id = json_integer_value(json_array_get(ids, at++));
			child->revision = row->revision;
		}
	}
	return at == json_array_size(ids) ? 0 : -EUCLEAN;
}

static int read_row(const struct reader *reader, size_t index, json_t *entry)
{
	_cleanup_(row_unref_p) struct row *row = NULL;
	_cleanup_errs_ struct errs errs = { 0 };
	const char *name = json_string_value(json_object_get(entry, "resource"));
	const struct resource *resource = name ? resource_by_name(name) : NULL;
	int r;

	if (!resource || resource->parent != RESOURCE_NONE || !is_kept(resource->id))
		return refuse(reader->reason, reader->path, "row %zu is of no known resource", index);
	r = decode_row(resource, json_object_get(entry, "row"), NULL, &errs, &row);
	if (r == -EINVAL)
		return refuse(reader->reason, reader->path, "row %zu: %s: %s", index,
		        errs.n ? errs.items[0].pointer : "", errs.n ? errs.items[0].detail : "a rule is broken");
	if (r < 0)
		return r;
	row->id = json_integer_value(json_object_get(entry, "id"));
	row->revision = json_integer_value(json_object_get(entry, "revision"));
	if (read_children(json_object_get(entry, "children"), row) < 0)
		return refuse(reader->reason, reader->path, "row %zu has other children than ids", index);
	return snapshot_put(reader->snapshot, row);
}

static int check_reference(void *userdata, const struct reference *reference)
{
	return snapshot_find(userdata, reference->target, reference->name) ? 0 : -EUCLEAN;
}

static int check_references(const struct reader *reader)
{
	for (enum resource_id i = 0; i < RESOURCES; i++)
		for (size_t j = 0; j < reader->snapshot->rows[i].n; j++) {
			struct row *row = reader->snapshot->rows[i].items[j];

			if (resource_references(row, check_reference, reader->snapshot) < 0)
				return refuse(reader->reason, reader->path,
				        "%s %s refers to something that is not there", resource_get(i)->name,
				        row_name(row));
		}
	return 0;
}

static int read_document(const struct reader *reader, json_t *document)
{
	const char *recorded = json_string_value(json_object_get(document, "config_hash"));
	char hash[CONFIG_HASH_TEXT];
	json_t *entry;
	size_t i;
	int r = 0;

	if (json_integer_value(json_object_get(document, "format")) != FORMAT)
		return refuse(reader->reason, reader->path, "made by another version of this program");
	reader->snapshot->revision = json_integer_value(json_object_get(document, "revision"));
	json_array_foreach(json_object_get(document, "rows"), i, entry)
	{
		r = read_row(reader, i, entry);
		if (r < 0)
			return r;
	}
	r = check_references(reader);
	if (r == 0)
		r = hash_of(reader->snapshot, hash);
	if (r == 0 && (!recorded || strcmp(recorded, hash) != 0))
		r = refuse(reader->reason, reader->path, "the hash is not that of the rows: the file is damaged");
	return r;
}

static int load(const struct reader *reader, json_t **ret)
{
	json_error_t error;
	FILE *in = fopen(reader->path, "re");
	int r = -errno;

	if (!in) {
		(void)refuse(reader->reason, reader->path, "%s", strerror(-r));
		return r;
	}
	*ret = json_loadf(in, JSON_REJECT_DUPLICATES, &error);
	fclose(in);
	if (*ret)
		return 0;
	if (json_error_code(&error) == json_error_out_of_memory)
		return -ENOMEM;
	return refuse(reader->reason, reader->path, "cut off or damaged at line %d: %s", error.line, error.text);
}

int lastgood_read(const char *path, char **ret_reason, struct snapshot **ret)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = snapshot_new();
	struct reader reader = { path, ret_reason, snapshot };
	json_t *document = NULL;
	int r = snapshot ? 0 : -ENOMEM;

	*ret_reason = NULL;
	if (r == 0)
		r = load(&reader, &document);
	if (r == 0)
		r = read_document(&reader, document);
	json_decref(document);
	if (r == 0)
		*ret = TAKE_PTR(snapshot);
	return r;
}
