"""The table of known GPU cards, `cards.yaml`, with the figures that planning needs."""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from roles.hardware.card_names import NameWords, name_words, readings, split_size
from roles.hardware.gpus import Gpu

# libyaml, if available, reads the long table ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Generation = Literal[
    "Maxwell",
    "Pascal",
    "Volta",
    "Turing",
    "Ampere",
    "Ada",
    "Hopper",
    "Blackwell",
    "CDNA1",
    "CDNA2",
    "CDNA3",
    "CDNA4",
    "RDNA2",
    "RDNA3",
    "RDNA4",
]

# Tolerances of a card's memory against a given one, and against the nominal size in a name: GDDR
# cards with ECC print a sixteenth less than their nominal size.
_MEMORY_TOLERANCE = 0.05
_SIZE_TOLERANCE = 0.07
_MIN_AMD_MIB = 4096
# Strix Halo: a processor with the memory and the graphics to serve models.
_LARGE_APUS = ("1002:1586",)


class Card(BaseModel):
    """One kind of GPU. A figure is None if it does not exist or was not found (`source` says
    which).

    Rates are dense, with fp32 accumulation; GB/s and TFLOPS are decimal, MiB binary.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(description="as nvidia-smi or amd-smi prints it; with prints_as, plus a size")
    prints_as: str | None = Field(default=None, description="printed by cards of several sizes")
    aliases: tuple[str, ...] = Field(default=(), strict=False, description="other names of it")
    family_names: tuple[str, ...] = Field(
        default=(), strict=False, description="names of several cards: need a memory"
    )
    vendor: Literal["nvidia", "amd"]
    memory_mib: PositiveInt | None = Field(
        default=None, description="memory.total; None where memory is the host's (unified)"
    )
    usable_memory_mib: PositiveInt | None = Field(
        default=None, description="what CUDA or HIP gives of it, where a log shows it"
    )
    unified_memory: bool = Field(default=False, description="shares its memory with the CPU")
    generation: Generation
    compute_capability: float | None = Field(
        default=None, ge=3, lt=20, description="CUDA's, major.minor; NVIDIA only"
    )
    gfx: str | None = Field(default=None, pattern=r"^gfx[0-9a-f]{3,4}$", description="AMD only")
    pci_device_ids: tuple[str, ...] = Field(default=(), strict=False)
    memory_bandwidth_gb_s: PositiveFloat | None = None
    bf16_dense_tflops: PositiveFloat | None = Field(
        default=None, description="fp16 before Ampere, which has no bfloat16"
    )
    fp8_dense_tflops: PositiveFloat | None = None
    int8_dense_tops: PositiveFloat | None = None
    nvlink_gb_s: PositiveFloat | None = Field(
        default=None, description="all links, both directions; AMD: Infinity Fabric"
    )
    nvlink_optional: bool = Field(default=False, description="only pairs joined by a bridge")
    pcie_generation: PositiveInt | None = None
    pcie_lanes: PositiveInt | None = None
    power_w: PositiveFloat | None = Field(default=None, description="default power limit")
    consumer: bool = Field(
        default=False,
        description="GeForce, TITAN, Radeon RX: NVIDIA's driver gives them no peer-to-peer by PCIe",
    )
    source: str = Field(min_length=1, description="where the figures come from")

    @model_validator(mode="after")
    def _check_fields(self) -> "Card":
        if (self.compute_capability is None) != (self.vendor == "amd"):
            raise ValueError(f"{self.name}: compute_capability is NVIDIA's, and needed there")
        if (self.gfx is None) != (self.vendor == "nvidia"):
            raise ValueError(f"{self.name}: gfx is AMD's, and needed there")
        if self.memory_mib is None and not self.unified_memory:
            raise ValueError(f"{self.name}: memory_mib is missing")
        return self

    @property
    def printed_name(self) -> str:
        """What nvidia-smi or amd-smi prints."""
        return self.prints_as or self.name


@cache
def known_cards() -> tuple[Card, ...]:
    """Every card of the table, ordered by name."""
    text = Path(__file__).with_name("cards.yaml").read_text(encoding="utf-8")
    return tuple(Card.model_validate(row) for row in yaml.load(text, Loader=_LOADER))


@lru_cache(maxsize=4096)
def find_card(name: str, memory_mib: int | None = None) -> Card | None:
    """The card of a name; None if it matches none or several.

    Case, vendor, brand, hyphens and blanks do not matter; a size in the name ("A100 80GB") must be
    the card's. If cards share a name ("A100"), the one nearest to `memory_mib`, as nvidia-smi
    prints it, counts, within 5 %; of equally near ones the usual one with fixed NVLink. A unique
    name matches with any memory: ECC and rebuilt cards change it.
    """
    found = [card for words in readings(name) if (card := _match(words, memory_mib))]
    return found[0] if found and all(card is found[0] for card in found) else None


def cards_by_pci_id(device_id: str) -> tuple[Card, ...]:
    """The cards with the PCI id "10de:2330", ordered by name; several sizes may share one."""
    return _by_pci_id().get(device_id.lower(), ())


def is_integrated(device_id: str | None, memory_mib: int | None) -> bool:
    """Whether a device with the PCI id "1002:13c0" is the graphics of an AMD desktop processor.

    These use 0.5 or 2 GiB of the system's memory, and tools list them beside cards.
    """
    known = device_id in _LARGE_APUS or cards_by_pci_id(device_id or "")
    small = memory_mib is not None and memory_mib < _MIN_AMD_MIB
    return small and (device_id or "").startswith("1002:") and not known


def is_amd_gpu(gpu: Gpu) -> bool:
    """Whether a GPU is AMD's: by the table of cards, else by its PCI id or its name."""
    card = find_card(gpu.name, gpu.memory_mib)
    if card is not None:
        return card.vendor == "amd"
    return (gpu.pci_device_id or "").startswith("1002:") or "AMD" in gpu.name.upper()


def close_names(name: str, limit: int = 5) -> list[str]:
    """Full names of cards similar to `name`: those that contain it, in order.

    If there are none: those that it contains (longest first) and the three most similar.
    """
    words = name_words(name)
    table = {"".join(key): card for key, card in _by_words().items()}
    text = "".join(words)
    keys = [key for key in table if text and text in key]
    if not keys:
        contained = sorted((key for key in _by_words() if _contains(words, key)), key=len)
        keys = ["".join(key) for key in reversed(contained)]
        keys += difflib.get_close_matches(text, table, n=3)
    return list(dict.fromkeys(table[key].name for key in keys))[:limit]


def usable_memory_mib(memory_mib: int, card: Card | None = None) -> int:
    """The memory that CUDA or HIP can use, of the total that nvidia-smi or amd-smi prints.

    This is the table's measured figure if it is for this total. Otherwise a rule from the measured
    figures: NVIDIA's driver reserves some 400 MiB and 0.2 %, AMD's nothing. Its error is at most
    0.6 %.
    """
    if card is not None and card.usable_memory_mib and card.memory_mib == memory_mib:
        return card.usable_memory_mib
    if card is not None and card.vendor == "amd":
        return memory_mib
    return max(0, int(memory_mib * 0.998) - 400)


def _match(words: NameWords, memory_mib: int | None) -> Card | None:
    if card := _by_words().get(words):
        return card
    if family := _families().get(words):
        return _nearest(family, memory_mib, _MEMORY_TOLERANCE) if memory_mib else None
    if (split := split_size(words)) is None:
        return None
    bare, size_gb = split
    known = _by_words().get(bare)
    family = (known,) if known else _families().get(bare, ())
    named = [card for card in family if _is_near(card, size_gb * 1024, _SIZE_TOLERANCE)]
    if memory_mib and not known:
        return _nearest(named, memory_mib, _MEMORY_TOLERANCE)
    return _nearest(named, size_gb * 1024, _SIZE_TOLERANCE)


def _is_near(card: Card, memory_mib: float, tolerance: float) -> bool:
    return abs((card.memory_mib or 0) - memory_mib) <= tolerance * memory_mib


def _nearest(family: Iterable[Card], memory_mib: float, tolerance: float) -> Card | None:
    near = [card for card in family if _is_near(card, memory_mib, tolerance)]
    if not near:
        return None
    least = min(abs((card.memory_mib or 0) - memory_mib) for card in near)
    best = [card for card in near if abs((card.memory_mib or 0) - memory_mib) == least]
    fixed = [card for card in best if card.nvlink_gb_s and not card.nvlink_optional]
    alone = best if len(best) == 1 else fixed
    return alone[0] if len(alone) == 1 else None


def _contains(words: NameWords, part: NameWords) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


@cache
def _by_words() -> dict[NameWords, Card]:
    return {name_words(name): card for card in known_cards() for name in (card.name, *card.aliases)}


@cache
def _families() -> dict[NameWords, tuple[Card, ...]]:
    families: defaultdict[NameWords, list[Card]] = defaultdict(list)
    for card in known_cards():
        for name in (*card.family_names, *([card.prints_as] if card.prints_as else [])):
            families[name_words(name)].append(card)
    return {words: tuple(family) for words, family in families.items()}


@cache
def _by_pci_id() -> dict[str, tuple[Card, ...]]:
    ids: defaultdict[str, list[Card]] = defaultdict(list)
    for card in known_cards():
        for device_id in card.pci_device_ids:
            ids[device_id].append(card)
    return {device_id: tuple(found) for device_id, found in ids.items()}
