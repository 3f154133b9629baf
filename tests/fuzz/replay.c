/* Gives a fuzz target the files named, or all files of the directories named: its corpus as a plain test. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>

#include "tests/fuzz/fuzz.h"

static unsigned long done;

static void replay_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *file = fopen(path, "re");
	uint8_t *exact;
	size_t n;

	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	n = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	exact = malloc(n ? n : 1);
	FUZZ_EXPECT(exact);
	memcpy(exact, bytes, n);
	LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	done++;
}

static void replay(const char *path)
{
	DIR *directory = opendir(path);
	char inner[PATH_MAX];
	struct dirent *entry;

	if (!directory) {
		replay_file(path);
		return;
	}
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		replay(inner);
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%lu inputs\n", done);
	return done == 0;
}
