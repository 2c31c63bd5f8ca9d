"""What vLLM's own recipes say of a model: `recipes.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

COMMIT = "8959cf6"


@dataclass(frozen=True)
class Recipe:
    """A recipe of one model for vLLM.

    `least_version` is the oldest version that it is for, () if it says none; a parser is None if it
    names none. `verified` are the GPUs that the recipe calls verified, `source` is its file.
    """

    least_version: tuple[int, ...]
    tool_call_parser: str | None
    reasoning_parser: str | None
    verified: tuple[str, ...]
    source: str

    @property
    def arguments(self) -> Mapping[str, bool | str]:
        """The options of `vllm serve` that it sets: parsers of tool calls and of reasoning."""
        found: dict[str, bool | str] = {}
        if self.tool_call_parser:
            found |= {"enable-auto-tool-choice": True, "tool-call-parser": self.tool_call_parser}
        if self.reasoning_parser:
            found["reasoning-parser"] = self.reasoning_parser
        return found

    @property
    def least(self) -> str:
        """The least version in words."""
        return f"vLLM {'.'.join(map(str, self.least_version))} or newer"

    def __str__(self) -> str:
        return f"vLLM's recipe ({self.source} at {COMMIT})"


def recipe_of(name: str, variant_of: str | None = None) -> Recipe | None:
    """The recipe of a model, or of the model of which it is a quantised variant; None without."""
    return _recipes().get(name) or _recipes().get(variant_of or "")


@cache
def _recipes() -> Mapping[str, Recipe]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    rows = yaml.load(text, Loader=loader)
    return {name: _recipe(name, row) for row in rows for name in row["models"]}


def _recipe(name: str, row: Mapping[str, Any]) -> Recipe:
    version = row.get("newer", {}).get(name) or row.get("min_vllm_version", "")
    return Recipe(
        tuple(int(part) for part in version.split(".") if part),
        row.get("tool_call_parser"),
        row.get("reasoning_parser"),
        tuple(row.get("verified", ())),
        row["source"],
    )
