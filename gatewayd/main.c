/* gatewayd: reads the command line and hands over to daemon.c, or to what is done once. */
#include <stdlib.h>

#include "gatewayd/base/log.h"
#include "gatewayd/daemon.h"
#include "gatewayd/early.h"
#include "gatewayd/movers.h"

int main(int argc, char **argv)
{
	struct options options;

	if (options_parse(argc, argv, &options) < 0)
		return EXIT_FAILURE;
	log_setup("gatewayd", options.log_level);
	switch (options.mode) {
	case OPTIONS_RUN:
		return daemon_run(&options);
	case OPTIONS_CHECK:
		return daemon_check(&options);
	case OPTIONS_CLEANUP:
		return daemon_cleanup(&options);
	case OPTIONS_EARLY:
		return early_run(&options);
	case OPTIONS_BPF_CHECK:
		return movers_check();
	case OPTIONS_EXIT:
		return EXIT_SUCCESS;
	}
	return EXIT_FAILURE;
}
