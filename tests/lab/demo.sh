#!/bin/sh
# `make demo`: the README's main job on a fleet of real hosts on this machine.
set -eu
bin=$1
if [ "$(id -u)" -ne 0 ]; then
	echo "missing rights: the demo boots hosts of its own (namespaces, cgroups), so run it as root" >&2
	exit 1
fi
# A demo that is up already is deployed to again; `up` refuses where a test run holds the hosts.
"$bin/python" -m tests.lab status | grep -q "held by the command line" || "$bin/python" -m tests.lab up
echo
echo "--> The plan, before any host is contacted: python -m roles.topology fleet inventories/lab.py"
"$bin/python" -m roles.topology fleet inventories/lab.py
echo "--> The main job: pyinfra inventories/lab.py deploys/llm.py -y"
"$bin/python" -m tests.lab run -- "$bin/pyinfra" inventories/lab.py deploys/llm.py -y
cat <<'END'

The endpoint is up (its weights are random, so its answers make no sense). Ask it, or deploy again and see that nothing changes:
  .venv/bin/python -m tests.lab run -- sh -c 'curl -sk https://10.99.0.10/v1/chat/completions \
    -H "Authorization: Bearer $(cat /var/lib/pyinfra-llm-lab/keys/api.key)" \
    -H "Content-Type: application/json" \
    -d "{\"model\":\"Qwen/Qwen2.5-14B-Instruct\",\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"'
  .venv/bin/python -m tests.lab run -- .venv/bin/pyinfra inventories/lab.py deploys/llm.py -y
`make down` removes the fleet.
END
