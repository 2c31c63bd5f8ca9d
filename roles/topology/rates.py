"""Converts cards and models to the plain numbers of the performance estimate."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

from roles.hardware import (
    Card,
    Gpu,
    Hardware,
    Links,
    find_card,
    link_slowness,
    measured_gb_s,
    p2p_fault,
    p2p_possible,
    worst_link,
)
from roles.models import (
    Attention,
    CacheOptions,
    Experts,
    Model,
    Recurrent,
    Weight,
    token_bytes,
    weight_bytes,
)
from roles.topology.costs import Compute, GpuRates, ModelCosts, ReplicaLinks

# One direction of 16 lanes, GB/s (PCI-SIG: 1 GB/s a lane in generation 3, doubled by each next).
_PCIE_X16_GB_S = {1: 4, 2: 8, 3: 16, 4: 32, 5: 64, 6: 128}
# Traffic between sockets also crosses their bus: practitioners see half the rate.
_ACROSS_SOCKETS = 0.5
FP4_CAPABILITY = 10.0
# Formats whose weights are converted to 16 bits before they are multiplied.
_WEIGHT_ONLY = ("int4", "awq", "gptq", "nf4", "gguf")
_CACHE = CacheOptions(kv_cache_dtype="bfloat16")
_CACHE_BYTES = 2


def card_of(gpu: Gpu) -> Card | None:
    """The card of a GPU or of a slice's GPU; None if the table lacks it."""
    whole = gpu.name.partition(" MIG ")[0]
    return find_card(whole) or find_card(whole, gpu.memory_mib)


def gpu_rates(gpu: Gpu) -> GpuRates | None:
    """Peak rates of a GPU from the table of cards; None if the table lacks it.

    A slice of a GPU in MIG mode has its share of the memory's bandwidth and of the cores.
    """
    if not gpu.mig_profile and find_card(gpu.name) is not None:
        # Whole cards of a name are as fast, whatever they report of their memory.
        return _card_rates(gpu.name, gpu.pcie_generation, gpu.pcie_width)
    return _rates(gpu)


@lru_cache(maxsize=512)
def _card_rates(name: str, generation: int | None, width: int | None) -> GpuRates | None:
    return _rates(Gpu(0, name, 0, pcie_generation=generation, pcie_width=width))


@lru_cache(maxsize=512)
def _rates(gpu: Gpu) -> GpuRates | None:
    card = card_of(gpu)
    if card is None or card.memory_bandwidth_gb_s is None or card.bf16_dense_tflops is None:
        return None
    share = 1.0
    if gpu.mig_profile and card.memory_mib:
        share = min(1.0, gpu.memory_mib / card.memory_mib)
    return GpuRates(
        memory_bandwidth_gb_s=card.memory_bandwidth_gb_s * share,
        bf16_tflops=card.bf16_dense_tflops * share,
        fp8_tflops=card.fp8_dense_tflops * share if card.fp8_dense_tflops else None,
        nvlink_gb_s=card.nvlink_gb_s,
        pcie_gb_s=_pcie_gb_s(gpu, card.pcie_generation or 4, card.pcie_lanes or 16),
        fp4_tflops=_fp4_tflops(card, share),
    )


def _fp4_tflops(card: Card, share: float) -> float | None:
    """Twice the rate of FP8, where the tensor cores have FP4 (NVIDIA, since Blackwell)."""
    if card.fp8_dense_tflops is None or (card.compute_capability or 0) < FP4_CAPABILITY:
        return None
    return 2 * card.fp8_dense_tflops * share


def _pcie_gb_s(gpu: Gpu, card_generation: int, card_lanes: int) -> float:
    generation = min(gpu.pcie_generation or card_generation, card_generation)
    lanes = min(gpu.pcie_width or card_lanes, card_lanes)
    return _PCIE_X16_GB_S.get(generation, 32) * lanes / 16


def group_rates(gpus: Sequence[Gpu], hardware: Hardware) -> GpuRates | None:
    """The rates of each GPU of a replica: all are limited by the slowest slot."""
    every = [gpu_rates(gpu) for gpu in gpus]
    known = [rates for rates in every if rates is not None]
    if len(known) < len(every):
        return None
    slowest = min(known, key=lambda rates: (rates.pcie_gb_s, rates.memory_bandwidth_gb_s))
    if group_link(gpus, hardware) != "SYS":
        return slowest
    return replace(slowest, pcie_gb_s=slowest.pcie_gb_s * _ACROSS_SOCKETS)


def group_link(gpus: Sequence[Gpu], hardware: Hardware) -> str | None:
    """The label of the slowest link of a group; None for one GPU, or if links are unknown."""
    if len(gpus) < 2 or hardware.links is None:
        return None
    return _worst(hardware.links, tuple(gpu.index for gpu in gpus))


@lru_cache(maxsize=4096)
def _worst(links: Links, group: tuple[int, ...]) -> str | None:
    try:
        return worst_link(links, group)
    except ValueError:
        return None


def slowest_group(
    groups: Sequence[tuple[Gpu, ...]], hardware: Hardware
) -> tuple[tuple[Gpu, ...], str | None]:
    """The group with the slowest link (the first of equal ones), and that link's label."""
    labelled = [(group, group_link(group, hardware)) for group in groups]
    # A group with unknown links counts only if no link is known.
    return max(labelled, key=lambda one: (one[1] is not None, link_slowness(one[1] or "")))


def group_links(gpus: Sequence[Gpu], hardware: Hardware) -> ReplicaLinks:
    """How the GPUs of a replica reach each other.

    If links are unknown, only cards with NVLink on the board (SXM) are assumed to use it. NVLink
    without a rate in the table counts as PCIe.
    """
    group = [gpu.index for gpu in gpus]
    measured = measured_gb_s(hardware.interconnect, group)
    if p2p_fault(hardware.interconnect, group):
        # Only P2P uses NVLink.
        return ReplicaLinks("pcie", peers=False, measured_gb_s=measured)
    label = group_link(gpus, hardware)
    card = card_of(gpus[0])
    rate = card.nvlink_gb_s if card else None
    nvlink = label.startswith("NV") or label == "XGMI" if label else False
    if label is None and card is not None:
        nvlink = card.nvlink_gb_s is not None and not card.nvlink_optional
    names = tuple((gpu.index, gpu.name) for gpu in gpus)
    refused = len(gpus) > 1 and _is_refused(names, hardware.p2p, label)
    return ReplicaLinks("nvlink" if nvlink and rate else "pcie", not refused, measured)


@lru_cache(maxsize=4096)
def _is_refused(names: tuple[tuple[int, str], ...], p2p: Links | None, label: str | None) -> bool:
    """Whether the driver or the board forbids a pair to read each other's memory."""
    by_index = dict(names)
    return any(
        p2p_possible(by_index, p2p, i, j, label) is False
        for i, j in combinations(sorted(by_index), 2)
    )


@lru_cache(maxsize=256)
def model_costs(model: Model) -> ModelCosts:
    """The costs of a model's forward pass, from its layers and parameters."""
    dense = [
        weight
        for layer in model.layers
        for weight in layer.weights
        if not weight.experts and not weight.name.endswith("absorbed")
    ]
    head = max((*model.last, *model.first), key=_parameters)
    attentions = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    states = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Recurrent)]
    windows = [mixer for mixer in attentions if mixer.window]
    first = attentions[0] if attentions else None
    costs = ModelCosts(
        layers=len(model.layers),
        hidden_size=model.hidden_size,
        dense_bytes=sum(map(weight_bytes, dense)),
        dense_parameters=sum(map(_parameters, dense)),
        head_bytes=weight_bytes(head),
        head_parameters=_parameters(head),
        query_heads=first.heads if first else 1,
        kv_heads=first.kv_heads if first else 1,
        head_size=first.head_size if first else 1,
        kv_bytes_per_token_layer=token_bytes(model, first, _CACHE) if first else 0.0,
        full_attention_layers=len(attentions) - len(windows),
        window_layers=len(windows),
        window_tokens=windows[0].window if windows else 0,
        latent_attention=first is not None and first.kind == "mla",
        dense_matrices=sum(min(one.inputs, one.outputs + one.kv_outputs) > 1 for one in dense),
        recurrent_layers=len(states),
        state_bytes=max(map(_state_bytes, states), default=0.0),
        dense_compute=_compute(dense),
    )
    return _with_experts(costs, model)


def _state_bytes(state: Recurrent) -> float:
    convolution = (state.conv_kernel - 1) * state.conv_channels * _CACHE_BYTES
    return state.state_elements * state.state_bytes + convolution


def _with_experts(costs: ModelCosts, model: Model) -> ModelCosts:
    layers = [layer for layer in model.layers if isinstance(layer.mlp, Experts)]
    mixture = model.experts
    if mixture is None:
        return costs
    routed = [weight for weight in layers[0].weights if weight.experts]
    return replace(
        costs,
        moe_layers=len(layers),
        experts=mixture.count,
        experts_per_token=mixture.per_token,
        expert_bytes=sum(map(weight_bytes, routed)) / mixture.count,
        expert_parameters=sum(map(_parameters, routed)) / mixture.count,
        expert_compute=_compute(routed),
    )


def _parameters(weight: Weight) -> float:
    return float((weight.outputs + weight.kv_outputs) * weight.inputs * max(1, weight.experts))


def _compute(weights: Sequence[Weight]) -> Compute:
    """How most of some weights multiply, by their format."""
    sizes: dict[str, float] = {}
    for weight in weights:
        sizes[weight.format.name] = sizes.get(weight.format.name, 0.0) + _parameters(weight)
    name = max(sizes, key=lambda name: sizes[name], default="")
    if name.startswith(("fp8", "mxfp8")):
        return "fp8"
    if name in ("nvfp4", "mxfp4"):
        return "fp4" if name == "nvfp4" else "mxfp4"
    return "weight only" if name.startswith(_WEIGHT_ONLY) else "16 bit"
