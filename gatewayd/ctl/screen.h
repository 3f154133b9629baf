/* The terminal of the command top: its own page, keys without Enter, and everything as it was at the end. */
#ifndef GW_CTL_SCREEN_H
#define GW_CTL_SCREEN_H

#include <stdbool.h>

/* Takes the terminal, if standard output is one; else nothing happens here, and pages follow each other. */
void screen_begin(void);
/* Gives it back. */
void screen_end(void);
/* Lines and columns that a page may have. */
void screen_size(unsigned *ret_lines, unsigned *ret_columns);
/* Shows the text from the upper left corner, cut to the size. */
void screen_show(const char *text);
/* Waits for a key or the end of the time. True: somebody wants to end it (q, Ctrl-C, or a signal). */
bool screen_wait(double seconds);

#endif
