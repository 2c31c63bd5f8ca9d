"""The cards that need no declared memory: `cards.yaml`, by the names that nvidia-smi prints."""

import difflib
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

# What people leave out when they write a name; the longest first.
_PREFIXES = ("nvidia geforce ", "nvidia ", "tesla ")


class Card(BaseModel):
    """One kind of GPU: `memory_mib` is nvidia-smi's memory.total, `pci_device_id` "10de:26b9"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    memory_mib: PositiveInt
    compute_capability: float = Field(ge=3, lt=20, description="CUDA's, major.minor")
    pci_device_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")
    source: str = Field(description="the real output that shows the figure")


@cache
def cards() -> tuple[Card, ...]:
    """Every card of the table, ordered by name."""
    text = Path(__file__).with_name("cards.yaml").read_text(encoding="utf-8")
    return tuple(Card.model_validate(row) for row in yaml.safe_load(text))


def find_card(name: str) -> Card | None:
    """The card of that name, or None; case, NVIDIA (GeForce) or Tesla in front do not matter."""
    return _by_short_name().get(_short(name))


def close_names(name: str, limit: int = 3) -> list[str]:
    """Full names of cards that look like `name`: those that contain it, then the most similar."""
    short = _short(name)
    table = _by_short_name()
    containing = [key for key in table if short and short in key]
    similar = difflib.get_close_matches(short, table, n=limit)
    return [table[key].name for key in dict.fromkeys(containing + similar)][:limit]


@cache
def _by_short_name() -> dict[str, Card]:
    return {_short(card.name): card for card in cards()}


def _short(name: str) -> str:
    lowered = " ".join(name.lower().split())
    for prefix in _PREFIXES:
        if lowered.startswith(prefix):
            return lowered.removeprefix(prefix)
    return lowered
