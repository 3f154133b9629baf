/* Where our programs are; see attached.h. */
#include "gatewayd/attached.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/log.h"

void attached_clear(struct attached *attached)
{
	free(attached->items);
	attached->items = NULL;
	attached->n = attached->size = 0;
}

static struct attached_item *find(const struct attached *attached, const char *interface)
{
	for (size_t i = 0; i < attached->n; i++)
		if (strcmp(attached->items[i].interface, interface) == 0)
			return &attached->items[i];
	return NULL;
}

const struct attached_item *attached_find(const struct attached *attached, const char *interface)
{
	return find(attached, interface);
}

void attached_try(struct attached *attached, const char *interface)
{
	struct attached_item *item = find(attached, interface);
	char before[sizeof(item->why)] = "";
	int r;

	if (!attached->fits(attached->userdata, interface))
		return;
	if (!item) {
		if (array_reserve(&attached->items, &attached->size, attached->n + 1, sizeof(*item)) < 0)
			return;
		item = &attached->items[attached->n++];
		*item = (struct attached_item){ 0 };
		snprintf(item->interface, sizeof(item->interface), "%s", interface);
	}
	snprintf(before, sizeof(before), "%s", item->why);
	item->ifindex = if_nametoindex(interface);
	r = attached->attach(attached->userdata, interface);
	snprintf(item->why, sizeof(item->why), "%s",
	        r == -EBUSY ? "somebody else's filter is in its place"
	        : r < 0     ? strerror(-r)
	                    : "");
	/* Said once. */
	if (r < 0 && strcmp(before, item->why) != 0)
		log_warning("%s is not used on %s: %s", attached->what, interface, item->why);
}

void attached_try_all(struct attached *attached)
{
	struct if_nameindex *names = if_nameindex();

	for (const struct if_nameindex *name = names; name && name->if_index; name++)
		attached_try(attached, name->if_name);
	if (names)
		if_freenameindex(names);
}

void attached_try_again(struct attached *attached)
{
	for (size_t i = 0; i < attached->n; i++)
		if (attached->items[i].why[0])
			attached_try(attached, attached->items[i].interface);
}

void attached_restore(struct attached *attached)
{
	for (size_t i = 0; i < attached->n; i++) {
		const struct attached_item *item = &attached->items[i];

		if (item->why[0] || !attached->fits(attached->userdata, item->interface) ||
		        attached->is_there(item->interface))
			continue;
		log_warning("somebody has taken %s off %s; it is put there again", attached->what, item->interface);
		attached_try(attached, item->interface);
	}
}

void attached_forget(struct attached *attached, const char *interface)
{
	struct attached_item *item = find(attached, interface);

	if (item)
		*item = attached->items[--attached->n];
}

void attached_link_changed(struct attached *attached, const char *interface)
{
	const struct attached_item *item = find(attached, interface);

	if (if_nametoindex(interface) != 0) {
		attached_try(attached, interface);
	} else if (item) {
		attached->gone(attached->userdata, item->ifindex);
		attached_forget(attached, interface);
	}
}

json_t *attached_status(const struct attached *attached)
{
	json_t *interfaces = json_array();

	for (size_t i = 0; i < attached->n; i++) {
		const struct attached_item *item = &attached->items[i];

		if (json_array_append_new(
		            interfaces, json_pack("{s:s, s:b, s:s?}", "interface", item->interface, "attached",
		                                item->why[0] == '\0', "why", item->why[0] ? item->why : NULL)) < 0) {
			json_decref(interfaces);
			return NULL;
		}
	}
	return interfaces;
}
