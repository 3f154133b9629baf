/* Static files, see assets.h. */
#include "webapi/assets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "webapi/precondition.h"
#include "webapi/problem.h"

struct asset {
	char *path; /* "js/app.js" */
	const char *type;
	char *body;
	size_t length;
	char etag[24];
};

struct assets {
	struct asset items[ASSETS_FILES_MAX];
	size_t n, bytes;
};

static const char built_in[] =
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>gatewayd</title>\n"
        "<h1>gatewayd</h1>\n<p>The API is at <a href=\"/api/v1/status\">/api/v1</a>, its description at "
        "<a href=\"/openapi.json\">/openapi.json</a>. No web interface is installed (option --ui-dir).</p></html>\n";

static const char *type_of(const char *path)
{
	static const struct {
		const char *ending, *type;
	} types[] = {
		{ ".html", "text/html; charset=utf-8" },
		{ ".css", "text/css; charset=utf-8" },
		{ ".js", "text/javascript; charset=utf-8" },
		{ ".mjs", "text/javascript; charset=utf-8" },
		{ ".json", "application/json" },
		{ ".svg", "image/svg+xml" },
		{ ".png", "image/png" },
		{ ".ico", "image/x-icon" },
		{ ".woff2", "font/woff2" },
		{ ".txt", "text/plain; charset=utf-8" },
	};
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(types); i++)
		if (!strcmp(dot, types[i].ending))
			return types[i].type;
	return "application/octet-stream";
}

/* FNV-1a: tells contents apart, promises nothing against somebody who can write the files. */
static uint64_t hash(const char *bytes, size_t length)
{
	uint64_t value = 0xcbf29ce484222325;

	for (size_t i = 0; i < length; i++)
		value = (value ^ (unsigned char)bytes[i]) * 0x100000001b3;
	return value;
}

/* Takes over path and body, also on failure. */
static int add(struct assets *assets, char *path, char *body, size_t length)
{
	struct asset *asset = &assets->items[assets->n];

	if (!path || !body || assets->n == ASSETS_FILES_MAX || length > ASSETS_BYTES_MAX - assets->bytes) {
		int r = path && body ? -E2BIG : -ENOMEM;

		free(path);
		free(body);
		return r;
	}
	*asset = (struct asset){ .path = path, .type = type_of(path), .body = body, .length = length };
	snprintf(asset->etag, sizeof(asset->etag), "\"%016" PRIx64 "\"", hash(body, length));
	assets->n++;
	assets->bytes += length;
	return 0;
}

static int read_all(int fd, char *body, size_t length)
{
	for (size_t at = 0; at < length;) {
		ssize_t n = read(fd, body + at, length - at);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

static int load_file(struct assets *assets, int fd, const struct stat *status, const char *path)
{
	size_t length = (size_t)status->st_size;
	char *body;
	int r;

	if (length > ASSETS_BYTES_MAX)
		return -E2BIG;
	body = malloc(length + 1);
	if (!body)
		return -ENOMEM;
	r = read_all(fd, body, length);
	if (r < 0) {
		free(body);
		return r;
	}
	return add(assets, strdup(path), body, length);
}

static int load_directory(struct assets *assets, int parent, const char *name, const char *prefix, unsigned depth);

static int load_entry(struct assets *assets, int directory, const char *name, const char *prefix, unsigned depth)
{
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char path[PATH_MAX];
	struct stat status, link;

	if (fd < 0 || fstat(fd, &status) < 0 || fstatat(directory, name, &link, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "/" : "", name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	if (S_ISREG(status.st_mode))
		return load_file(assets, fd, &status, path);
	if (S_ISDIR(link.st_mode))
		return load_directory(assets, directory, name, path, depth + 1);
	return 0;
}

static int load_directory(struct assets *assets, int parent, const char *name, const char *prefix, unsigned depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (!directory) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	if (depth > ASSETS_DEPTH_MAX)
		r = -E2BIG;
	while (!r && (errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			r = load_entry(assets, fd, entry->d_name, prefix, depth);
	closedir(directory);
	return r;
}

int assets_load(const char *ui_dir, struct assets **ret)
{
	struct assets *assets = calloc(1, sizeof(*assets));
	int r = -ENOENT;

	if (!assets)
		return -ENOMEM;
	if (ui_dir)
		r = access(ui_dir, F_OK) < 0 ? -errno : load_directory(assets, AT_FDCWD, ui_dir, "", 0);
	if (r == -ENOENT && !assets->n)
		r = add(assets, strdup("index.html"), strdup(built_in), sizeof(built_in) - 1);
	if (r < 0) {
		assets_free(assets);
		return r;
	}
	*ret = assets;
	return 0;
}

void assets_free(struct assets *assets)
{
	if (!assets)
		return;
	for (size_t i = 0; i < assets->n; i++) {
		free(assets->items[i].path);
		free(assets->items[i].body);
	}
	free(assets);
}

static const struct asset *find(const struct assets *assets, const char *path, size_t length)
{
	for (size_t i = 0; i < assets->n; i++) {
		const char *own = assets->items[i].path;

		if (!strncmp(own, path, length) && (!own[length] || !strcmp(own + length, "/index.html")))
			return &assets->items[i];
	}
	return NULL;
}

/* The request's segments with slashes between them, "index.html" if there are none. Segments hold no slash and no NUL,
 * and the result is only compared, never opened. */
static char *wanted_path(const struct request *request)
{
	size_t length = sizeof("index.html");
	char *path;

	for (size_t i = 0; i < request->n_segments; i++)
		length += strlen(request->segments[i]) + 1;
	path = malloc(length);
	if (!path)
		return NULL;
	strcpy(path, request->n_segments ? "" : "index.html");
	for (size_t i = 0; i < request->n_segments; i++) {
		strcat(path, i ? "/" : "");
		strcat(path, request->segments[i]);
	}
	return path;
}

int assets_answer(const struct request *request, struct response *response)
{
	_cleanup_free_ char *path = wanted_path(request);
	const struct asset *asset = path ? find(request->assets, path, strlen(path)) : NULL;

	if (!path)
		return -ENOMEM;
	if (!asset)
		return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no such file.");
	response->page = true;
	if (response_header(response, "ETag", "%s", asset->etag) < 0)
		return -ENOMEM;
	if (precondition_check(request, asset->etag) == PRECONDITION_NOT_MODIFIED) {
		response->status = 304;
		return 0;
	}
	response_static(response, 200, asset->type, asset->body, asset->length);
	return 0;
}
