"""What the links of a host mean: NVLink islands, the worst link of a group, P2P between GPUs.

Pure facts from the links of `Hardware`. Why they matter: collectives of vLLM need every pair
of a group on NVLink for more than two GPUs, and are slowest over the worst link of the group.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
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
# P2P that is slower than host memory by more than this is no use.
_SLOWER = 0.9
_NOT_WORKING = {
    "hangs": "hang in an all-reduce",
    "wrong": "get a wrong result of an all-reduce",
    "fails": "fail in an all-reduce",
}


def nvlink_count(label: str) -> int:
    """18 of "NV18", 1 (there is one) of a declared "NV" and of AMD's "XGMI", else 0."""
    match = re.fullmatch(r"NV(\d*)|XGMI", label)
    return int(match[1] or 1) if match else 0


def worst_link(links: Links, group: Iterable[int]) -> str | None:
    """The label of the slowest pair in a group of indexes; None for fewer than two GPUs.

    NV# (more is better) before PIX, PXB, PHB, NODE and SYS; a label nobody knows is the worst.
    ValueError where nobody said how a pair is linked.
    """
    known = {(i, j): label for i, j, label in links}
    pairs = list(combinations(sorted(set(group)), 2))
    if unknown := [pair for pair in pairs if pair not in known]:
        i, j = unknown[0]
        raise ValueError(f"nothing is known of the link of GPU {i} and GPU {j}")
    return max((known[pair] for pair in pairs), key=link_slowness, default=None)


def link_slowness(label: str) -> tuple[int, int]:
    """What to compare labels by: the faster link is the smaller, an unknown one the largest."""
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

    `names` are the driver's by GPU index, `pairs` those of `nvidia-smi topo -p2p r` where there is
    one: its word decides, but for "U" (unknown). Otherwise an NVLink (`link` "NV4") means yes, a
    GeForce RTX 30, 40 or 50 no (NVIDIA's driver restricts P2P on them: NCCL goes through host
    memory), two alike data-centre, RTX A or RTX Ada cards yes. Anything else is unknown: mixed
    cards, a virtual machine's GRID cards and vGPUs, MIG slices.

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
    """The first verdict for which a group of GPUs is to do without P2P; None where none says so.

    That is one of some of its GPUs with P2P that did not work, or was slower than without. NCCL
    uses P2P only where it may: a run over another transport says nothing of P2P's speed.
    """
    inside = _inside(verdicts, group)
    without = {one.gpus: one for one in inside if not one.p2p}
    with_p2p = (one for one in inside if one.p2p)
    return next(
        (one for one in with_p2p if not one.works or _is_slower(one, without.get(one.gpus))), None
    )


def broken_verdict(verdicts: Iterable[LinkVerdict], group: Iterable[int]) -> LinkVerdict | None:
    """The first verdict for which some GPUs cannot work together at all, else None.

    What did not work with P2P and was not measured without it counts: nobody saw it work.
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
    """The least bus bandwidth that was measured over some GPUs, in the way that they are to work.

    None where nothing was. What gloo measured on a CPU says nothing of GPUs.
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
    """Why GPUs do not work together, or not with P2P, in words for a person."""
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
