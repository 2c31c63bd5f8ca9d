"""Chooses the engine of a model if the inventory leaves that to the plan."""

from dataclasses import dataclass
from typing import Literal

from roles.engine.engine import DEFAULT_KIND, ENGINES, EngineKind, engine
from roles.models import Model

AUTO = "auto"
EngineChoice = EngineKind | Literal["auto"]


@dataclass(frozen=True)
class Chosen:
    """A kind of engine, and the reason if the plan chose it."""

    kind: str
    reason: str = ""


def chosen_engine(setting: str | None, model: Model) -> Chosen:
    """The engine that a service names, or the preferred engine for its model's files.

    A GGUF file gets the engine that prefers this format and can use mixed cards. Other files get
    the default engine.
    """
    if setting not in (None, AUTO):
        return Chosen(setting)
    kind = _made_for(model)
    if setting is None:
        return Chosen(kind)
    files = "a GGUF file" if model.format == "gguf" else f"{model.format} files"
    return Chosen(kind, f"{engine(kind).name} serves it: the model is {files}")


def _made_for(model: Model) -> str:
    able = (one for one in ENGINES.values() if model.format in one.preferred_formats)
    return next((one.kind for one in able), DEFAULT_KIND)
