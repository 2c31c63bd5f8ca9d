"""Data: the branches of NVIDIA's driver, and the cards that each supports.

Sources: "Supported Drivers and CUDA Toolkit Versions" of NVIDIA's Data Center Drivers, release 615
(docs.nvidia.com/datacenter/tesla/drivers, 2026-09-09: R535 long-term until June 2026, R580
long-term until June 2028, R595 production until March 2027, R610 new-feature until August 2026);
"Kernel Modules" of NVIDIA's Driver Installation Guide, releases 610 and 620 (which modules which
cards need; the open ones are NVIDIA's choice from 560 on; from 620 on there are no others); release
notes of 570 (Blackwell), 580 (B300; the last branch for Maxwell, Pascal and Volta). Looked up on
2026-11-21.
"""

from dataclasses import dataclass
from typing import Literal

Modules = Literal["open", "proprietary"]
BranchKind = Literal["long-term", "production", "new-feature"]


@dataclass(frozen=True)
class Branch:
    """`ends` is the last month with fixes, "2028-06"; None where NVIDIA has not said."""

    number: int
    kind: BranchKind
    ends: str | None
    ended: bool = False


BRANCHES = (
    Branch(535, "long-term", "2026-06", ended=True),
    Branch(550, "production", "2025-06", ended=True),
    Branch(570, "production", "2026-02", ended=True),
    Branch(580, "long-term", "2028-06"),
    Branch(590, "new-feature", None, ended=True),
    Branch(595, "production", "2027-03"),
    Branch(610, "new-feature", "2026-08", ended=True),
    Branch(615, "new-feature", None),
)

# From this branch on there are only open modules.
OPEN_ONLY_FROM = 620


@dataclass(frozen=True)
class DriverSupport:
    """What cards below a compute capability can use: kinds of modules, first and last branch."""

    below: float
    modules: tuple[Modules, ...]
    first: int
    last: int | None


_SUPPORT = (
    DriverSupport(5.0, (), 0, 470),
    DriverSupport(7.5, ("proprietary",), 0, 580),
    DriverSupport(8.9, ("open", "proprietary"), 0, None),
    DriverSupport(10.0, ("open", "proprietary"), 525, None),
    DriverSupport(10.3, ("open",), 570, None),
    DriverSupport(10.35, ("open",), 580, None),
    DriverSupport(12.1, ("open",), 570, None),
    # Cards newer than this table: open modules, and the newest branches.
    DriverSupport(99.0, ("open",), 580, None),
)
_UNKNOWN_CARD = DriverSupport(0.0, ("open", "proprietary"), 0, None)


def driver_support(compute_capability: float | None) -> DriverSupport:
    """What a card of this compute capability can use; no limits if the capability is unknown."""
    if compute_capability is None:
        return _UNKNOWN_CARD
    return next(reach for reach in _SUPPORT if compute_capability < reach.below)


def branch_list(branches: tuple[Branch, ...] = BRANCHES) -> str:
    """The branches as text: "580 (long-term), 595 (production)"."""
    return ", ".join(
        f"{branch.number} ({branch.kind}{', no longer maintained' if branch.ended else ''})"
        for branch in branches
    )
