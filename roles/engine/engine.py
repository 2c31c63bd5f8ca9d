"""The engines by kind."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from roles.engine.llama_cpp.planning import LLAMA_CPP
from roles.engine.ollama.planning import OLLAMA
from roles.engine.planning import Planning
from roles.engine.sglang.planning import SGLANG
from roles.engine.vllm.planning import VLLM

EngineKind = Literal["vllm", "llama_cpp", "sglang", "ollama"]
# The engine of a model that any engine can load, unless an inventory names another.
DEFAULT_KIND = VLLM.kind
ENGINES: Mapping[str, Planning] = MappingProxyType(
    {one.kind: one for one in (VLLM, LLAMA_CPP, SGLANG, OLLAMA)}
)


def engine(kind: str) -> Planning:
    """The engine of a kind; the ValueError names the known kinds."""
    if kind not in ENGINES:
        raise ValueError(f"{kind!r} is no engine; set one of {', '.join(ENGINES)}")
    return ENGINES[kind]


def options_of_others(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Options that an engine does not know and another one does, with that one's name."""
    return {
        name: other.name
        for name in names
        if not engine(kind).knows(name)
        for other in ENGINES.values()
        if other.knows(name)
    }
