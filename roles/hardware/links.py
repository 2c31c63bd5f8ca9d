"""The meaning of a host's links: the slowest link of a group, P2P, and measured verdicts. Pure.

Collectives of vLLM on more than two GPUs need NVLink between all pairs, and the slowest link of a
group limits them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from roles.hardware.gpus import Links, LinkVerdict

# From the nearest to the farthest, as nvidia-smi's legend orders them; PSB and SOC are old names.
_PCIE_ORDER = {"PSB": 0, "PIX": 0, "PXB": 1, "PHB": 2, "NODE": 3, "SYS": 4, "SOC": 4}
_P2P_LABELS = {"OK": True, "CNS": False, "GNS": False, "TNS": False, "NS": False, "DR": False}
_GEFORCE = re.compile(r"(?i)(?:NVIDIA )?GeForce RTX [345]0\d\d\b.*")
_PROFESSIONAL = re.compile(
    r"(?i)(?:(?:NVIDIA|Tesla|NVIDIA Tesla) )?"
    # A vGPU's name ends in its memory and type: "NVIDIA L40S-48Q".
    r"(?:(?:[AHBLTVP]\d{1,3}[A-Z]?|G[HB]\d{3})(?:[ -](?!MIG\b|(?:\d+-)*\d+[ABCQ]\b)[\w-]+)*"
    r"|RTX A\d{4}|RTX \d{4}(?: SFF)? Ada Generation)"
)
# P2P is not used if its rate is below this fraction of the rate through host memory.
_SLOWER = 0.9
_NOT_WORKING = {
    "hangs": "hang in an all-reduce",
    "wrong": "get a wrong result of an all-reduce",
    "fails": "fail in an all-reduce",
}


@lru_cache(maxsize=256)
def nvlink_count(label: str) -> int:
    """18 of "NV18", 1 (there is one) of a declared "NV" and of AMD's "XGMI", else 0."""
    match = re.fullmatch(r"NV(\d*)|XGMI", label)
    return int(match[1] or 1) if match else 0


def worst_link(links: Links, group: Iterable[int]) -> str | None:
    """The label of the slowest link in a group of GPU indexes; None for fewer than two GPUs.

    NV# (more is better) is faster than PIX, PXB, PHB, NODE and SYS; an unknown label is slowest.
    ValueError if a pair has no label.
    """
    known = _by_pair(links)
    pairs = list(combinations(sorted(set(group)), 2))
    if unknown := [pair for pair in pairs if pair not in known]:
        i, j = unknown[0]
        raise ValueError(f"nothing is known of the link of GPU {i} and GPU {j}")
    return max((known[pair] for pair in pairs), key=link_slowness, default=None)


@lru_cache(maxsize=256)
def _by_pair(links: Links) -> dict[tuple[int, int], str]:
    return {(i, j): label for i, j, label in links}


@lru_cache(maxsize=256)
def link_slowness(label: str) -> tuple[int, int]:
    """The sort key of a label: smaller for faster links, largest for unknown ones."""
    count = nvlink_count(label)
    return (-1, -count) if count else (_PCIE_ORDER.get(label, len(_PCIE_ORDER)), 0)


def p2p_possible(
    names: Sequence[str] | Mapping[int, str],
    pairs: Iterable[tuple[int, int, str]] | None,
    i: int,
    j: int,
    link: str | None = None,
) -> bool | None:
    """Whether GPUs i and j may read each other's memory; None if that is not known.

    `names` are the driver's names by GPU index. `pairs` are those of `nvidia-smi topo -p2p r`, if
    available: they decide, except for "U" (unknown). Otherwise an NVLink (`link` "NV4") means yes,
    a GeForce RTX 30, 40 or 50 no (NVIDIA's driver restricts P2P on them: NCCL uses host memory),
    two equal data-centre, RTX A or RTX Ada cards yes. Anything else is unknown: mixed cards, a
    virtual machine's GRID cards and vGPUs, MIG slices.

    Source: vLLM 0.33's distributed/device_communicators, which ask for P2P; a real log of two RTX
    3090 that talk over host memory (SHM) is in vLLM's issue 4383.
    """
    label = {(a, b): label for a, b, label in pairs or ()}.get((min(i, j), max(i, j)))
    if label in _P2P_LABELS:
        return _P2P_LABELS[label]
    if link is not None and nvlink_count(link):
        return True
    one, other = names[i].strip(), names[j].strip()
    if _GEFORCE.fullmatch(one) or _GEFORCE.fullmatch(other):
        return False
    return True if one == other and _PROFESSIONAL.fullmatch(one) else None


def p2p_fault(verdicts: Iterable[LinkVerdict], group: Iterable[int]) -> LinkVerdict | None:
    """The first verdict because of which a group of GPUs must not use P2P; None if there is none.

    It is about some of the group's GPUs: P2P did not work, or was slower than host memory. NCCL may
    have used another transport; such a measurement says nothing about P2P's speed.
    """
    inside = _inside(verdicts, group)
    without = {one.gpus: one for one in inside if not one.p2p}
    with_p2p = (one for one in inside if one.p2p)
    return next(
        (one for one in with_p2p if not one.works or _is_slower(one, without.get(one.gpus))), None
    )


def broken_verdict(verdicts: Iterable[LinkVerdict], group: Iterable[int]) -> LinkVerdict | None:
    """The first verdict because of which some GPUs cannot work together at all; else None.

    A failure with P2P counts if there was no measurement without P2P.
    """
    inside = _inside(verdicts, group)
    p2p_off = p2p_fault(inside, group) is not None
    measured = {(one.gpus, one.p2p) for one in inside}
    for one in inside:
        other_way = (one.gpus, not one.p2p) in measured
        if not one.works and (not other_way or (not one.p2p and p2p_off)):
            return one
    return None


def measured_gb_s(verdicts: Iterable[LinkVerdict], group: Iterable[int]) -> float | None:
    """The smallest measured bus bandwidth over some GPUs, with or without P2P as they will run.

    None without measurements. Measurements of gloo on a CPU do not count.
    """
    inside = _inside(verdicts, group)
    p2p = p2p_fault(inside, group) is None
    rates = (
        one.gb_s
        for one in inside
        if one.works and one.p2p == p2p and (one.library or "").startswith(("nccl", "rccl"))
    )
    return min((rate for rate in rates if rate is not None), default=None)


def describe_verdict(verdict: LinkVerdict) -> str:
    """A description of why GPUs do not work together, or not with P2P."""
    *first, last = map(str, verdict.gpus)
    by = [verdict.library, f"driver {verdict.driver_version}" if verdict.driver_version else None]
    known = ", ".join(text for text in by if text)
    source = f" ({known})" if known else ""
    what = _NOT_WORKING.get(verdict.outcome, "are faster without P2P in an all-reduce")
    detail = f": {verdict.detail}" if verdict.outcome == "fails" and verdict.detail else ""
    return f"GPUs {', '.join(first)} and {last} {what}{source}{detail}"


def _inside(verdicts: Iterable[LinkVerdict], group: Iterable[int]) -> list[LinkVerdict]:
    own = set(group)
    return [one for one in verdicts if own.issuperset(one.gpus)]


def _is_slower(with_p2p: LinkVerdict, without: LinkVerdict | None) -> bool:
    if without is None or not without.works or without.gb_s is None or with_p2p.gb_s is None:
        return False
    uses_p2p = (with_p2p.transport or "").startswith("P2P")
    return uses_p2p and with_p2p.gb_s < without.gb_s * _SLOWER
