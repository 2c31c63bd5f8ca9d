# What a host says of all that a deploy will need of it, in one go. POSIX sh, as the ordinary user,
# from no terminal, so that nothing can wait for an answer. Each part begins with "@@ NAME".
# The variables in capitals (lists: one item a line) and ROOT_SCRIPT, FETCH stand before this text.
exec 2>/dev/null </dev/null
PATH="$PATH:/usr/sbin:/sbin"
export PATH LC_ALL=C

has() { command -v "$1" >/dev/null; }
limit() { if has timeout; then timeout -k 5 "$@"; else shift; "$@"; fi; }
part() { echo; echo "@@ $1"; }

# Of services on this host /etc/environment is what tells the way out; a login may not have read it.
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

part clock; date +%s
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
# dash runs no EXIT trap for a signal, as when nobody reads the answers any more.
trap 'exit 1' HUP INT PIPE TERM
work=$(mktemp -d -p /dev/shm || mktemp -d)
[ -n "$work" ] || part no-room
jobs=""
# begin NAME COMMAND...: beside all others; a file NAME.end says that it is done.
begin() {
[ -n "$work" ] || return 0
name=$1; shift; jobs="$jobs $name"
{ "$@"; echo >"$work/$name.end"; } >"$work/$name" 2>"$work/$name.errors" &
}

as_root() {
if [ "$(id -u)" = 0 ]; then limit 60 sh -c "$ROOT_SCRIPT"
# The time limit is within sudo: a user cannot end what runs as root.
else sudo -n sh -c "if command -v timeout >/dev/null; then exec timeout -k 5 60 sh -c \"\$1\"; fi
sh -c \"\$1\"" sh "$ROOT_SCRIPT"; fi
}

# get OPTION... URL: the exit status and the HTTP status that came last. Addresses may hold
# credentials (apt's), so none stands among arguments.
get() {
url=$1; shift
code=$(echo "url = \"$url\"" | limit 20 curl -q -sSL -o /dev/null -w '%{http_code}' \
--max-redirs 5 --connect-timeout 8 --max-time 15 "$@" -K -)
exit_status=$?
}
fetch() {
if has curl; then
get "$1" -I
# Some servers answer only those who want the content.
case "$code" in 400|403|404|405|501) get "$1" -r 0-0 ;; esac
echo "curl $exit_status ${code:-000}"
elif has python3; then PREFLIGHT_URL="$1" limit 40 python3 -c "$FETCH"
elif has "$PYTHON"; then PREFLIGHT_URL="$1" limit 40 "$PYTHON" -c "$FETCH"
else echo "none 0 000"; fi
}

# What apt and dnf are configured with; enough to see whether the way there is open.
apt_sources() {
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list | sed 's/\[[^]]*\]//' |
awk '$1 == "deb" { print $2, $3 }'
for file in /etc/apt/sources.list.d/*.sources; do
[ -f "$file" ] && awk '
function tell() { if (uri && suite && on && deb) print uri, suite; uri = suite = ""; on = deb = 1 }
BEGIN { on = deb = 1 }
/^[ \t]*$/ { tell() }
tolower($1) == "uris:" { uri = $2 }
tolower($1) == "suites:" { suite = $2 }
tolower($1) == "enabled:" && tolower($2) == "no" { on = 0 }
tolower($1) == "types:" && !/deb( |$)/ { deb = 0 }
END { tell() }' "$file"
done
}
dnf_hosts() {
awk -F '[ \t]*=[ \t]*' '
/^\[/ { if (on && url) print url; on = 1; url = "" }
$1 == "enabled" && $2 == 0 { on = 0 }
$1 ~ /^(baseurl|mirrorlist|metalink)$/ && !url { url = substr($0, index($0, "=") + 1) }
END { if (on && url) print url }' /etc/yum.repos.d/*.repo
}
distribution_urls() {
if [ -d /etc/apt ]; then apt_sources | while read -r uri suite; do
case "$uri" in http://*|https://*) ;; *) continue ;; esac
case "$suite" in */) echo "${uri%/}/${suite}" ;;
*) echo "${uri%/}/dists/$suite/" ;; esac
done
else dnf_hosts | grep -oE 'https?://[^/$]+/'; fi | sort -u | head -n 6
}
apt_proxy() { apt-config dump | sed -n "s/^Acquire::$1::Proxy \"\\(.*\\)\";\$/\\1/p" | head -n 1; }
fetch_distribution() {
for kind in http https; do
proxy=$(apt_proxy "$kind")
[ "$proxy" = DIRECT ] && unset "${kind}_proxy"
case "$proxy" in http*) export "${kind}_proxy=$proxy" ;; esac
done
# A repository may be signed apart, or not at all.
if [ -d /etc/apt ]; then set -- "$1InRelease" "$1Release" "$1Packages" "$1Packages.gz"; fi
for url in "$@"; do
said=$(fetch "$url")
case "$said" in *" 404") ;; *) break ;; esac
done
echo "$said"
}

begin root as_root
number=0
while read -r name url; do
[ -n "$url" ] && begin "reach-$name" fetch "$url"
done <<END
$URLS
END
distribution=$(distribution_urls)
while read -r url; do
[ -n "$url" ] || continue
number=$((number + 1))
begin "reach-distribution-$number" fetch_distribution "$url"
done <<END
$distribution
END

part distribution; echo "$distribution" | masked
part machine; uname -m
part glibc; getconf GNU_LIBC_VERSION || ldd --version | head -n 1
part init; cat /proc/1/comm
part systemd; if has systemctl; then limit 10 systemctl --version | head -n 1; fi
part python
if has "$PYTHON"; then
echo "there yes"
limit 20 "$PYTHON" -Ic 'import sys; print("version %d.%d.%d" % sys.version_info[:3])'
limit 20 "$PYTHON" -Ic 'import venv, ensurepip' && echo "venv yes"
fi
part missing-packages
if has dpkg-query; then
for package in $PACKAGES; do
# shellcheck disable=SC2016 # the format is dpkg's
limit 10 dpkg-query -W -f='${Status}' "$package" | grep -q ' installed$' || echo "$package"
done
else echo "@no-dpkg"; fi
part dpkg-audit; if has dpkg; then limit 20 dpkg --audit | head -n 5; fi
part engine; [ -n "$ENGINE" ] && [ -e "$ENGINE/.complete" ] && echo installed
part pip-index
grep -hE '^ *index-url *=' /etc/pip.conf /etc/xdg/pip/pip.conf | head -n 1 | sed 's/^[^=]*= *//' | masked
part wheelhouse
if [ -n "$WHEELHOUSE" ] && [ -d "$WHEELHOUSE" ]; then
echo "wheels $(find "$WHEELHOUSE" -maxdepth 1 -name '*.whl' | head -n 5000 | wc -l)"; fi
part disks
while read -r folder; do
[ -n "$folder" ] || continue
at=$folder
# limit: a dead network file system must not hold everything up.
until limit 5 test -d "$at" || [ "$at" = / ]; do at=${at%/*}; at=${at:-/}; done
echo "folder $folder"; echo "at $at"
space=$(limit 10 df -Pk "$at" | tail -n 1)
echo "space $space"
echo "inodes $(limit 10 df -Pi "$at" | tail -n 1)"
mount=${space##*% }
awk -v at="$mount" '$2 == at { found = $4 } END { print "options " found }' /proc/self/mounts
done <<END
$FOLDERS
END
part memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
part synchronised; if has timedatectl; then limit 10 timedatectl show -p NTPSynchronized -p NTP; fi
part selinux; limit 5 cat /sys/fs/selinux/enforce
part firewall
grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf && echo "ufw active"
if has systemctl; then echo "firewalld $(limit 10 systemctl is-active firewalld)"; fi
part reboot; [ -e /run/reboot-required ] && sort -u /run/reboot-required.pkgs | head -n 5 | tr '\n' ' '
part reboot-required; [ -e /run/reboot-required ] && echo yes
part proxies; { env; proxies; } | grep -iE '^(https?|no|all)_proxy=' | sed 's#=[^ ]*@#=***@#' | sort -u
part listening; if has ss; then echo asked; limit 10 ss -H -ltn; fi


# Not `wait`: what hangs in the kernel outlives its own limit.
finished() { for name in $jobs; do [ -e "$work/$name.end" ] || return 1; done; }
tries=0
until finished || [ "$tries" -ge 350 ]; do sleep 0.2 || sleep 1; tries=$((tries + 1)); done
for name in $jobs; do
case "$name" in
root)
part root-errors; head -c 2000 "$work/root.errors"
head -c 4000000 "$work/root" ;;
*)
part "$name"
head -n 1 "$work/$name"; head -c 1000 "$work/$name.errors" | masked ;;
esac
[ -e "$work/$name.end" ] || { echo; echo "@@ hung-$name"; }
done
part clock-end; date +%s
part end
