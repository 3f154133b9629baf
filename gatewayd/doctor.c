/* The facts, see doctor.h. What cannot be found out is told as unknown, and judged as no fault. */
#include "gatewayd/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/core.h"
#include "gatewayd/files.h"
#include "gatewayd/spawn.h"
#include "gatewayd/store_history.h"

static void sysctl_get(struct doctor_sysctl *ret, const char *path)
{
	ret->value = files_read_number(path);
}

static long conf_of(const char *interface, const char *key)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/%s", interface, key);
	return files_read_number(path);
}

static void note(struct doctor_sysctl *found, long value, const char *where)
{
	if (value <= found->value)
		return;
	found->value = value;
	snprintf(found->where, sizeof(found->where), "%s", where);
}

/* What of the settings of IPv4 is in effect on an interface: the kernel takes the larger of "all" and its own. */
static void interface_settings(const char *name, struct doctor_facts *facts)
{
	long all = conf_of("all", "rp_filter"), own = conf_of(name, "rp_filter");

	/* 2 is loose and does no harm, also where the other of the two is strict. */
	if ((all > own ? all : own) == 1)
		note(&facts->rp_filter, 1, own == 1 ? name : "all");
	note(&facts->src_valid_mark, conf_of("all", "src_valid_mark"), "all");
	note(&facts->src_valid_mark, conf_of(name, "src_valid_mark"), name);
	note(&facts->route_localnet, conf_of("all", "route_localnet"), "all");
	note(&facts->route_localnet, conf_of(name, "route_localnet"), name);
}

static void interface_link(int fd, const char *name, struct doctor_facts *facts)
{
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0 || !(request.ifr_flags & IFF_UP) ||
	        ioctl(fd, SIOCGIFMTU, &request) < 0)
		return;
	if (facts->mtu_least == 0 || request.ifr_mtu < facts->mtu_least) {
		facts->mtu_least = request.ifr_mtu;
		snprintf(facts->mtu_where, sizeof(facts->mtu_where), "%s", name);
	}
}

static void look_at_interfaces(struct doctor_facts *facts)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct if_nameindex *all = if_nameindex();

	for (struct if_nameindex *one = all; fd >= 0 && one && one->if_index != 0; one++) {
		char path[64];

		if (strcmp(one->if_name, "lo") == 0)
			continue;
		interface_settings(one->if_name, facts);
		interface_link(fd, one->if_name, facts);
		snprintf(path, sizeof(path), "/sys/class/net/%s/bridge", one->if_name);
		facts->has_bridge |= access(path, F_OK) == 0;
	}
	if (all)
		if_freenameindex(all);
}

static void look_at_kernel(struct core *core, struct doctor_facts *facts, json_t **ret_foreign)
{
	struct route_look routes;

	sysctl_get(&facts->ip_forward, "/proc/sys/net/ipv4/ip_forward");
	sysctl_get(&facts->ip6_forward, "/proc/sys/net/ipv6/conf/all/forwarding");
	sysctl_get(&facts->bridge_netfilter, "/proc/sys/net/bridge/bridge-nf-call-iptables");
	sysctl_get(&facts->conntrack_count, "/proc/sys/net/netfilter/nf_conntrack_count");
	sysctl_get(&facts->conntrack_max, "/proc/sys/net/netfilter/nf_conntrack_max");
	sysctl_get(&facts->somaxconn, "/proc/sys/net/core/somaxconn");
	facts->has_routing = apply_look_at_routing(core->apply, &routes) == 0;
	if (facts->has_routing) {
		facts->routing_wrong = routes.wrong;
		facts->foreign_routes = routes.foreign;
		facts->foreign_marks = routes.mark_rules;
		facts->foreign_mark_priority = routes.mark_priority;
		snprintf(facts->foreign_first, sizeof(facts->foreign_first), "%s", routes.first);
	}
	if (kernel_nft_foreign(core->kernel, ret_foreign) == 0)
		facts->foreign = *ret_foreign;
	facts->table_differs = core->drift && drift_present(core->drift);
}

/* An interface, NULL for any; each is told once. */
static void note_interface(struct doctor_facts *facts, const char *interface)
{
	for (size_t i = 0; i < facts->n_interfaces; i++) {
		const char *known = facts->interfaces[i];

		if (known == interface || (known && interface && strcmp(known, interface) == 0))
			return;
	}
	if (facts->n_interfaces < DOCTOR_INTERFACES_MAX)
		facts->interfaces[facts->n_interfaces++] = interface;
}

/* Where what listeners bypass comes in. Without a listener it is forwarded all the same, from anywhere. */
static void look_at_listeners(struct core *core, struct doctor_facts *facts)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		for (size_t k = 0; listener->enabled && k < listener->interfaces.n; k++)
			note_interface(facts, listener->interfaces.items[k]);
		if (listener->enabled && listener->interfaces.n == 0)
			note_interface(facts, NULL);
	}
	if (facts->n_interfaces == 0)
		note_interface(facts, NULL);
}

static void look_at_relay(struct core *core, struct doctor_facts *facts)
{
	const struct movers *movers = worker_movers(core->worker);
	struct rlimit limit;

	facts->relay_runs = worker_state(core->worker) == WORKER_RUNNING;
	facts->relay_uid = spawn_relay_uid();
	facts->revision = core_revision(core);
	facts->nft_generation = apply_nft_generation(core->apply);
	facts->route_generation = apply_route_generation(core->apply);
	facts->relay_generation = worker_generation(core->worker);
	/* Without CAP_SYS_RESOURCE another user's limit cannot be asked for; the relay was given as many as we have. */
	if (worker_pid(core->worker) > 0 && (prlimit(worker_pid(core->worker), RLIMIT_NOFILE, NULL, &limit) == 0 ||
	                                            getrlimit(RLIMIT_NOFILE, &limit) == 0)) {
		facts->descriptors_limit = limit.rlim_cur;
		facts->descriptors_used = 2 * worker_flows(core->worker);
	}
	facts->sockmap_state = movers_state_name(movers_state(movers));
	facts->sockmap_why = movers_why(movers);
	facts->ebpf = intercept_is_on(core->intercept);
	facts->ebpf_why = intercept_why(core->intercept);
	facts->sockmap_wanted = core->options->mover && strcmp(core->options->mover, "sockmap") == 0;
}

static void look_at_prefilters(struct core *core, struct doctor_facts *facts, struct shield_health *health)
{
	*health = (struct shield_health){ 0 };
	if (core->shield)
		shield_health(core->shield, health);
	facts->prefilters = health->n;
	facts->prefilters_failed = health->failed;
	facts->prefilter_first = health->interface;
	facts->prefilter_why = health->why;
}

static void look_at_return_paths(struct core *core, struct doctor_facts *facts)
{
	(void)names_follow(&core->names, apply_snapshot(core->apply));
	return_paths_facts(core->ways, &facts->back);
}

static int take_time(void *userdata, const struct store_revision *revision)
{
	*(int64_t *)userdata = revision->created_at;
	return 0;
}

static void look_at_storage(struct core *core, struct doctor_facts *facts)
{
	struct statvfs disk;

	facts->clock = (int64_t)time(NULL);
	(void)store_history_revisions(core->store, 0, 1, take_time, &facts->newest_revision_at);
	facts->state_dir = core->options->state_dir;
	facts->disk_free_mib = UINT64_MAX;
	if (statvfs(facts->state_dir, &disk) == 0)
		facts->disk_free_mib = (uint64_t)disk.f_bavail * disk.f_frsize / 1048576;
	facts->sqlite_version = store_library(&facts->sqlite_number);
}

/* What our own doing, or the relay's end, makes another at once. */
static uint64_t state_of(struct core *core)
{
	const uint64_t parts[] = { (uint64_t)core_revision(core), apply_serial(core->apply),
		core->drift && drift_present(core->drift), (uint64_t)worker_state(core->worker),
		(uint64_t)worker_generation(core->worker), (uint64_t)worker_pid(core->worker),
		(uint64_t)movers_state(worker_movers(core->worker)), return_paths_serial(core->ways) };
	uint64_t state = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		state = (state ^ parts[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return state;
}

const struct doctor_memory *doctor_run(struct core *core)
{
	struct doctor_facts facts = { .rp_filter = { .value = 0 },
		.table = core->options->route_table,
		.mark = core->options->mark,
		.mark_mask = core->options->mark_mask };
	struct doctor_memory *memory = &core->doctor;
	struct shield_health health;
	json_t *foreign = NULL;

	memory->state = state_of(core);
	look_at_interfaces(&facts);
	look_at_kernel(core, &facts, &foreign);
	look_at_listeners(core, &facts);
	look_at_relay(core, &facts);
	look_at_prefilters(core, &facts, &health);
	look_at_return_paths(core, &facts);
	look_at_storage(core, &facts);
	memory->n = doctor_examine(&facts, memory->checks);
	memory->at_us = clock_us();
	json_decref(foreign);
	return memory;
}

const struct doctor_memory *doctor_recent(struct core *core)
{
	const struct doctor_memory *memory = &core->doctor;

	if (memory->at_us == 0 || clock_us() - memory->at_us >= DOCTOR_RECENT_MS * UINT64_C(1000) ||
	        memory->state != state_of(core))
		return doctor_run(core);
	return memory;
}
