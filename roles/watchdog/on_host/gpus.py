"""What the GPUs of a replica show, and the step that it asks for. Pure; runs on a host."""

import re
from collections import namedtuple

# From the least step to the last one.
LADDER = ("none", "restart", "reset", "reboot", "quarantine")
FIELDS = (
    *("index", "name", "pci.bus_id", "remapped_rows.pending", "remapped_rows.failure"),
    *("ecc.errors.uncorrected.volatile.total", "gpu_recovery_action"),
    "clocks_throttle_reasons.hw_slowdown",
)
# What every driver knows.
OLD_FIELDS = FIELDS[:3]
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]{4,20})\): ([0-9]{1,4}),")
# More of them say nothing new.
MOST_XIDS = 50


class Advice(namedtuple("Advice", "step reason")):
    """The least step that the GPUs of a replica ask for, and why."""


NO_ADVICE = Advice("none", "")


def advice(policy, gpus, rows, kernel):
    """What the GPUs of a replica ask for.

    `gpus` are its indexes, as nvidia-smi counts, `rows` what that shows of each GPU (by field), or
    None where it hangs, `kernel` is the kernel's log of the last minutes. A host without NVIDIA's
    driver has no rows and no Xids, and gets no advice.
    """
    found = NO_ADVICE
    for what, entry in [*_signs(policy, gpus, rows), *_xids(policy, gpus, rows or [], kernel)]:
        step, reason = entry
        if step in LADDER and LADDER.index(step) > LADDER.index(found.step):
            found = Advice(step, "%s: %s" % (what, reason))
    return found


def _signs(policy, gpus, rows):
    if rows is None:
        return [("the driver", policy["signs"]["driver-hangs"])] if gpus else []
    listed = {row.get("index"): row for row in rows}
    found = []
    for gpu in map(str, gpus if rows else []):
        if gpu not in listed:
            found.append(("GPU %s" % gpu, policy["signs"]["lost"]))
            continue
        row = listed[gpu]
        where = "GPU %s (%s)" % (gpu, row.get("name", "?"))
        found += [(where, policy["signs"][sign]) for sign in signs_of(row)]
    return found


def signs_of(row):
    """The signs that one GPU shows."""
    signs = []
    if row.get("remapped_rows.failure") in ("Yes", "1"):
        signs.append("remap-failed")
    if row.get("remapped_rows.pending") in ("Yes", "1"):
        signs.append("remap-pending")
    if re.match(r"[1-9][0-9]{0,15}\Z", row.get("ecc.errors.uncorrected.volatile.total", "")):
        signs.append("ecc-uncorrected")
    action = row.get("gpu_recovery_action", "").lower()
    if "reboot" in action:
        signs.append("recovery-reboot")
    elif "reset" in action:
        signs.append("recovery-reset")
    if row.get("clocks_throttle_reasons.hw_slowdown") == "Active":
        signs.append("throttled")
    return signs


def _xids(policy, gpus, rows, kernel):
    """The Xids of these GPUs."""
    own = {short_bus(row.get("pci.bus_id", "")): row for row in rows}
    numbers = set(map(str, gpus))
    found = []
    for bus, xid in XID.findall(kernel)[-MOST_XIDS:]:
        row = own.get(short_bus(bus))
        if row is not None and row.get("index") in numbers and xid in policy["xids"]:
            found.append(("Xid %s of GPU %s" % (xid, row["index"]), policy["xids"][xid]))
    return found


def short_bus(text):
    """A bus address without its domain and function, as all programs write it: "3b:00"."""
    return ":".join(text.lower().split(".")[0].split(":")[-2:])


def rows_of(text, fields=FIELDS):
    """What `nvidia-smi --query-gpu --format=csv,noheader` prints, by field; lines that are none are
    left out."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    whole = [line for line in lines if len(line) == len(fields)]
    return [{name: line[place] for place, name in enumerate(fields)} for line in whole]
