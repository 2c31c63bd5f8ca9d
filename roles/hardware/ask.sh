# What a host says of itself: user, system, PCI bus and all that its GPUs' tools tell. Where a
# program was asked its section ends with "@@= STATUS" (missing: no such program; hung: no answer,
# not even to SIGKILL).
first_line() { head -n 1 "$1"; }

part user; id -u
as_root=; [ "$SUDO" != yes ] || as_root="sudo -n"
part sudo; echo "$SUDO"
part os; (. /etc/os-release && echo "$ID $VERSION_ID")
part machine; uname -m
part kernel; uname -r
part memory; grep MemTotal /proc/meminfo
part shm; df -Pk /dev/shm | tail -n 1
part virtualization; if has systemd-detect-virt; then limit 10 systemd-detect-virt; fi
part numa-balancing; first_line /proc/sys/kernel/numa_balancing
part numa; ls -d /sys/devices/system/node/node[0-9]*
part secure-boot
if has mokutil; then mokutil --sb-state; else
od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-* | head -n 1; fi
part modules; for m in nvidia nvidia_uvm nouveau amdgpu; do [ -d "/sys/module/$m" ] && echo "$m"; done
part nvidia-loaded; first_line /sys/module/nvidia/version
part nvidia-loaded-kind; first_line /proc/driver/nvidia/version
part nvidia-installed; limit 10 modinfo -F version nvidia
part nvidia-license; limit 10 modinfo -F license nvidia
part dpkg-audit; if has dpkg; then limit 20 dpkg --audit | head -n 5; fi
part reboot-required
if [ -e /run/reboot-required ]; then echo yes; sort -u /run/reboot-required.pkgs; fi
part fabric-manager
if has systemctl; then limit 10 systemctl show -p LoadState -p ActiveState -p UnitFileState nvidia-fabricmanager; fi
limit 10 nv-fabricmanager --version
part pci
for device in /sys/bus/pci/devices/*; do
kind=$(first_line "$device/class")
case "$kind" in 0x03*|0x12*|0x0680*) ;; *) continue ;; esac
driver=$(readlink "$device/driver")
echo "${device##*/} $kind $(first_line "$device/vendor") $(first_line "$device/device")" \
"numa=$(first_line "$device/numa_node") driver=${driver##*/}" \
"width=$(first_line "$device/current_link_width")/$(first_line "$device/max_link_width")"
done
part paths
bridges=""
for device in /sys/bus/pci/devices/*; do
case "$(first_line "$device/class")" in 0x03*|0x12*) ;; *) continue ;; esac
path=$(readlink -f "$device")
echo "${device##*/} iommu=$(first_line "$device/iommu_group/type") $path"
above=${path#*/pci*/}
case "$above" in */*) bridges="$bridges $(echo "${above%/*}" | tr / ' ')" ;; esac
done

# The tools run side by side: without persistence mode each would wake the GPUs up again.
work=$ROOM
[ -n "$work" ] || { part no-room; exit; }
asked=""
# ask NAME PROGRAM COMMAND...
ask() {
name=$1; program=$2; shift 2; asked="$asked $name"
if has "$program"; then
{ "$@"; status=$?; echo; echo "@@= $status"; } >"$work/$name" 2>&1 &
else echo "@@= missing" >"$work/$name"; fi
}
smi() { limit 30 nvidia-smi "$@"; }
# Older drivers refuse a query for the name of one field that they do not know.
query() {
old="index,name,uuid,serial,pci.bus_id,memory.total,memory.used,driver_version"
old="$old,persistence_mode,compute_mode,ecc.mode.current"
old="$old,ecc.errors.uncorrected.volatile.total,pcie.link.gen.current,pcie.link.gen.max"
old="$old,pcie.link.width.current,pcie.link.width.max,mig.mode.current"
old="$old,power.limit,power.default_limit,power.min_limit,power.max_limit"
middle="$old,pci.device_id,memory.reserved,compute_cap,pcie.link.gen.gpumax"
middle="$middle,remapped_rows.pending,remapped_rows.failure,retired_pages.pending"
for fields in "$middle,fabric.state,fabric.status,gpu_recovery_action" \
"$middle,fabric.state,fabric.status" "$middle" "$old" \
index,name,uuid,pci.bus_id,memory.total,memory.used,driver_version; do
text=$(smi --query-gpu="$fields" --format=csv,nounits 2>&1); status=$?
case "$text" in *"not a valid field"*) ;; *) break ;; esac
done
echo "$text"
return "$status"
}
kernel_log() {
{ limit 20 sudo -n journalctl -k -b -o short-iso --no-pager || limit 10 sudo -n dmesg ||
limit 10 dmesg; } 2>/dev/null | grep -E 'NVRM|nvidia-nvswitch|amdgpu' | tail -n 300
}
# Only root is shown what bridges do, and each is asked alone: some devices are slow to read.
acs() {
limit 20 sudo -n sh -c 'for bridge; do lspci -D -vv -s "$bridge"; done' sh \
$(echo "$bridges" | tr ' ' '\n' | sort -u) | awk '/^[0-9a-f]/ { at = $1 } /ACSCtl:/ { print at, $0 }'
}
ask query nvidia-smi query
if has nvidia-smi; then
ask list nvidia-smi smi -L
ask topo nvidia-smi smi topo -m
ask topo-p2p nvidia-smi smi topo -p2p r
ask apps nvidia-smi smi --query-compute-apps=gpu_uuid,pid,process_name,used_memory \
--format=csv,nounits
ask version nvidia-smi smi --version
fi
# Who is not in the groups of AMD's devices is told nothing, or less. sudo has a PATH of its own, and
# `limit` cannot end what runs as root.
amd() {
tool=$(command -v "$1"); shift
if has timeout; then limit 35 $as_root timeout -k 5 30 "$tool" "$@"; else $as_root "$tool" "$@"; fi
}
ask lspci lspci limit 20 lspci -D -nn
ask kernel-log sh kernel_log
if [ -n "$bridges" ]; then ask acs lspci acs; fi
if has amd-smi; then
ask amd-smi amd-smi amd amd-smi static --json
ask amd-topology amd-smi amd amd-smi topology --json
else
ask rocm-smi rocm-smi amd rocm-smi --showproductname --showmeminfo vram --showbus --showtopo
fi
# Not `wait`: a process that hangs in the kernel outlives its own limit.
answered() { for name in $asked; do grep -q '^@@= ' "$work/$name" || return 1; done; }
tries=0
until answered || [ "$tries" -ge 180 ]; do sleep 0.2 || sleep 1; tries=$((tries + 1)); done
if grep -q 'MIG ' "$work/list"; then
ask details nvidia-smi smi -q -x
tries=0
until answered || [ "$tries" -ge 180 ]; do sleep 0.2 || sleep 1; tries=$((tries + 1)); done
fi
# Far more than any tool has to say: a broken one must not fill the other side's memory.
for name in $asked; do
part "$name"; head -c 4000000 "$work/$name"; echo
tail -n 1 "$work/$name" | grep '^@@= ' || echo "@@= hung"
done
part owners
for pid in $(grep -oE ', [0-9]+, ' "$work/apps" | tr -d ', '); do
echo "$pid $(tail -n 1 "/proc/$pid/cgroup")"
done
