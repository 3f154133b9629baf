#!/bin/bash
# ./dev check-61, inside the emulated machine: process 1 of it. Makes the rest of a system, runs the tests, ends the
# machine. Arguments: the project's directory, the directory of results, what pytest is to run.
root=$1 results=$2
shift 2
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export PYTHONPATH=$root/tests PYTHONDONTWRITEBYTECODE=1
export LAB_BUILD=release LAB_SLOWNESS=10

end() {
	sync
	echo o >/proc/sysrq-trigger
	while :; do :; done # process 1 must not end before the power does
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname check-61
ip link set lo up
# Descriptors as systemd gives them to a service that asks.
ulimit -n 65536
cd "$root" || end
echo "check-61: $(uname -r), $(nproc) processors, up $(cut -d' ' -f1 /proc/uptime) s"
python3 -m pytest -p no:cacheprovider --junitxml="$results/kernel-6.1.xml" --color=no --durations=5 -ra "$@" </dev/null
echo $? >"$results/exit-code"
dmesg --level=emerg,alert,crit,err,warn >"$results/dmesg" 2>/dev/null
touch "$results/ended"
end
