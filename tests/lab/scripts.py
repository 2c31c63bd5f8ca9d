"""The maintainer scripts of packages whose kernel modules DKMS builds."""

from __future__ import annotations

PAUSE, PAUSED = "/run/lab-pause", "/run/lab-paused"
"""While the first is there, the driver's postinst waits, and says so by the second."""
POSTINST_PAUSE = f"""
if [ -e {PAUSE} ]; then
    touch {PAUSED}
    while [ -e {PAUSE} ]; do sleep 0.1; done
    rm -f {PAUSED}
fi
"""
# As dkms's common.postinst, which the real packages call.
POSTINST_DKMS = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
@PAUSE@
kernel=$(uname -r)
echo "Loading new @MODULE@-@VERSION@ DKMS files..."
dkms status -m @MODULE@ | grep -q "@MODULE@/@VERSION@" || dkms add -m @MODULE@ -v @VERSION@
echo "Building for $kernel"
if [ ! -e "/lib/modules/$kernel/build" ]; then
    echo "Module build for kernel $kernel was skipped since the"
    echo "kernel headers for this kernel do not seem to be installed."
    exit 0
fi
echo "Building initial module for $kernel"
dkms install -m @MODULE@ -v @VERSION@ -k "$kernel"
echo "Done."
"""
PRERM_DKMS = """#!/bin/sh
set -e
! dkms status -m @MODULE@ | grep -q "@MODULE@/@VERSION@" ||
    dkms remove -m @MODULE@ -v @VERSION@ --all
"""


def script(text: str, **values: str) -> str:
    """A text with its @NAMES@ filled in."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def dkms_scripts(module: str, version: str) -> dict[str, str]:
    """The scripts of a package whose module DKMS builds."""
    names = {"MODULE": module, "VERSION": version}
    return {
        "postinst": script(POSTINST_DKMS, PAUSE=POSTINST_PAUSE, **names),
        "prerm": script(PRERM_DKMS, **names),
    }
