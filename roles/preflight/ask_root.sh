# Collects what only root can see of a host. It changes nothing. The variables in capitals stand before.
part umask; umask
part root-proxies; env | grep -iE '^(https?|no|all)_proxy=' | sed 's#=[^ ]*@#=***@#' | sort -u
part listeners; listeners=$(has ss && limit 10 ss -H -ltnp); echo "$listeners"
part owners
for pid in $(echo "$listeners" | grep -oE 'pid=[0-9]+' | cut -d= -f2 | sort -u | head -n 500); do
echo "$pid $(tail -n 1 "/proc/$pid/cgroup")"
done
part sites
while read -r program site; do
[ -n "$site" ] && [ -e "$site" ] && echo "$program"
done <<END
$SITES
END
part hub
while read -r folder; do
[ -n "$folder" ] || continue
echo "folder $folder"
limit 20 find "$folder/blobs" -type f ! -name '*.incomplete' -printf 'file %s -\n' | head -n 5000
done <<END
$HUB_FOLDERS
END
part weights
while read -r folder; do
[ -n "$folder" ] || continue
echo "folder $folder"
# A GGUF is a file of its own.
needed=$folder
if limit 5 test -d "$folder"; then needed=$folder/config.json
else limit 5 test -f "$folder" || continue; fi
echo "real $(limit 5 readlink -f "$folder")"
# The test runs as nobody, because engines do not run as root.
if has setpriv; then
limit 10 setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$needed" &&
echo "readable yes"
else echo "readable yes"; fi
limit 20 find -L "$folder" -maxdepth 1 -type f -printf 'file %s %f\n' | head -n 5000
done <<END
$WEIGHTS_FOLDERS
END
part packaging
for lock in /var/lib/dpkg/lock-frontend /var/lib/apt/lists/lock /var/lib/rpm/.rpm.lock; do
inode=$(stat -c %i "$lock") || continue
# A line a held lock: "1: POSIX ADVISORY WRITE 412 fe:01:1234 0 EOF".
grep -q ":$inode " /proc/locks && { echo busy; break; }
done
part deploys
# Whoever works on a host has its lock open. What it started has it open, too. A container's file of
# the same name is another file.
while read -r lock; do
[ -e "$lock" ] || continue
limit 10 find -L /proc/[0-9]*/fd -maxdepth 1 -samefile "$lock" 2>/dev/null | cut -d/ -f3 | sort -un |
head -n 50 | while read -r pid; do
echo "$pid $(limit 5 ps -o etimes= -p "$pid" | tr -dc 0-9) $(head -c 80 "$lock")"
done
done <<END
$LOCKS
END
part firewall-rules
if has ufw; then limit 10 ufw status | sed 's/^/ufw /'; fi
if has firewall-cmd; then
limit 10 firewall-cmd --list-ports | sed 's/^/firewalld ports /'
limit 10 firewall-cmd --list-services | sed 's/^/firewalld services /'
fi
if has nft; then limit 10 nft list chains | head -n 2000 | sed 's/^/nft /'; fi
if has iptables; then limit 10 iptables -S INPUT | head -n 1 | sed 's/^/iptables /'; fi
part denials
{ limit 20 journalctl -k -b -o short-iso --no-pager || limit 10 dmesg; } |
grep -E 'avc: +denied|apparmor="DENIED"' |
grep -E "$DENIED" |
tail -n 20
