# What tuning finds on a host: /dev/shm, its line in fstab, the GPUs' settings and who uses them.
# POSIX sh, as root. Each part begins with "@@ NAME".
exec 2>/dev/null </dev/null
export LC_ALL=C
part() { echo; echo "@@ $1"; }
smi() { timeout -k 5 30 nvidia-smi "$@"; }
part memory; grep MemTotal /proc/meminfo
part shm; grep -E '^[^ ]+ /dev/shm ' /proc/mounts | tail -n 1 | grep -q . && df -Pk /dev/shm | tail -n 1
part fstab; grep -E '^[[:space:]]*[^#[:space:]]+[[:space:]]+/dev/shm/*[[:space:]]' /etc/fstab
part unit; systemctl is-active llm-gpu-settings.service; systemctl is-enabled llm-gpu-settings.service
part power-set; sed -n 's/^power_limit_w=//p' /etc/llm/gpu-settings.sh
if command -v nvidia-smi >/dev/null; then
fields=index,uuid,name,power.limit,power.default_limit,power.min_limit,power.max_limit
part gpus; smi --query-gpu="$fields" --format=csv,noheader,nounits
part list; smi -L
part apps; smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader
fi
