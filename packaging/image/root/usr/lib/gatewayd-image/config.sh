# How the appliance's own settings are written, by the questions of gateway-setup and from a drive. Sourced.
ROOT=${GATEWAYD_ROOT:-}
SETTINGS=$ROOT/etc/gatewayd-image
NETWORK=$ROOT/etc/systemd/network

# Keys of the configuration file that say where the API is served; arguments: URLs. None: loopback only.
write_listen() {
	file=$ROOT/etc/gatewayd/gatewayd.conf
	{
		[ ! -e "$file" ] || grep -v '^listen[[:space:]]*=' "$file" || :
		for url in "$@"; do
			echo "listen = $url"
		done
	} >"$file.new"
	mv "$file.new" "$file"
}

write_hostname() {
	echo "$1" >"$ROOT/etc/hostname"
	printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$1" >"$ROOT/etc/hosts"
	[ -n "$ROOT" ] || hostname "$1"
}

# DNS servers, separated by spaces, or none.
write_dns() {
	file=$ROOT/etc/systemd/resolved.conf.d/gatewayd.conf
	rm -f "$file"
	[ "$1" != none ] || return 0
	mkdir -p "${file%/*}"
	printf '[Resolve]\nDNS=%s\n' "$1" >"$file"
}

valid_hostname() {
	printf '%s\n' "$1" | grep -Eqx '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
}

configured() {
	mkdir -p "$SETTINGS"
	: >"$SETTINGS/configured"
	sync
}
