"""From what an inventory says about GPUs to `Hardware`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from roles.hardware.cards import close_names, find_card
from roles.hardware.gpus import Gpu, Hardware
from roles.hardware.settings import GpuDeclaration, Links, check_card_name

_SHORT_FORM = re.compile(r" *([1-9][0-9]{0,3}) ?[x×] +(.+)", re.IGNORECASE)


def declared_hardware(
    gpus: str | Sequence[GpuDeclaration | Mapping[str, Any]], links: str | None = None
) -> Hardware:
    """The GPUs that a person declares, indexed in the order given, under their full names.

    `gpus` is the short form ("2x NVIDIA L40S", several joined by " + ") or a list of
    `GpuDeclaration` or of mappings with its fields. ValueError says what is wrong and what to do.
    """
    if links is not None and links not in get_args(Links):
        raise ValueError(f'links must be "nvlink" or "pcie", not {links!r}')
    entries = _short_form(gpus) if isinstance(gpus, str) else [_entry(item) for item in gpus]
    if not entries:
        raise ValueError("no GPU is declared: name at least one, or leave gpus out")
    if (count := sum(entry.count for entry in entries)) > 64:
        raise ValueError(f"{count} GPUs are declared: a host has at most 64")
    kinds = [(*_name_and_memory(entry), entry.count) for entry in entries]
    each = [(name, memory_mib) for name, memory_mib, count in kinds for _ in range(count)]
    found = tuple(Gpu(index, name, memory_mib) for index, (name, memory_mib) in enumerate(each))
    return Hardware(found, links)


def _short_form(text: str) -> list[GpuDeclaration]:
    return [_short_entry(part) for part in text.split(" + ")]


def _short_entry(part: str) -> GpuDeclaration:
    match = _SHORT_FORM.fullmatch(part)
    if match is None:
        raise ValueError(
            f"{part!r} does not say how many of which card: write e.g. 2x NVIDIA L40S, "
            "or several kinds joined by ' + '"
        )
    name = check_card_name(match[2])
    count = int(match[1])
    if count > 64:
        raise ValueError(f"{part!r} declares {count} GPUs: a host has at most 64")
    return GpuDeclaration(name=name, count=count)


def _entry(item: GpuDeclaration | Mapping[str, Any]) -> GpuDeclaration:
    return item if isinstance(item, GpuDeclaration) else GpuDeclaration.model_validate(item)


def _name_and_memory(entry: GpuDeclaration) -> tuple[str, int]:
    card = find_card(entry.name)
    if card is not None:
        # A declared memory wins: cards with rebuilt memory report another one under the same name.
        return card.name, entry.memory_mib or card.memory_mib
    if entry.memory_mib is None:
        raise ValueError(_unknown(entry))
    return entry.name, entry.memory_mib


def _unknown(entry: GpuDeclaration) -> str:
    close = close_names(entry.name)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown card {entry.name!r}: {guess}For a card that is not in the table declare "
        "memory_mib, as nvidia-smi reports memory.total: "
        f'gpus: [{{"name": "{entry.name}", "memory_mib": ..., "count": {entry.count}}}]'
    )
