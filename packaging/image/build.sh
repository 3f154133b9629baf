#!/bin/bash
# Makes the appliance's disk image: a Debian root from packages, and around it the partitions. Called by ./dev image, as
# root. Neither loop devices nor mounts of disks are needed: file systems are made from directories.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
	cat <<'USAGE'
usage: ./dev image [--version V] [--with PACKAGE]... [--key FILE] [--mirror URL] [--test ...]

  --version V      version of the image; the default is that of the package with the date
  --with PACKAGE   one more Debian package in the image, like keepalived; repeatable
  --key FILE       private Ed25519 key (PEM) that signs the update; images made with it take no other updates
  --debs DIR       the packages, instead of those that ./dev deb --once makes now
  --mirror URL     where Debian comes from (default http://deb.debian.org/debian; its security updates are beside it)
  --test           boots the image that is there, and tests it (--test --help for options)

leaves in build/image: gatewayd.raw, gatewayd.qcow2 (the whole disk), gatewayd.update (for gateway-update)
USAGE
}

say() { printf '\n== %s\n' "$*"; }
fail() {
	printf 'image: %s\n' "$*" >&2
	exit 2
}

MIB=1048576
# Sizes in MiB. The boot partition holds two kernels and initrds, and a third while one is written over.
ESP=192 SLOT=400 DATA=400
KERNEL_OPTIONS='console=tty0 console=ttyS0,115200 panic=10 loglevel=4 systemd.gpt_auto=no systemd.condition-needs-update=no'
SUITE=bookworm

packages=(linux-image-amd64 apparmor logrotate initramfs-tools busybox systemd systemd-sysv systemd-boot systemd-resolved
	systemd-timesyncd udev dbus kmod iproute2 iputils-ping nftables curl ca-certificates openssl openssh-server
	e2fsprogs util-linux procps less zstd)

# What is not unpacked at all: documentation but for licenses, other languages, drivers of what a gateway has not.
excludes() {
	local path
	for path in /usr/share/{man,info,locale,lintian,bug,doc-base,icons,pixmaps}/'*' '/usr/share/doc/*' '/usr/share/i18n/*'; do
		echo "path-exclude=$path"
	done
	echo 'path-include=/usr/share/doc/*/copyright'
	echo 'path-exclude=/lib/udev/hwdb.d/*'
	for path in sound arch/x86/kvm drivers/{edac,gpu,media,staging,iio,infiniband,isdn,bluetooth,comedi,mtd,leds,nfc,w1,pcmcia,parport,firewire} \
		drivers/{accel,md,platform,rtc,power,target,ntb,vdpa,xen,video,uwb,misc/mei,memstick} \
		drivers/net/{wireless,can,ieee802154,hamradio,arcnet,fddi,wwan,plip,slip,wan} \
		drivers/input/{joystick,touchscreen,tablet,misc} drivers/usb/{gadget,atm,misc,typec,image,usbip} \
		fs/{btrfs,xfs,f2fs,ocfs2,gfs2,nfs,nfsd,nfs_common,lockd,smb,cifs,ksmbd,ceph,jfs,reiserfs,ntfs,ntfs3,hfs,hfsplus} \
		fs/{ubifs,jffs2,afs,orangefs,dlm,coda,nilfs2,udf,ufs,minix,9p,affs,befs,bfs,efs,erofs,exfat,freevxfs,hpfs,omfs,qnx4,qnx6,romfs,sysv,zonefs} \
		net/{bluetooth,mac80211,wireless,can,nfc,ieee802154,6lowpan,mac802154,rds,tipc,sunrpc,ceph,9p,batman-adv,ax25} \
		net/{netrom,rose,x25,appletalk,atm,rxrpc,smc,caif,phonet,lapb,qrtr,hsr,dccp}; do
		echo "path-exclude=/lib/modules/*/kernel/$path/*"
	done
}

make_root() {
	local list options=() package wanted
	while IFS= read -r package; do
		options+=(--dpkgopt="$package")
	done < <(excludes)
	wanted=$(IFS=,; echo "${packages[*]}")
	list=$work/sources.list
	cat >"$list" <<LIST
deb $mirror $SUITE main
deb $mirror $SUITE-updates main
deb ${mirror%/debian}/debian-security $SUITE-security main
LIST
	rm -rf "$root"
	# shellcheck disable=SC2016 # $1 is mmdebstrap's
	mmdebstrap --mode=root --variant=minbase --architectures=amd64 --format=directory --include="$wanted" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' "${options[@]}" \
		--essential-hook='cp -r --no-preserve=ownership '"$here"'/root/. "$1"' \
		--customize-hook='mkdir "$1/debs" && cp '"$debs"'/*.deb "$1/debs" && rm -f "$1"/debs/*dbgsym*' \
		--customize-hook='rm -f "$1/etc/resolv.conf" && cp /etc/resolv.conf "$1/etc"' \
		--customize-hook='chroot "$1" sh -c "apt-get -y --no-install-recommends install /debs/*.deb && rm -r /debs"' \
		"$SUITE" "$root" "$list"
}

# What is the machine's own is not the image's; what the image is goes into it.
finish_root() {
	local unit
	mv "$root"/boot/vmlinuz-* "$work/vmlinuz"
	mv "$root"/boot/initrd.img-* "$work/initrd"
	find "$root/boot" "$root/tmp" "$root/var/tmp" "$root/var/log" "$root/var/cache/apt" "$root/var/lib/apt/lists" -mindepth 1 -delete
	rm -f "$root"/etc/ssh/ssh_host_* "$root"/{vmlinuz,initrd.img}* "$root"/etc/{hostname,hosts} "$root/var/lib/dbus/machine-id"
	rm -f "$root/var/lib/systemd/random-seed" "$root"/etc/*- "$root"/var/lib/dpkg/*-old
	: >"$root/etc/machine-id"
	echo gatewayd >"$root/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 gatewayd\n::1 localhost\n' >"$root/etc/hosts"
	ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
	ln -sf busybox "$root/bin/vi"
	mkdir -p "$root"/{data,var/lib/gatewayd}
	chmod 700 "$root/var/lib/gatewayd"
	printf 'IMAGE_ID=gatewayd\nIMAGE_VERSION=%s\n' "$version" >>"$root/usr/lib/os-release"
	for unit in systemd-networkd systemd-resolved systemd-timesyncd gatewayd gatewayd-early gateway-healthy gateway-drive \
		gateway-grow gateway-trial.timer getty@tty1 serial-getty@ttyS0; do
		chroot "$root" systemctl -q enable "$unit"
	done
	for unit in ssh systemd-networkd-wait-online nftables apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
		e2scrub_all.timer e2scrub_reap fstrim.timer; do
		chroot "$root" systemctl -q disable "$unit" 2>/dev/null || :
	done
	for unit in {systemd-boot-update,systemd-firstboot,systemd-machine-id-commit,apt-daily,apt-daily-upgrade}.service \
		{dev-hugepages,sys-kernel-debug,sys-kernel-tracing,sys-fs-fuse-connections}.mount; do
		chroot "$root" systemctl -q mask "$unit"
	done
	chroot "$root" usermod -p '*' root
	rm -f "$root"/etc/*-
	[ -z "$key" ] || openssl pkey -in "$key" -pubout -out "$root/usr/lib/gatewayd-image/update.pem"
	chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' >"$out/packages.txt"
}

# $1: the file system's file, $2: how hard to compress; more arguments for mksquashfs, the last of them files to leave out.
make_squashfs() {
	local file=$1 level=$2
	shift 2
	rm -f "$file"
	mksquashfs "$root" "$file" -noappend -no-progress -quiet -comp zstd -Xcompression-level "$level" -wildcards "$@" \
		'proc/*' 'sys/*' 'dev/*' 'run/*'
}

# A line of the manifest: name, size, hash.
manifest_line() {
	printf '%s %s %s\n' "${1##*/}" "$(stat -c %s "$1")" "$(sha256sum <"$1" | cut -d' ' -f1)"
}

# $1: the update's file, $2: its version, $3: the root's file system.
make_update() {
	local parts=$work/update
	rm -rf "$parts"
	mkdir "$parts"
	cp "$work"/{vmlinuz,initrd} "$parts"
	ln "$3" "$parts/root.squashfs"
	{
		printf 'gatewayd-image 1\nversion %s\n' "$2"
		manifest_line "$parts/vmlinuz"
		manifest_line "$parts/initrd"
		manifest_line "$parts/root.squashfs"
	} >"$parts/manifest"
	local members=(manifest)
	if [ -n "$key" ]; then
		openssl pkeyutl -sign -inkey "$key" -rawin -in "$parts/manifest" -out "$parts/manifest.sig"
		members+=(manifest.sig)
	fi
	tar -C "$parts" --owner=0 --group=0 --format=ustar -cf "$1" "${members[@]}" vmlinuz initrd root.squashfs
	rm -r "$parts"
}

# The boot partition: systemd-boot where firmware looks by itself, slot a and its entry.
make_esp() {
	local boot=$work/esp image=$work/esp.img
	rm -rf "$boot"
	mkdir -p "$boot"/{EFI/BOOT,EFI/systemd,loader/entries,gatewayd-a}
	cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$boot/EFI/BOOT/BOOTX64.EFI"
	cp "$work"/{vmlinuz,initrd} "$boot/gatewayd-a"
	# Two seconds for who sits at the console; systemd-boot's own editor would make a root shell of any keyboard.
	printf 'timeout 2\neditor no\n' >"$boot/loader/loader.conf"
	echo "$KERNEL_OPTIONS" >"$boot/loader/gatewayd.options"
	(
		export GATEWAYD_BOOT=$boot
		# shellcheck source=root/usr/lib/gatewayd-image/slots.sh
		. "$here/root/usr/lib/gatewayd-image/slots.sh"
		write_entries a "$version" 0
	)
	rm -f "$image"
	truncate -s ${ESP}M "$image"
	mkfs.vfat -F 32 -s 4 -n GW-BOOT "$image" >/dev/null
	mcopy -s -i "$image" "$boot"/* ::
}

# $1: file, $2: where in the disk, in MiB.
place() {
	dd if="$1" of="$disk" bs=1M seek="$2" conv=notrunc,sparse status=none
}

make_disk() {
	local data=$work/data.img end=$((1 + ESP + 2 * SLOT + DATA))
	rm -f "$disk" "$data"
	truncate -s ${DATA}M "$data"
	# What is small now may be large tomorrow: blocks and journal for that.
	mkfs.ext4 -q -L gatewayd-data -b 4096 -J size=16 -E lazy_itable_init=0 "$data"
	truncate -s $((end + 1))M "$disk"
	sfdisk -q "$disk" <<TABLE
label: gpt
start=1MiB, size=${ESP}MiB, type=uefi, name=gatewayd-esp
size=${SLOT}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=gatewayd-root-a
size=${SLOT}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=gatewayd-root-b
size=${DATA}MiB, type=linux, name=gatewayd-data
TABLE
	place "$work/esp.img" 1
	place "$work/root.squashfs" $((1 + ESP))
	place "$data" $((1 + ESP + 2 * SLOT))
	rm -f "$out/gatewayd.qcow2"
	qemu-img convert -f raw -O qcow2 -c "$disk" "$out/gatewayd.qcow2"
}

# What ./dev image --test installs to see it given up: the same root with a daemon that ends at once.
make_spoilt() {
	make_squashfs "$work/spoilt.squashfs" 1 -p 'usr/sbin/gatewayd f 755 0 0 printf "#!/bin/sh\nexit 1\n"' -e usr/sbin/gatewayd
	make_update "$out/spoilt.update" "$version.spoilt" "$work/spoilt.squashfs"
	rm "$work/spoilt.squashfs"
}

version='' key='' mirror=http://deb.debian.org/debian debs='' out=''
while [ $# -gt 0 ]; do
	case $1 in
	--help)
		usage
		exit 0
		;;
	--version | --key | --mirror | --with | --debs | --out)
		[ $# -gt 1 ] || fail "$1 wants a value"
		case $1 in
		--with) packages+=("$2") ;;
		*) declare "${1#--}=$2" ;;
		esac
		shift
		;;
	*)
		usage >&2
		exit 2
		;;
	esac
	shift
done
[ -n "$out" ] || fail "called without --out"
[[ $version =~ ^[0-9A-Za-z.+~-]*$ ]] || fail "the version may have letters, digits and . + ~ -, not '$version'"
work=$out/work root=$out/work/root disk=$out/gatewayd.raw
mkdir -p "$work"
[ -z "$key" ] || openssl pkey -in "$key" -noout || fail "$key is no private key"
if [ -z "$debs" ]; then
	debs=$here/../../build/deb/first
	"$here/../../dev" deb --once
fi
[ -n "$version" ] || version=$(dpkg-deb -f "$(echo "$debs"/gatewayd_*.deb)" Version)+$(date -u +%Y%m%d%H%M)

say "Debian and the packages (version $version)"
make_root >"$out/root.log" 2>&1 || {
	tail -n 40 "$out/root.log"
	fail "the root could not be made: see $out/root.log"
}
finish_root
say "file systems"
make_squashfs "$work/root.squashfs" 9 -e
[ "$(stat -c %s "$work/root.squashfs")" -le $((SLOT * MIB)) ] || fail "the root does not fit into a slot of $SLOT MiB"
make_esp
say "disk"
make_disk
make_update "$out/gatewayd.update" "$version" "$work/root.squashfs"
make_spoilt
echo "$version" >"$out/version"
ls -l --block-size=M "$out"/gatewayd.* "$out/spoilt.update"
