"""The shell script that changes a host as `Steps` say. Pure."""

from roles.tuning.render import SCRIPT, UNIT, UNIT_NAME
from roles.tuning.steps import Steps

FSTAB = "/etc/fstab"

# Every other line stays, byte for byte. Errors that the old table also has are ignored: an
# unplugged disk must not keep /dev/shm small.
_FSTAB = """\
fstab=$(readlink -f {fstab})
[ -e "$fstab" ] || (umask 022; : >"$fstab")
new=$(mktemp -d) || exit 1
trap 'rm -rf "$new" "$fstab.pyinfra-new"' EXIT
awk -v size={size_mib}m '
/^[ \\t]*[^# \\t]/ && $2 ~ "^/dev/shm/*$" {{
count = split($4, options, ","); kept = ""
for (i = 1; i <= count; i++)
if (options[i] !~ /^(size|nr_blocks)=/) kept = kept options[i] ","
print $1, $2, $3, kept "size=" size, ($5 == "" ? 0 : $5), ($6 == "" ? 0 : $6)
found = 1; next
}}
{{ print }}
END {{ if (!found) print "tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=" size " 0 0" }}
' "$fstab" >"$new/fstab"
errors() {{
LC_ALL=C findmnt --verify --tab-file "$1" 2>&1 | grep -E '^ *\\[E\\]|parse error at' |
sed "s|$1||" | sort
}}
errors "$fstab" >"$new/before" || true
errors "$new/fstab" >"$new/after" || true
told=$(comm -13 "$new/before" "$new/after")
[ -z "$told" ] || {{
echo "the new {fstab} is not valid, the old one stays: $told" >&2
exit 1
}}
cp -a "$fstab" "$fstab.pyinfra-new"
cat "$new/fstab" >"$fstab.pyinfra-new"
sync "$fstab.pyinfra-new"
mv -f "$fstab.pyinfra-new" "$fstab"
systemctl daemon-reload"""


def fstab_script(size_mib: int, fstab: str = FSTAB) -> str:
    """Write the size of /dev/shm into fstab, which systemd applies at boot; checked, then moved."""
    return _FSTAB.format(size_mib=size_mib, fstab=fstab)


def shm_script(steps: Steps) -> str:
    """Grow /dev/shm now and for the next boot; "" if it is large enough."""
    parts = []
    if steps.fstab_mib:
        parts.append(f"(\nset -eu\n{fstab_script(steps.fstab_mib)}\n)")
    if steps.shm_mib:
        parts.append(f"mount -o remount,size={steps.shm_mib}m /dev/shm")
    return "\n".join(parts)


def check_script() -> str:
    """Check the staged unit and script before they replace the old ones."""
    return (
        f'sh -n "$STAGE"{SCRIPT} && '
        f'said=$(systemd-analyze verify --man=no "$STAGE"{UNIT} 2>&1) && '
        # systemd-analyze exits with 0 even for unknown keys and values.
        '{ ! printf "%s\\n" "$said" | grep llm-; }'
    )


def restore_script(steps: Steps) -> str:
    """Restore each GPU's default power limit; "" if none differs.

    This runs before the record of our limit is removed. A GPU that refuses is tried again by the
    next run.
    """
    if not steps.restore:
        return ""
    lines = [f"nvidia-smi -i {gpu} -pl {watts:g} || failed=1" for gpu, watts in steps.restore]
    return "\n".join(["failed=", *lines, '[ -z "$failed" ]'])


def gpu_script(steps: Steps) -> str:
    """Apply the installed unit, or remove it; "" if there is nothing to do."""
    lines = []
    if steps.absent:
        lines.append(f"systemctl disable --now --quiet {UNIT_NAME} || true")
        lines += [f"rm -f {path}" for path in steps.absent]
        lines.append("systemctl daemon-reload")
    if steps.changed:
        lines.append("systemctl daemon-reload")
    if steps.apply:
        lines += [
            f"systemctl enable --quiet {UNIT_NAME}",
            f"systemctl restart {UNIT_NAME} || {{ journalctl -u {UNIT_NAME} -n 20 -o cat >&2; "
            "exit 1; }",
        ]
    return "\n".join(lines)
