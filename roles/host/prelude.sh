# What every part of a question to a host begins with. POSIX sh, from no terminal, so that nothing
# can wait for an answer.
exec 2>/dev/null </dev/null
# Neither lspci's nor ROCm's nor WSL's folder must be on an ssh user's PATH.
PATH="$PATH:/usr/sbin:/sbin:/opt/rocm/bin:/usr/lib/wsl/lib"
export PATH LC_ALL=C

has() { command -v "$1" >/dev/null; }
# -k: a driver that hangs does not always let go at the first signal.
limit() { if has timeout; then timeout -k 5 "$@"; else shift; "$@"; fi; }
part() { echo; echo "@@ $1"; }
# Mode, owner, group, SHA-256 and path of each regular file.
file_states() {
for file; do [ -f "$file" ] && printf '%s %s %s\n' "$(stat -c '%a %U %G' -- "$file")" \
"$(sha256sum <"$file" | cut -d' ' -f1)" "$file"; done
}
