#!/usr/bin/python3
"""lspci of the lab: the devices of the host's GPU profile. Knows -n, -nn, -D and -d [V]:[D]."""

from __future__ import annotations

import getopt
import json
import sys
from pathlib import Path

STATE = Path("/usr/lib/lab-gpu")
GONE = "ff"
"""The revision that a card shows which has fallen off the bus: all bits read as one."""


def lost_addresses(profile: dict, lost: list[int]) -> set[str]:
    """The bus addresses of lost GPUs, without domain and function."""
    return {profile["gpus"][index]["bus_id"][9:14].lower() for index in lost}


def line(device: dict, numbers: int, domain: bool) -> str:
    """One device's line; `numbers`: 0 names, 1 numbers, 2 both."""
    where = ("0000:" if domain else "") + device["address"]
    rev = "" if device["rev"] == "00" else f" (rev {device['rev']})"
    if numbers == 1:
        return f"{where} {device['class']}: {device['ids']}{rev}"
    if numbers == 0:
        return f"{where} {device['class_name']}: {device['name']}{rev}"
    named = f"{device['class_name']} [{device['class']}]: {device['name']} [{device['ids']}]"
    return f"{where} {named}{rev}"


def main() -> int:
    """List the devices."""
    try:
        options, rest = getopt.getopt(sys.argv[1:], "nDd:")
    except getopt.GetoptError as error:
        print(f"lspci: invalid option -- '{error.opt}'", file=sys.stderr)
        return 1
    if rest:
        print("Usage: lspci [<switches>]", file=sys.stderr)
        return 1
    flags = [flag for flag, _ in options]
    wanted = (dict(options).get("-d", "") + ":").split(":")
    profile = json.loads((STATE / "profile.json").read_text())
    faults = json.loads((STATE / "faults.json").read_text())
    gone = lost_addresses(profile, faults.get("lost", []))
    for device in profile["pci"]:
        if any(
            w and w.lower() != x for w, x in zip(wanted, device["ids"].split(":"), strict=False)
        ):
            continue
        if device["address"].split(".")[0] in gone:
            device = device | {"rev": GONE}
        print(line(device, flags.count("-n"), "-D" in flags))
    return 0


if __name__ == "__main__":
    sys.exit(main())
