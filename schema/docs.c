/* The embedded documents; see docs.h. The headers are made by gwgen in the build directory. */
#include "schema/docs.h"

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
