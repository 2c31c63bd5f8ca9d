# Functions that fetch URLs in the background: begin, begin_urls, fetch and print_results.
# The variables URLS, PYTHON and FETCH stand before this text.

# Services on this host take their proxies from /etc/environment, which a login may not have read.
proxies() {
grep -hE '^(export )?(https?|no|all)_proxy=|^(export )?(HTTPS?|NO|ALL)_PROXY=' /etc/environment |
sed 's/^export //'
}
masked() { sed 's#//[^ ]*@#//***@#'; }
while IFS='=' read -r name value; do
[ -n "$name" ] || continue
value=${value#\"}; value=${value%\"}
printenv "$name" >/dev/null || export "$name=$value"
done <<END
$(proxies)
END

work=$ROOM
[ -n "$work" ] || part no-room
jobs=""
# begin NAME COMMAND...: run it in the background; the file NAME.end appears when it is done.
begin() {
[ -n "$work" ] || return 0
name=$1; shift; jobs="$jobs $name"
{ "$@"; echo >"$work/$name.end"; } >"$work/$name" 2>"$work/$name.errors" &
}

# get URL OPTION...: sets exit_status and code, the last HTTP status. URLs of apt may hold credentials,
# so curl reads them from its input: arguments are visible to other users.
get() {
url=$1; shift
# Quoted as curl expects it. No echo: some would turn \n into a line break.
quoted=$(printf '%s' "$url" | sed 's/[\\"]/\\&/g')
code=$(printf 'url = "%s"\n' "$quoted" | limit 20 curl -q -sSL -o /dev/null -w '%{http_code}' \
--max-redirs 5 --connect-timeout 8 --max-time 15 "$@" -K -)
exit_status=$?
}
fetch() {
if has curl; then
get "$1" -I
# Some servers refuse HEAD, so the first byte is requested.
case "$code" in 400|403|404|405|501) get "$1" -r 0-0 ;; esac
echo "curl $exit_status ${code:-000}"
elif has python3; then PREFLIGHT_URL="$1" limit 40 python3 -c "$FETCH"
elif has "$PYTHON"; then PREFLIGHT_URL="$1" limit 40 "$PYTHON" -c "$FETCH"
else echo "none 0 000"; fi
}

# Not `wait`: a process that hangs in the kernel outlives its own time limit.
finished() { for name in $jobs; do [ -e "$work/$name.end" ] || return 1; done; }
print_results() {
tries=0
until finished || [ "$tries" -ge 350 ]; do sleep 0.2 || sleep 1; tries=$((tries + 1)); done
for name in $jobs; do
part "$name"
head -n 1 "$work/$name"; head -c 1000 "$work/$name.errors" | masked
[ -e "$work/$name.end" ] || { echo; echo "@@ hung-$name"; }
done
}
begin_urls() {
while read -r name url; do
[ -n "$url" ] && begin "reach-$name" fetch "$url"
done <<END
$URLS
END
}
