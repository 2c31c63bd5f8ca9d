# Collects what a deploy needs to know of a host, beside what roles/hardware collects. It runs as the
# ordinary user. Before it stand reach.sh and the variables in capitals (lists have one item a line).
part clock; date +%s

# The repositories that apt and dnf are configured with, as far as a test of their URLs needs.
apt_sources() {
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list | sed 's/\[[^]]*\]//' |
awk '$1 == "deb" { print $2, $3 }'
for file in /etc/apt/sources.list.d/*.sources; do
[ -f "$file" ] && awk '
function emit() { if (uri && suite && on && deb) print uri, suite; uri = suite = ""; on = deb = 1 }
BEGIN { on = deb = 1 }
/^[ \t]*$/ { emit() }
tolower($1) == "uris:" { uri = $2 }
tolower($1) == "suites:" { suite = $2 }
tolower($1) == "enabled:" && tolower($2) == "no" { on = 0 }
tolower($1) == "types:" && !/deb( |$)/ { deb = 0 }
END { emit() }' "$file"
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
answer=$(fetch "$url")
case "$answer" in *" 404") ;; *) break ;; esac
done
echo "$answer"
}

begin_urls
number=0
distribution=$(distribution_urls)
while read -r url; do
[ -n "$url" ] || continue
number=$((number + 1))
begin "reach-distribution-$number" fetch_distribution "$url"
done <<END
$distribution
END

part distribution; echo "$distribution" | masked
part glibc; getconf GNU_LIBC_VERSION || ldd --version | head -n 1
part init; cat /proc/1/comm
part systemd; if has systemctl; then limit 10 systemctl --version | head -n 1; fi
part python
while read -r python; do
has "$python" || continue
echo "python $python"
limit 20 "$python" -Ic 'import sys; print("version %d.%d.%d" % sys.version_info[:3])' </dev/null
limit 20 "$python" -Ic 'import venv, ensurepip' </dev/null && echo "venv yes"
done <<END
$PYTHONS
END
part missing-packages
if has dpkg-query; then
for package in $PACKAGES; do
# shellcheck disable=SC2016 # the format is dpkg's
limit 10 dpkg-query -W -f='${Status}' "$package" | grep -q ' installed$' || echo "$package"
done
else echo "@no-dpkg"; fi
part engine
all=${ENGINE:+installed}
# Names of folders of ours have no blanks.
for folder in $ENGINE; do [ -e "$folder/.complete" ] || all=; done
echo "$all"
part pip-index
grep -hE '^ *index-url *=' /etc/pip.conf /etc/xdg/pip/pip.conf | head -n 1 | sed 's/^[^=]*= *//' | masked
part wheelhouse
while read -r folder; do
[ -d "$folder" ] || continue
echo "folder $folder"
echo "wheels $(find "$folder" -maxdepth 1 -name '*.whl' | head -n 5000 | wc -l)"
done <<END
$WHEEL_FOLDERS
END
part disks
while read -r folder; do
[ -n "$folder" ] || continue
at=$folder
# limit: a dead network file system must not hold everything up.
until limit 5 test -d "$at" || [ "$at" = / ]; do at=${at%/*}; at=${at:-/}; done
echo "folder $folder"
space=$(limit 10 df -Pk "$at" | tail -n 1)
echo "space $space"
echo "inodes $(limit 10 df -Pi "$at" | tail -n 1)"
mount=${space##*% }
awk -v at="$mount" '$2 == at { found = $4 } END { print "options " found }' /proc/self/mounts
done <<END
$FOLDERS
END
part synchronised; if has timedatectl; then limit 10 timedatectl show -p NTPSynchronized; fi
part given-ports; cat /proc/sys/net/ipv4/ip_local_port_range
part selinux; limit 5 cat /sys/fs/selinux/enforce
part firewall
grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf && echo "ufw active"
if has systemctl; then echo "firewalld $(limit 10 systemctl is-active firewalld)"; fi
part proxies; { env; proxies; } | grep -iE '^(https?|no|all)_proxy=' | sed 's#=[^ ]*@#=***@#' | sort -u
part listening; if has ss; then echo asked; limit 10 ss -H -ltn; fi

print_results
part clock-end; date +%s
