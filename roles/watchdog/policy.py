"""The policy table of GPU faults, for the programs on hosts: `policy.yaml`. Pure."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from roles.hardware import XidSeverity, xid_entries

Step = Literal["none", "restart", "reset", "reboot", "quarantine"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    step: Step
    reason: str


class _SeverityRow(_Row):
    severity: XidSeverity


class _XidRow(_Row):
    xids: tuple[int, ...]


class _SignRow(_Row):
    sign: str


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    severities: tuple[_SeverityRow, ...]
    xids: tuple[_XidRow, ...]
    signs: tuple[_SignRow, ...]


@cache
def policy() -> dict[str, Any]:
    """The least step and its reason by Xid (as text) and by sign, as hosts get it."""
    text = Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8")
    table = _Policy.model_validate(yaml.safe_load(text))
    severities = {row.severity: row for row in table.severities}
    xids: dict[str, list[str]] = {}
    for entry in xid_entries():
        row = severities[entry.severity]
        xids |= {str(xid): [row.step, f"{entry.meaning}: {row.reason}"] for xid in entry.xids}
    for row in table.xids:
        xids |= {str(xid): [row.step, row.reason] for xid in row.xids}
    return {"xids": xids, "signs": {row.sign: [row.step, row.reason] for row in table.signs}}
