"""The meaning and remedies of NVIDIA's Xids: `xids.yaml`."""

import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

# From no action to work on the machine. NVIDIA's immediate actions are mapped so: IGNORE to
# information, or warning if it requires an investigation; RESTART_APP to application; RESET_GPU
# to reset; RESTART_BM and RESTART_VM to reboot; CHECK_MECHANICALS to hardware;
# UPDATE_SWFW and CONTACT_SUPPORT alone to warning; a workflow to its first action on the GPU.
XidSeverity = Literal["information", "application", "warning", "reset", "reboot", "hardware"]

# The action in the message of Xid 154, "... changed from 0x0 (None) to 0x2 (...)".
_RECOVERY_ACTION = re.compile(r"\bto 0x[0-9a-f]+ \(([^)]*)\)", re.IGNORECASE)
_RECOVERY_SEVERITIES: dict[str, XidSeverity] = {
    "none": "information",
    "drain p2p": "warning",
    "gpu reset required": "reset",
    "drain and reset": "reset",
    "node reboot required": "reboot",
}
_RECOVERY_XID = 154


class XidEntry(BaseModel):
    """The meaning, severity and remedy of some Xids."""

    # Built on first use: planning looks up no Xid.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    xids: tuple[int, ...] = Field(min_length=1)
    severity: XidSeverity
    meaning: str
    action: str


@cache
def xid_entries() -> tuple[XidEntry, ...]:
    """All entries, in the table's order."""
    text = Path(__file__).with_name("xids.yaml").read_text(encoding="utf-8")
    return tuple(XidEntry.model_validate(row) for row in yaml.safe_load(text))


def find_xid(xid: int) -> XidEntry | None:
    """The entry of a number; None if the table lacks it."""
    return _by_number().get(xid)


def xid_severity(xid: int, message: str = "") -> XidSeverity | None:
    """The severity of an Xid; for 154 from its message; None if it is unknown."""
    entry = find_xid(xid)
    if entry is None:
        return None
    if xid == _RECOVERY_XID and (named := _RECOVERY_ACTION.search(message)):
        return _RECOVERY_SEVERITIES.get(named[1].strip().lower(), entry.severity)
    return entry.severity


@cache
def _by_number() -> dict[int, XidEntry]:
    return {xid: entry for entry in xid_entries() for xid in entry.xids}
