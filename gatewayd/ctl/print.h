/*
 * What gatewayctl shows: JSON as it came, tables with aligned columns, numbers
 * for people. What came from the network may hold any character; control
 * characters never reach the terminal.
 */
#ifndef GW_CTL_PRINT_H
#define GW_CTL_PRINT_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#define PRINT_COLUMNS_MAX 13
/* Widest cell of a table; longer text is cut, JSON shows all of it. */
#define PRINT_CELL_MAX 60

struct print_table {
	size_t columns;
	char **cells; /* of all rows, the heads first */
	size_t n, size;
	FILE *out;
	int failed; /* memory was out: nothing is printed */
};

/* A table with these heads, with spaces between; a head that begins with '>' is of a column of numbers. */
void print_begin(struct print_table *table, FILE *out, const char *heads);
/* The next cell, formatted. */
void print_cell(struct print_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints it and frees its memory. A table without rows is a line with its heads. */
void print_end(struct print_table *table);

/* The document, indented, to standard output. */
void print_json(const json_t *document);
/* A value as a cell has it: text as it is, lists with commas, "-" for null; a new string or NULL. */
char *print_value(const json_t *value);
/* What a path such as "to_target.bytes" leads to in a document, or NULL. */
json_t *print_find(const json_t *document, const char *path);
/* Text and number at a path; "" and 0 if there is none. */
const char *print_text(const json_t *document, const char *path);
#define PRINT_PLACE_BYTES 80
/* "192.0.2.1:80", "[2001:db8::1]:80" of an object with address and port; cut if there is no room. Returns the buffer.
 */
const char *print_place(const json_t *object, char buffer[PRINT_PLACE_BYTES]);
double print_number(const json_t *document, const char *path);

#define PRINT_UNIT_BYTES 24
/* "512", "1.5k", "20M", "3.1G", of units of 1000; "1h02m", "3m10s", "4.2s"; into a buffer of PRINT_UNIT_BYTES. */
const char *print_amount(double value, char *buffer);
const char *print_duration(double seconds, char *buffer);
/* Replaces control characters; returns the text. */
char *print_clean(char *text);

#endif
