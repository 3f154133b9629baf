/*
 * Scope-bound ownership for C: a variable marked with one of these attributes
 * releases what it holds when it goes out of scope. Used by every layer; knows
 * nothing of the project's own types (each module defines its own _cleanup_
 * function next to its free function with CLEANUP_DEFINE).
 */
#ifndef GW_BASE_CLEANUP_H
#define GW_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* Defines f##_p, the form the cleanup attribute wants, for a free function that takes a pointer. */
#define CLEANUP_DEFINE(type, f)                                                                                        \
	static inline void f##_p(type *pointer)                                                                        \
	{                                                                                                              \
		if (*pointer)                                                                                          \
			f(*pointer);                                                                                   \
	}

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define _cleanup_free_   _cleanup_(cleanup_free)
#define _cleanup_close_  _cleanup_(cleanup_close)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)

/* Hands the value on and leaves an empty hand behind: the cleanup of the variable then does nothing. */
#define TAKE_PTR(pointer)                                                                                              \
	({                                                                                                             \
		__typeof__(pointer) took_ = (pointer);                                                                 \
		(pointer) = NULL;                                                                                      \
		took_;                                                                                                 \
	})
#define TAKE_FD(fd)                                                                                                    \
	({                                                                                                             \
		int took_ = (fd);                                                                                      \
		(fd) = -1;                                                                                             \
		took_;                                                                                                 \
	})

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#endif
