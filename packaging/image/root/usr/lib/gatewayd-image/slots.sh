# The two slots of the appliance and their entries in the menu of systemd-boot. Sourced by the scripts beside it and by
# the image's build.
#
# A slot is a partition with a read-only root (gatewayd-root-a, -b), a directory of the boot partition with its kernel
# and initrd, and an entry: gatewayd-a.conf, or gatewayd-a+LEFT-DONE.conf while it is on trial. Of the entries that have
# tries left or need none, systemd-boot takes the one with the highest `version`, which here counts installations.

BOOT=${GATEWAYD_BOOT:-/boot}
PARTITIONS=${GATEWAYD_PARTITIONS:-/dev/disk/by-partlabel}
CMDLINE=${GATEWAYD_CMDLINE:-/proc/cmdline}
EFI_VARIABLES=${GATEWAYD_EFI_VARIABLES:-/sys/firmware/efi/efivars}
ENTRIES=$BOOT/loader/entries
# Set by systemd-boot when it has booted an entry that counts tries.
COUNTED=LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The slot that this system was booted from: a or b.
running_slot() {
	for word in $(cat "$CMDLINE"); do
		case $word in
		gatewayd.slot=[ab])
			echo "${word#*=}"
			return 0
			;;
		esac
	done
	return 1
}

other_slot() {
	[ "$1" = a ] && echo b || echo a
}

# The file of a slot's entry, if it has one.
entry_of() {
	for entry in "$ENTRIES/gatewayd-$1.conf" "$ENTRIES/gatewayd-$1+"*.conf; do
		if [ -e "$entry" ]; then
			echo "$entry"
			return 0
		fi
	done
	return 1
}

# A field of an entry's file.
entry_field() {
	sed -n "s/^$2[[:space:]]\{1,\}//p" "$1" | head -n 1
}

# The version of what is in a slot; the entry's title is "gatewayd VERSION (slot a)".
slot_version() {
	entry=$(entry_of "$1") || return 0
	title=$(entry_field "$entry" title)
	title=${title#gatewayd }
	echo "${title%% *}"
}

# empty, good, trial, or failed: no tries left, and not the one that runs.
slot_state() {
	case $(entry_of "$1") in
	'') echo empty ;;
	*+0-*.conf | *+0.conf) [ "$1" = "$(running_slot)" ] && echo trial || echo failed ;;
	*+*.conf) echo trial ;;
	*) echo good ;;
	esac
}

# Whether this boot counts as a try and has not been found good. Also right while the boot partition is not mounted.
on_trial() {
	[ -e "$EFI_VARIABLES/$COUNTED" ] && [ ! -e "$ENTRIES/gatewayd-$(running_slot).conf" ]
}

# A number that sorts after those of all entries.
next_number() {
	highest=0
	for entry in "$ENTRIES"/gatewayd-[ab]*.conf; do
		[ -e "$entry" ] || continue
		number=$(entry_field "$entry" version | tr -cd 0-9)
		[ "${number:-0}" -le "$highest" ] || highest=$number
	done
	echo $((highest + 1))
}

remove_entries() {
	rm -f "$ENTRIES/gatewayd-$1.conf" "$ENTRIES/gatewayd-$1+"*.conf "$ENTRIES/recover-$1.conf"
}

# Text of an entry: slot, title, key and number to sort by, more options for the kernel.
entry_text() {
	cat <<TEXT
title $2
sort-key $3
version $4
linux /gatewayd-$1/vmlinuz
initrd /gatewayd-$1/initrd
options root=PARTLABEL=gatewayd-root-$1 rootfstype=squashfs ro gatewayd.slot=$1 $5
TEXT
}

# Gives a slot its entries: slot, version, number of tries (0: it is good, without a trial). What this machine's kernel
# is to be told besides is in loader/gatewayd.options.
write_entries() {
	options=$(cat "$BOOT/loader/gatewayd.options")
	name=gatewayd-$1
	[ "$3" = 0 ] || name=$name+$3
	number=$(next_number)
	remove_entries "$1"
	entry_text "$1" "gatewayd $2 (recover slot $1)" recover "$number" \
		"$options gatewayd.recover systemd.unit=rescue.target systemd.setenv=SYSTEMD_SULOGIN_FORCE=1" \
		>"$ENTRIES/recover-$1.conf"
	# The name is the last thing to come: what is half written is no entry.
	entry_text "$1" "gatewayd $2 (slot $1)" gatewayd "$number" "$options" >"$ENTRIES/$name.new"
	sync
	mv "$ENTRIES/$name.new" "$ENTRIES/$name.conf"
	sync
}
