"""What a host's GPUs and links make a plan say beside its reasons. Pure."""

from collections import Counter
from collections.abc import Sequence

from roles.hardware import Gpu, Hardware, describe_verdict, p2p_fault
from roles.plan import Replica
from roles.topology.collectives import measured_far_below
from roles.topology.grouping import broken_links
from roles.topology.rates import card_of, group_links, group_rates
from roles.topology.serving import Serving


def links_summary(hardware: Hardware) -> str:
    """How many pairs of GPUs have which link, and what measurements say against links."""
    pairs = Counter(label for _, _, label in hardware.links or ())
    counted = [f"{count}x {label}" for label, count in sorted(pairs.items())]
    fault = p2p_fault(hardware.interconnect, [gpu.index for gpu in hardware.gpus])
    faults = [f"with P2P {describe_verdict(fault)}"] if fault else []
    faults += broken_links(hardware, hardware.gpus)
    return "; ".join([*([", ".join(counted)] if counted else []), *dict.fromkeys(faults)])


def without_p2p(replicas: Sequence[Replica], hardware: Hardware) -> tuple[str, ...]:
    """The replicas that run without P2P, and why."""
    faults = {one.name: p2p_fault(hardware.interconnect, one.gpus) for one in replicas}
    return tuple(
        f"{name} does without P2P: with it {describe_verdict(fault)}"
        for name, fault in faults.items()
        if fault is not None
    )


def impossible_links(hardware: Hardware) -> tuple[str, ...]:
    """NVLink between cards that have none, as a declaration may say."""
    names = {gpu.index: gpu.name for gpu in hardware.gpus if _has_no_nvlink(gpu)}
    pairs = (hardware.links or ()) if names else ()
    wrong = dict.fromkeys(
        names[i] for i, _, label in pairs if label.startswith("NV") and i in names
    )
    return tuple(
        f"{name} has no NVLink: planned as over PCIe; set links to pcie, or correct the GPU"
        for name in wrong
    )


def _has_no_nvlink(gpu: Gpu) -> bool:
    card = card_of(gpu)
    return card is not None and card.nvlink_gb_s is None


def slow_links(serving: Serving, hardware: Hardware) -> tuple[str, ...]:
    """The groups of GPUs whose measured rate is far below their links' estimate."""
    if not hardware.interconnect:
        return ()
    findings = []
    for group in (group for one in serving.chosen for group in one.groups if len(group) > 1):
        rates, links = group_rates(group, hardware), group_links(group, hardware)
        if rates is not None and measured_far_below(len(group), rates, links):
            names = ", ".join(str(gpu.index) for gpu in group)
            findings.append(
                f"GPUs {names}: an all-reduce was measured at {links.measured_gb_s:g} GB/s, far "
                "below what their links should do; estimates go by it"
            )
    return tuple(findings)


def gpu_warnings(
    gpus: tuple[Gpu, ...], replicas: tuple[Replica, ...], spare: tuple[int, ...]
) -> tuple[str, ...]:
    """What is to be known of the GPUs of a host: that none serves, that some are spare, that the
    table lacks some."""
    unknown = [
        f"{name} is not in the table of cards: planned by what it reports"
        for name in dict.fromkeys(gpu.name for gpu in gpus if card_of(gpu) is None)
    ]
    if not replicas:
        return ("this host serves nothing", *unknown)
    if spare:
        return (f"spare GPUs: {', '.join(map(str, spare))}", *unknown)
    return tuple(unknown)
