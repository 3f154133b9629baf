/* Bytes as text. */
#ifndef GW_BASE_HEX_H
#define GW_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* Writes 2 n lower-case digits and a terminator. */
void hex_format(const uint8_t *bytes, size_t n, char *text);

#endif
