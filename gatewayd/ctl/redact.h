/* Takes secrets out of what goes to strangers. Used by the command support-bundle. */
#ifndef GW_CTL_REDACT_H
#define GW_CTL_REDACT_H

#include <jansson.h>

/* What stands in a secret's place. */
#define REDACT_MARK "(removed)"

/* Replaces, in the whole document, the value of every member whose name speaks of a secret, and every text that looks
 * like a private key or a bearer token. */
void redact_json(json_t *document);
/* The same for text that is no JSON, in place: lines that look like it become the mark. */
void redact_text(char *text);

#endif
