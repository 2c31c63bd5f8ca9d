# What a host says of its driver, apt and dnf hosts alike, beside what roles/hardware asks. As root.
# The arguments are the name of replicas' units and the paths of our own files.
units=$1; shift

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
ls -A /var/lib/dpkg/updates
# Without the lock: another apt may be at work.
apt-get -qq -o Debug::NoLocking=1 check >/dev/null || echo "unmet dependencies"
fi
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
part library
ls -1 /usr/lib/*/libnvidia-ml.so.* /usr/lib/*/nvidia/current/libnvidia-ml.so.* \
/usr/lib64/libnvidia-ml.so.* | sed -n 's/.*libnvidia-ml\.so\.\([0-9]*\.[0-9.]*\)$/\1/p'
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
limit 10 systemctl list-units --plain --no-legend --state=active "$units" | awk '{print $1}'
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
part nvidia-persistenced
limit 10 systemctl show -p LoadState -p ActiveState -p UnitFileState nvidia-persistenced
part free
df -Pk /usr /boot /var | awk 'NR > 1 {print $1, $4, $6}'
part own-key
for key in /var/lib/dkms/mok.pub /var/lib/shim-signed/mok/MOK.der; do
[ -e "$key" ] && limit 10 mokutil --test-key "$key"
done
# Written by our own upgrade; a reboot clears /run.
part kernel-upgraded; cat /run/llm-kernel-upgraded
part amdgpu-upgraded; cat /run/llm-amdgpu-upgraded
part sources
grep -sE '^(deb|baseurl|URIs:)' /etc/apt/sources.list /etc/apt/sources.list.d/* \
/etc/yum.repos.d/*.repo | sort -u
part files; file_states "$@"
part keys
for f in /etc/apt/keyrings/llm-*.asc /etc/pki/rpm-gpg/RPM-GPG-KEY-llm-*; do
[ -f "$f" ] && echo "$f $(base64 <"$f" | tr -d '\n')"
done
