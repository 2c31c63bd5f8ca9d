# Written by pyinfra-llm; a deploy replaces it.
# The interface's name may change with a boot.
dev=$(ip -o address show to 10.0.0.2 | awk '{ print $2; exit }')
[ -n "$dev" ] || { echo "no interface has 10.0.0.2" >&2; exit 1; }
sed "s/@INTERFACE@/$dev/" /etc/llm/balancer/keepalived.conf >/run/llm-virtual-address/keepalived.conf
