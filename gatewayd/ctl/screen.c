/* The terminal, see screen.h. Plain escape codes: every terminal of this century knows these few. */
#include "gatewayd/ctl/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define PAGE_ON  "\033[?1049h\033[?25l"
#define PAGE_OFF "\033[?25h\033[?1049l"
#define HOME     "\033[H"
#define REST     "\033[J"
#define LINE_END "\033[K"

static struct termios before;
static bool is_terminal, has_keys;
static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	(void)number;
	ended = 1;
}

void screen_begin(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct termios raw;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	is_terminal = isatty(STDOUT_FILENO);
	has_keys = is_terminal && tcgetattr(STDIN_FILENO, &before) == 0;
	if (has_keys) {
		raw = before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	}
	if (is_terminal)
		fputs(PAGE_ON, stdout);
}

void screen_end(void)
{
	if (is_terminal)
		fputs(PAGE_OFF, stdout);
	fflush(stdout);
	if (has_keys)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

void screen_size(unsigned *ret_lines, unsigned *ret_columns)
{
	struct winsize size = { 0 };

	*ret_lines = 50;
	*ret_columns = 1000;
	if (!is_terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
		return;
	*ret_lines = size.ws_row;
	*ret_columns = size.ws_col;
}

/* One line, cut: a longer one would wrap and push the page up. */
static void show_line(const char *line, size_t length, unsigned columns)
{
	size_t shown = 0, n = 0;

	while (n < length && (shown < columns || ((unsigned char)line[n] & 0xc0) == 0x80))
		shown += ((unsigned char)line[n++] & 0xc0) != 0x80;
	fwrite(line, 1, n, stdout);
}

void screen_show(const char *text)
{
	unsigned lines, columns;

	screen_size(&lines, &columns);
	if (!is_terminal) {
		fputs(text, stdout);
		fflush(stdout);
		return;
	}
	fputs(HOME, stdout);
	for (unsigned i = 0; i + 1 < lines && *text; i++) {
		size_t length = strcspn(text, "\n");

		show_line(text, length, columns);
		fputs(LINE_END "\n", stdout);
		text += length + (text[length] == '\n');
	}
	fputs(REST, stdout);
	fflush(stdout);
}

bool screen_wait(double seconds)
{
	struct pollfd key = { .fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN };
	char pressed;
	int r;

	if (ended)
		return true;
	r = poll(&key, 1, (int)(seconds * 1000));
	if (r < 0)
		return ended || errno != EINTR;
	return ended || (r > 0 && (read(STDIN_FILENO, &pressed, 1) <= 0 || pressed == 'q' || pressed == 'Q'));
}
