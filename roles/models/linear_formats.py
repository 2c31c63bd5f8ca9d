"""Which linear of a model has which storage format, by the names that checkpoints list. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from roles.models.model import Format, Quantization

_PREFIXES = (
    "",
    "model.",
    "language_model.",
    "language_model.model.",
    "model.language_model.",
    "backbone.",
    "thinker.model.",
    "transformer.",
)


_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z", "in_proj_qkvz"),
    "in_proj_ba": ("in_proj_b", "in_proj_a", "in_proj_ba"),
    "experts": ("experts", "experts.0.gate_proj", "experts.0.w1", "experts.0.up_proj"),
}


@dataclass(frozen=True)
class Formats:
    """The format of each linear of a model: groups of (targets, format), the first match counts.

    `head` is the format of the embeddings and the head, None for the model's dtype.
    """

    quantization: Quantization | None = None
    groups: tuple[tuple[tuple[str, ...], Format], ...] = ()
    head: Format | None = None

    def of(self, name: str) -> Format | None:
        """The format of a linear by its path; None if it has the model's dtype."""
        if self.quantization is None:
            return None
        if self.quantization.experts_only and ".experts" not in name:
            return None
        names = _full_names(name)
        if self._ignored.first(names) is not None:
            return None
        found = self._targets.first(names)
        return None if found is None else self.groups[found][1]

    @cached_property
    def _ignored(self) -> "_Patterns":
        listed = self.quantization.ignored if self.quantization else ()
        return _Patterns(enumerate(listed))

    @cached_property
    def _targets(self) -> "_Patterns":
        return _Patterns(
            (number, "*" if target == "Linear" else target)
            for number, (targets, _) in enumerate(self.groups)
            for target in targets
        )


class _Patterns:
    """Numbered patterns of module names; checkpoints list thousands, most of them plain paths."""

    def __init__(self, numbered: Iterable[tuple[int, str]]) -> None:
        self.beginnings: dict[str, int] = {}
        self.parts: dict[str, int] = {}
        self.stems: dict[str, int] = {}
        self.others: list[tuple[int, str]] = []
        for number, pattern in numbered:
            stem = pattern.removesuffix("*")
            if stem and stem != pattern and not set(stem) & set("*?[:"):
                self.stems.setdefault(stem, number)
            elif pattern.startswith("re:") or "*" in pattern:
                self.others.append((number, pattern))
            elif "layers." in pattern:
                self.beginnings.setdefault(pattern, number)
            else:
                self.parts.setdefault(pattern, number)
        self.all_stems = tuple(self.stems)
        self.part_words = {pattern.partition(".")[0] for pattern in self.parts}
        self.part_lengths = {pattern.count(".") + 1 for pattern in self.parts}
        self.beginning_lengths = {pattern.count(".") + 1 for pattern in self.beginnings}

    def first(self, names: tuple[str, ...]) -> int | None:
        """The number of the first pattern that matches any of the names; None if none does."""
        found = [number for number, pattern in self.others if _matches(pattern, names)]
        if self.all_stems:
            begun = [name for name in names if name.startswith(self.all_stems)]
            stems = self.stems.items() if begun else ()
            found += [number for stem, number in stems for name in begun if name.startswith(stem)]
        if self.parts:
            found += [number for name in names for number in self._parts_of(name)]
        if self.beginnings:
            found += [number for name in names for number in self._beginnings_of(name)]
        return min(found, default=None)

    def _parts_of(self, name: str) -> Iterator[int]:
        """The numbers of plain patterns that are consecutive words of a name."""
        words = name.split(".")
        begins = [at for at, word in enumerate(words) if word in self.part_words]
        paths = (".".join(words[at : at + n]) for at in begins for n in self.part_lengths)
        return (self.parts[path] for path in paths if path in self.parts)

    def _beginnings_of(self, name: str) -> Iterator[int]:
        """The numbers of plain module paths that equal a name or contain it."""
        words = name.split(".")
        paths = (".".join(words[:length]) for length in self.beginning_lengths)
        return (self.beginnings[path] for path in paths if path in self.beginnings)


def _full_names(name: str) -> tuple[str, ...]:
    """The names that a checkpoint may have for a module that vLLM fuses."""
    stem, _, last = name.rpartition(".")
    parts = (last, *_FUSED.get(last, ()))
    dotted = [f"{stem}.{part}" if stem else part for part in parts]
    return tuple(prefix + path for prefix in _PREFIXES for path in dotted)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern[3:])
        except re.error:
            return False
        return any(expression.match(name) for name in names)
    return any(fnmatchcase(name, pattern) for name in names)
