# What tuning finds on a host beside what roles/hardware asks: fstab's line of /dev/shm, its own unit,
# limit and files. As root. The arguments are the script of the GPUs' settings, its unit's name, and
# the paths of both files.
script=$1; unit=$2; shift 2
part fstab; grep -E '^[[:space:]]*[^#[:space:]]+[[:space:]]+/dev/shm/*[[:space:]]' /etc/fstab
part unit; systemctl is-active "$unit"; systemctl is-enabled "$unit"
part power-set; sed -n 's/^power_limit_w=//p' "$script"
part files; file_states "$@"
