"""Converts an inventory's declaration of GPUs to `Hardware`."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from roles.hardware.cards import close_names, find_card
from roles.hardware.gpus import SOME_NVLINK, SOME_PCIE, Gpu, Hardware, Links
from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.topo import parse_topo
from roles.hardware.settings import GpuDeclaration, check_card_name

_SHORT_FORM = re.compile(r" *([1-9][0-9]{0,3}) ?[x×] +(.+)", re.IGNORECASE)


def declared_hardware(
    gpus: str | Sequence[GpuDeclaration | Mapping[str, Any]], links: str | None = None
) -> Hardware:
    """The declared GPUs, indexed in the given order, with their full names.

    `gpus` is the short form ("2x NVIDIA L40S", several joined by " + ") or a list of
    `GpuDeclaration` or of mappings with its fields. `links` is "nvlink" (every pair), "pcie" (no
    pair) or the text that `nvidia-smi topo -m` prints. ValueError says what is wrong.
    """
    entries = _short_form(gpus) if isinstance(gpus, str) else [_entry(item) for item in gpus]
    if not entries:
        raise ValueError("no GPU is declared: name at least one, or leave gpus out")
    if (count := sum(entry.count for entry in entries)) > 64:
        raise ValueError(f"{count} GPUs are declared: a host has at most 64")
    kinds = [(*_name_and_memory(entry), entry.count) for entry in entries]
    each = [(name, memory_mib) for name, memory_mib, count in kinds for _ in range(count)]
    found = tuple(Gpu(index, name, memory_mib) for index, (name, memory_mib) in enumerate(each))
    return Hardware(found, declared_links(links, len(found)))


def declared_links(links: str | None, count: int) -> Links | None:
    """The declared links of `count` GPUs; see `declared_hardware`."""
    if links is None:
        return None
    words = {"nvlink": SOME_NVLINK, "pcie": SOME_PCIE}
    if links in words:
        return tuple((i, j, words[links]) for i in range(count) for j in range(i + 1, count))
    if "\n" not in links.strip():
        close = difflib.get_close_matches(links.lower(), words, n=1)
        hint = f"did you mean {close[0]}?" if close else "the text has many lines"
        raise ValueError(
            f'links must be "nvlink", "pcie" or the text of nvidia-smi topo -m; {hint}'
        )
    try:
        topology = parse_topo(links)
    except OutputError as error:
        raise ValueError(
            f'links must be "nvlink", "pcie" or the text of nvidia-smi topo -m: {error}'
        ) from None
    if topology.gpus != count:
        raise ValueError(f"links is a matrix of {topology.gpus} GPUs, but {count} are declared")
    if topology.indexes != tuple(range(count)):
        shown = ", ".join(map(str, topology.indexes))
        raise ValueError(f"links is a matrix of GPU {shown}: declare every GPU that it counts")
    return topology.links


def _short_form(text: str) -> list[GpuDeclaration]:
    return [_short_entry(part) for part in text.split(" + ")]


def _short_entry(part: str) -> GpuDeclaration:
    match = _SHORT_FORM.fullmatch(part)
    if match is None:
        raise ValueError(
            f"{part!r} does not say how many of which GPU: write e.g. 2x NVIDIA L40S, "
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
    name = entry.name if card is None else card.printed_name
    # A declared memory takes precedence: rebuilt cards report another one under the same name.
    memory_mib = entry.memory_mib or (card.memory_mib if card else None)
    if card and card.memory_mib and not _is_plausible_mib(memory_mib or 0, card.memory_mib):
        raise ValueError(
            f"memory_mib: {memory_mib} is not near to what {card.name} has; give MiB, or leave it "
            f"out: {card.memory_mib}"
        )
    if memory_mib is None:
        raise ValueError(
            _unknown_card_message(entry) if card is None else _unified_memory_message(card.name)
        )
    return name, memory_mib


def _is_plausible_mib(memory_mib: int, of_card_mib: int) -> bool:
    """Whether a memory is plausible for a card that was rebuilt, or for a part of the card."""
    return of_card_mib / 16 <= memory_mib <= 4 * of_card_mib


def _unified_memory_message(name: str) -> str:
    return (
        f"{name} shares its memory with the CPU: declare memory_mib, what of it the GPU may use: "
        f'gpus: [{{"name": "{name}", "memory_mib": ...}}]'
    )


def _unknown_card_message(entry: GpuDeclaration) -> str:
    close = close_names(entry.name)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown GPU {entry.name!r}: {guess}For a GPU that is not in the table declare "
        "memory_mib, as nvidia-smi reports memory.total: "
        f'gpus: [{{"name": "{entry.name}", "memory_mib": ..., "count": {entry.count}}}]'
    )
