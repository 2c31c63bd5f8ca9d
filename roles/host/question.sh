# Asks the parts of a question side by side and prints what each says, one after the other.
# The prelude stands before this text, and in PRELUDE; DEADLINE_S after it all ends.
work=; asked=""; left=0; asked_sudo=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
# dash runs no EXIT trap for a signal, as when nobody reads the answers any more.
trap 'exit 1' HUP INT PIPE TERM
# A full file system may still take a folder.
for folder in /dev/shm "${TMPDIR:-/tmp}"; do
work=$(mktemp -d -p "$folder") || continue
echo room >"$work/room"
[ -s "$work/room" ] && mkfifo "$work/ended" && exec 3<>"$work/ended" && break
rm -rf "$work"; work=
done

# answer NAME ARGUMENT...: what one part says, its script in `text`; cut short if `end` is missing.
answer() {
name=$1; shift
ROOM=; [ -z "$work" ] || { ROOM="$work/$name.d"; mkdir "$ROOM"; }
export ROOM
sh -c "$PRELUDE
$text" "$name" "$@"
part end
}
# No part can speak for another one, nor fill the other side's memory.
shown() { printf '\n@@@ %s\n' "$1"; head -c 20000000 | sed 's/^@@@/ &/'; }
begun() { asked="$asked $1"; left=$((left + 1)); }
begin() {
text=$(cat)
if [ -z "$work" ]; then answer "$@" | shown "$1"; return; fi
begun "$1"
{ answer "$@" >"$work/$1"; echo >&3; } &
}
ask_sudo() {
asked_sudo=yes; SUDO=; sudo_errors=
has sudo && sudo_errors=$(limit 10 sudo -n true 2>&1 >/dev/null) && SUDO=yes
export SUDO
}
begin_root() {
text=$(cat)
if [ "$(id -u)" = 0 ]; then set -- sh; elif [ "$SUDO" = yes ]; then set -- sudo -n sh; else return; fi
if [ -z "$work" ]; then "$@" -c "$text"; return; fi
begun @root
{ "$@" -c "$text" >"$work/@root" 2>"$work/@errors"; echo >"$work/@ended"; echo >&3; } &
}
sudo_said() {
part errors; echo "$sudo_errors"; cat "$work/@errors"
case "$asked" in *@root*) [ -e "$work/@ended" ] || part hung ;; esac
part end
}
# Not `wait`: what hangs in the kernel outlives its own limit.
finish() {
if [ "$left" -gt 0 ]; then await; fi
for name in $asked; do
# What root says comes from this same text: it is cut and marked already.
if [ "$name" = @root ]; then cat "$work/$name"; else shown "$name" <"$work/$name"; fi
done
[ -z "$asked_sudo" ] || sudo_said | shown sudo
}
await() {
(
trap 'kill "$sleeper"; exit' TERM
sleep "$DEADLINE_S" & sleeper=$!
wait "$sleeper"; echo late >&3
) >/dev/null &
watch=$!
while [ "$left" -gt 0 ]; do
read -r word <&3
[ "$word" != late ] || break
left=$((left - 1))
done
kill "$watch" || true
}
