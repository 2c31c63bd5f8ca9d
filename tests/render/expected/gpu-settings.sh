#!/bin/sh
# Written by pyinfra-llm; a deploy replaces it. Sets what a reboot takes from the GPUs.
set -eu
export LC_ALL=C

fail() { echo "$*" >&2; exit 1; }
smi() { timeout -k 5 120 nvidia-smi "$@"; }
field() { smi -i "$1" "--query-gpu=$2" --format=csv,noheader,nounits; }
# The profiles of a GPU's slices, in an order that does not depend on their places.
layout() {
smi -L | awk -v gpu="GPU $1:" '/^GPU / { own = index($0, gpu) == 1 } own && $1 == "MIG" { print $2 }' |
sort | tr '\n' ' '
}

# sliced GPU PROFILE...
sliced() {
gpu=$1; shift
wanted=$(printf '%s\n' "$@" | sort | tr '\n' ' ')
[ "$(layout "$gpu")" != "$wanted" ] || return 0
used=$(smi -i "$gpu" --query-compute-apps=pid,process_name --format=csv,noheader) ||
fail "GPU $gpu does not say who uses it: $used"
[ -z "$used" ] || fail "GPU $gpu cannot be sliced while processes use it: $used"
if [ "$(field "$gpu" mig.mode.current)" != Enabled ]; then
output=$(smi -i "$gpu" -mig 1 2>&1) || fail "GPU $gpu takes no MIG mode: $output"
[ "$(field "$gpu" mig.mode.current)" = Enabled ] ||
fail "GPU $gpu takes MIG mode with its next reset: reboot the host, or stop what holds the GPU" \
"(monitoring such as nvidia-dcgm too) and run nvidia-smi --gpu-reset -i $gpu. Its output: $output"
fi
# What has no compute instance is not listed, and in the way all the same.
smi mig -i "$gpu" -dci >/dev/null 2>&1 || true
smi mig -i "$gpu" -dgi >/dev/null 2>&1 || true
profiles=$(printf '%s,' "$@")
output=$(smi mig -i "$gpu" -cgi "${profiles%,}" -C 2>&1) || fail "GPU $gpu takes no such slices: $output"
[ "$(layout "$gpu")" = "$wanted" ] || fail "GPU $gpu was sliced otherwise: $(layout "$gpu")"
}

sliced 0 7g.80gb
sliced 1 3g.40gb 1g.10gb 1g.10gb+me
# An engine may not make the device files of its slice itself.
for access in /proc/driver/nvidia/capabilities/gpu*/mig/gi*/access \
/proc/driver/nvidia/capabilities/gpu*/mig/gi*/ci*/access; do
[ ! -e "$access" ] || nvidia-modprobe -f "$access" || true
done
power_limit_w=500
output=$(smi -pl "$power_limit_w" 2>&1) || fail "$output"
