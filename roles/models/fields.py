"""Reading a config.json: keys under their several names, with errors that say what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Where multimodal models keep the configuration of their language model.
_NESTED = ("thinker_config", "text_config", "llm_config", "language_config", "language_model")
LARGEST = 2**40


@dataclass(frozen=True)
class Fields:
    """The keys of a language model's configuration; `outer` are those of the whole file."""

    values: Mapping[str, Any]
    outer: Mapping[str, Any]

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the names that has a value other than null, else `default`."""
        for name in names:
            value = self.values.get(name)
            if value is not None:
                return value
        return default

    def anywhere(self, *names: str, default: Any = None) -> Any:
        """As `get`, but also from the outer part of the file."""
        found = self.get(*names)
        if found is not None:
            return found
        return Fields(self.outer, self.outer).get(*names, default=default)

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; ValueError where it is missing or something else."""
        value = self.get(*names)
        if value is None:
            if default is None:
                raise ValueError(
                    f"the config has no {' or '.join(names)}: add it, or take the config.json "
                    "that the model is published with"
                )
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{names[0]} is {value!r}: it must be a whole number")
        if not least <= value < LARGEST:
            raise ValueError(f"{names[0]} is {value}: it must be at least {least}, and possible")
        return value

    def listed(self, *names: str, length: int | None = None) -> list[Any] | None:
        """A list, of at least `length` where that is said; None where there is none."""
        value = self.get(*names)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{names[0]} is {value!r}: it must be a list")
        if length is not None and len(value) < length:
            raise ValueError(f"{names[0]} has {len(value)} entries for {length} layers")
        return list(value)

    def mapping(self, *names: str) -> Mapping[str, Any] | None:
        """A mapping, or None where there is none."""
        value = self.get(*names)
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{names[0]} is {value!r}: it must be a mapping")
        return value

    @property
    def model_type(self) -> str:
        """The language model's type, as transformers names it, without the `_text` of parts."""
        kind = str(self.get("model_type") or self.outer.get("model_type") or "")
        return kind.removesuffix("_text_model").removesuffix("_text")


def text_fields(config: Mapping[str, Any]) -> Fields:
    """The fields of the language model, however deep a multimodal model's config keeps them."""
    if not isinstance(config, Mapping):
        raise ValueError(f"a config is a mapping of keys, not {type(config).__name__}")
    inner: Mapping[str, Any] = config
    for _ in range(3):
        nested = next((inner[key] for key in _NESTED if isinstance(inner.get(key), Mapping)), None)
        if nested is None:
            break
        inner = nested
    return Fields(inner, config)
