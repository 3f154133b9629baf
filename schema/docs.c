/* The embedded documents; see docs.h. The headers are made by gwgen in the build directory. */
#include "schema/docs.h"

#include "gatewayd/base/cleanup.h"
#include "schema/gwgen.h"
#include "schema/migrate_002_embed.h"
#include "schema/migrate_003_embed.h"
#include "schema/migrate_004_embed.h"
#include "schema/migrate_005_embed.h"
#include "schema/migrate_006_embed.h"
#include "schema/openapi_embed.h"
#include "schema/schema_embed.h"
#include "schema/sql_embed.h"

#define DOCUMENT(name)                                                                                                 \
	const char *docs_##name(size_t *ret_length)                                                                    \
	{                                                                                                              \
		if (ret_length)                                                                                        \
			*ret_length = sizeof(embed_##name) - 1;                                                        \
		return embed_##name;                                                                                   \
	}

DOCUMENT(openapi)
DOCUMENT(schema)
DOCUMENT(sql)

int docs_version(void)
{
	return GWGEN_USER_VERSION;
}

const char *docs_migration(int64_t version, size_t *ret_length)
{
	static const struct {
		const char *text;
		size_t length;
	} steps[] = {
		[2] = { embed_migrate_002, sizeof(embed_migrate_002) - 1 },
		[3] = { embed_migrate_003, sizeof(embed_migrate_003) - 1 },
		[4] = { embed_migrate_004, sizeof(embed_migrate_004) - 1 },
		[5] = { embed_migrate_005, sizeof(embed_migrate_005) - 1 },
		[6] = { embed_migrate_006, sizeof(embed_migrate_006) - 1 },
	};

	if (version < 0 || version >= (int64_t)ARRAY_SIZE(steps) || !steps[version].text)
		return NULL;
	if (ret_length)
		*ret_length = steps[version].length;
	return steps[version].text;
}
