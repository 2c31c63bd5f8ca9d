#!/bin/sh
# Boots one host and boots it again whenever it asks for a reboot. Runs in a mount namespace of
# its own, so that its mounts vanish with its last process and no run can leave one behind.
# Arguments: name, network namespace, base root, disk, mount point, then nspawn's bind options.
set -eu
name=$1 namespace=$2 base=$3 disk=$4 root=$5
shift 5

mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn
# volatile: otherwise each unmount writes all that is unwritten on this machine to its disk, which
# took up to 40 s. The machine itself goes on running, so nothing is lost by it; the kernel marks
# such a disk and would refuse it the next time.
rm -rf "$disk/work/work/incompat"
mount -t overlay -o "volatile,lowerdir=$base,upperdir=$disk/upper,workdir=$disk/work" overlay "$root"
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network

# A firmware that takes its time, or never comes to an end: nothing answers meanwhile.
firmware() {
    [ -e "$disk/firmware/no-boot" ] || [ -e "$disk/firmware/boot-delay" ] || return 0
    ip -n labsw link set "$name" down
    while [ -e "$disk/firmware/no-boot" ]; do sleep 0.2; done
    # It may be taken back at any moment, and without it the host must boot all the same.
    delay=$(cat "$disk/firmware/boot-delay" 2>/dev/null) || :; sleep "${delay:-0}"
    ip -n labsw link set "$name" up
}

while :; do
    firmware
    # The namespace outlives a reboot; the rules in it would not outlive a real one.
    nsenter --net="/run/netns/$namespace" nft flush ruleset
    status=0
    systemd-nspawn --quiet --register=no --keep-unit -D "$root" -M "$name" --hostname="$name" \
        --network-namespace-path="/run/netns/$namespace" \
        --capability=CAP_NET_ADMIN,CAP_BPF --system-call-filter="bpf @keyring" \
        --resolv-conf=off --timezone=off --link-journal=no --console=pipe \
        --kill-signal=SIGRTMIN+3 "$@" /usr/local/lib/lab-init || status=$?
    [ "$status" = 133 ] || exit "$status"
done
