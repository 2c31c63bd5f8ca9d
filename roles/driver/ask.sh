# What a host says of its driver, in one go. POSIX sh, as root, of apt and dnf hosts alike. Each part
# begins with "@@ NAME". Paths of our own files are the arguments.
exec 2>/dev/null </dev/null
PATH="$PATH:/usr/sbin:/sbin:/opt/rocm/bin"
export PATH LC_ALL=C
has() { command -v "$1" >/dev/null; }
limit() { if has timeout; then timeout -k 5 "$@"; else shift; "$@"; fi; }
part() { echo; echo "@@ $1"; }
kernel=$(uname -r)

part os; (. /etc/os-release && echo "$ID $VERSION_ID $(uname -m)")
part kernel; echo "$kernel"
part kernels; ls -1 /boot | sed -n 's/^vmlinuz-//p' | grep -v rescue
part next
if has grubby; then grubby --default-kernel | sed 's|.*/vmlinuz-||'; fi
part headers
for k in /lib/modules/*; do [ -e "$k/build" ] && echo "${k##*/}"; done
part packages
if has dpkg-query; then
dpkg-query -W -f='${binary:Package} ${Version} ${db:Status-Abbrev}\n' |
grep -E 'nvidia|^lib(cuda|nv)|^cuda-drivers|^nvlsm|^amdgpu|^amd-smi|^dkms|^linux-(image|headers|modules)|^(infiniband-diags|libibumad3) '
else
rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE} ii\n' |
grep -E 'nvidia|^cuda-drivers|^nvlsm|^amdgpu|^amd-smi|^dkms|^kernel|^epel-release|^(infiniband-diags|libibumad) |versionlock'
fi
part held
if has apt-mark; then apt-mark showhold; else cat /etc/dnf/plugins/versionlock.list; fi
part interrupted
if has dpkg; then
dpkg --audit; ls -A /var/lib/dpkg/updates
# Without the lock: another apt may be at work.
apt-get -qq -o Debug::NoLocking=1 check >/dev/null || echo "unmet dependencies"
fi
part module; limit 10 modinfo -F version nvidia
part modules
for k in /lib/modules/*; do
v=$(limit 10 modinfo -k "${k##*/}" -F version nvidia) && [ -n "$v" ] && echo "${k##*/} $v"
done
part open-modules
for k in /lib/modules/*; do
case "$(limit 10 modinfo -k "${k##*/}" -F license nvidia)" in *MIT*) echo "${k##*/}" ;; esac
done
part amdgpu-modules
for k in /lib/modules/*; do
path=$(limit 10 modinfo -k "${k##*/}" -n amdgpu) && [ -n "$path" ] && echo "${k##*/} $path"
done
# By what they were built from: the kernel's own has no version.
part amdgpu-source; limit 10 modinfo -F srcversion amdgpu
part amdgpu-loaded; head -n 1 /sys/module/amdgpu/srcversion
part loaded; head -n 1 /sys/module/nvidia/version
part loaded-kind; head -n 1 /proc/driver/nvidia/version
# Not /proc/modules: what is built into the kernel holds the GPUs as well.
part in-kernel
for m in nvidia nouveau amdgpu; do [ -d "/sys/module/$m" ] && echo "$m"; done
part library
ls -1 /usr/lib/*/libnvidia-ml.so.* /usr/lib/*/nvidia/current/libnvidia-ml.so.* \
/usr/lib64/libnvidia-ml.so.* | sed -n 's/.*libnvidia-ml\.so\.\([0-9]*\.[0-9.]*\)$/\1/p'
part answers; limit 30 nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1
part nvidia-smi; command -v nvidia-smi
part amd-answers; limit 30 amd-smi version >/dev/null && limit 30 amd-smi list | grep -c '^GPU'
part rocm-smi; command -v rocm-smi
# What amdgpu gives programs to compute on, and its own memory: the banks that kfd shows may be the
# system's. A node without SIMD units is a CPU.
part kfd
for node in /sys/class/kfd/kfd/topology/nodes/*; do
grep -q '^simd_count [1-9]' "$node/properties" || continue
card=/sys/class/drm/renderD$(sed -n 's/^drm_render_minor //p' "$node/properties")/device
echo "$(sed -n 's/^device_id //p' "$node/properties")" "$(head -n 1 "$card/mem_info_vram_total")"
done
part replicas
limit 10 systemctl list-units --plain --no-legend --state=active 'llm-engine@*' | awk '{print $1}'
part container; if has systemd-detect-virt; then limit 10 systemd-detect-virt -c; fi
part outside; ls /usr/bin/nvidia-uninstall
part nouveau-blocked
grep -lsE '^[[:space:]]*blacklist[[:space:]]+nouveau' /etc/modprobe.d/*.conf \
/usr/lib/modprobe.d/*.conf /lib/modprobe.d/*.conf
part initramfs-old
# Of the kernels that there are: beside them lie old copies and rescue images.
for k in /lib/modules/*; do
for i in "/boot/initrd.img-${k##*/}" "/boot/initramfs-${k##*/}.img"; do
[ -e "$i" ] && [ "$i" -ot /etc/modprobe.d/llm-nouveau.conf ] && echo "$i"
done; done
for unit in nvidia-persistenced nvidia-fabricmanager; do
part "$unit"
limit 10 systemctl show -p LoadState -p ActiveState -p UnitFileState "$unit"
done
part fabric-manager-version; limit 10 nv-fabricmanager --version
part switches
for device in /sys/bus/pci/devices/*; do
[ "$(head -n 1 "$device/vendor")" = 0x10de ] || continue
case "$(head -n 1 "$device/class")" in 0x0680*) echo "${device##*/}" ;; esac
done
part free
df -Pk /usr /boot /var | awk 'NR > 1 {print $1, $4, $6}'
part secure-boot
if has mokutil; then mokutil --sb-state; else
od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-* | head -n 1; fi
part own-key
for key in /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der; do
[ -e "$key" ] && limit 10 mokutil --test-key "$key"
done
part reboot-required; cat /run/reboot-required.pkgs
# Written by our own upgrade; a reboot clears /run.
part kernel-upgraded; cat /run/llm-kernel-upgraded
part amdgpu-upgraded; cat /run/llm-amdgpu-upgraded
part sources
grep -sE '^(deb|baseurl|URIs:)' /etc/apt/sources.list /etc/apt/sources.list.d/* \
/etc/yum.repos.d/*.repo | sort -u
part files
for f in "$@"; do [ -f "$f" ] && printf '%s %s %s\n' "$(stat -c '%a %U %G' -- "$f")" \
"$(sha256sum <"$f" | cut -d' ' -f1)" "$f"; done
part keys
for f in /etc/apt/keyrings/llm-*.asc /etc/pki/rpm-gpg/RPM-GPG-KEY-llm-*; do
[ -f "$f" ] && echo "$f $(base64 <"$f" | tr -d '\n')"
done
part end
