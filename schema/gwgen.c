/*
 * gwgen: makes every document that follows from the field tables.
 *   gwgen write ARTEFACT FILE    writes it
 *   gwgen check ARTEFACT FILE    exits 1 if FILE differs from what it would write
 *   gwgen embed ARTEFACT FILE    writes a C header with the document as a string
 *   gwgen quote NAME FILE HEADER the same for a file that is written by hand
 * Artefacts: sql, openapi, schema, manual, dict. Runs while building; no part of the programs.
 */
#include "schema/gwgen.h"

#include <stdlib.h>
#include <string.h>

static const struct artefact {
	const char *name;
	void (*write)(FILE *out);
} artefacts[] = {
	{ "sql", gwgen_sql },
	{ "openapi", gwgen_openapi },
	{ "schema", gwgen_schema },
	{ "manual", gwgen_manual },
	{ "dict", gwgen_dict },
};

json_t *gwgen_need(json_t *value)
{
	if (!value) {
		fputs("gwgen: out of memory, or a text that is not UTF-8\n", stderr);
		exit(2);
	}
	return value;
}

void gwgen_dump(json_t *document, FILE *out)
{
	_cleanup_free_ char *text = json_dumps(document, JSON_INDENT(1));

	if (!text)
		gwgen_need(NULL);
	fprintf(out, "%s\n", text);
	json_decref(document);
}

/* The whole artefact as one string. */
static char *render(const struct artefact *artefact, size_t *ret_length)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, ret_length);

	if (!out)
		gwgen_need(NULL);
	artefact->write(out);
	if (fclose(out) != 0)
		gwgen_need(NULL);
	return text;
}

static int write_file(const char *text, size_t length, const char *path)
{
	FILE *out = fopen(path, "w");
	size_t written = out ? fwrite(text, 1, length, out) : 0;

	if (!out || fclose(out) != 0 || written != length) {
		perror(path);
		return 2;
	}
	return 0;
}

static int check_file(const char *text, size_t length, const char *path)
{
	_cleanup_fclose_ FILE *in = fopen(path, "r");
	_cleanup_free_ char *found = malloc(length + 1);

	if (!in || !found) {
		perror(path);
		return 2;
	}
	if (fread(found, 1, length + 1, in) == length && memcmp(found, text, length) == 0)
		return 0;
	fprintf(stderr, "%s differs from the tables in schema/: build the target regen and read the diff\n", path);
	return 1;
}

static int embed_file(const char *text, size_t length, const char *name, const char *path)
{
	FILE *out = fopen(path, "w");

	if (!out) {
		perror(path);
		return 2;
	}
	fprintf(out, "/* Made by gwgen. */\nstatic const char embed_%s[] = {", name);
	for (size_t i = 0; i < length; i++)
		fprintf(out, "%s%d,", i % 24 ? "" : "\n", (signed char)text[i]);
	fputs("\n0 };\n", out);
	if (fclose(out) != 0) {
		perror(path);
		return 2;
	}
	return 0;
}

static int quote_file(const char *name, const char *from, const char *to)
{
	_cleanup_fclose_ FILE *in = fopen(from, "r");
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	ssize_t length = in ? getdelim(&text, &size, '\0', in) : -1;

	if (length < 0) {
		perror(from);
		return 2;
	}
	return embed_file(text, (size_t)length, name, to);
}

static int run(const char *command, const struct artefact *artefact, const char *path)
{
	size_t length = 0;
	_cleanup_free_ char *text = render(artefact, &length);

	if (strcmp(command, "write") == 0)
		return write_file(text, length, path);
	if (strcmp(command, "check") == 0)
		return check_file(text, length, path);
	if (strcmp(command, "embed") == 0)
		return embed_file(text, length, artefact->name, path);
	return 2;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 4 && i < ARRAY_SIZE(artefacts); i++)
		if (strcmp(argv[2], artefacts[i].name) == 0)
			return run(argv[1], &artefacts[i], argv[3]);
	if (argc == 5 && strcmp(argv[1], "quote") == 0)
		return quote_file(argv[2], argv[3], argv[4]);
	fputs("usage: gwgen write|check|embed sql|openapi|schema|manual|dict FILE, or quote NAME FILE HEADER\n",
	        stderr);
	return 2;
}
