"""Reads the keys of a config.json, under several names, with errors that name the remedy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roles.models.config_keys import check_config, is_integer_between, short_repr

# Where multimodal models keep the configuration of their language model.
_NESTED = ("thinker_config", "text_config", "llm_config", "language_config", "language_model")
MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True)
class Fields:
    """The keys of a language model's configuration; `outer` are the keys of the whole file.

    `at` is the path of `values` in the file, with a dot at its end.
    """

    values: Mapping[str, Any]
    outer: Mapping[str, Any]
    at: str = ""

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
        """A whole number of at least `least`; ValueError if it is missing or of another type."""
        name = next((one for one in names if self.values.get(one) is not None), names[0])
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise ValueError(
                    f"{self.at}{' or '.join(names)} is missing; add it, or take the config.json "
                    "that the model is published with"
                )
            return default
        if not is_integer_between(value, least, MAX_INTEGER):
            expected = f"a whole number from {least} to {MAX_INTEGER}"
            raise ValueError(f"{self.at}{name} is {short_repr(value)}; it must be {expected}")
        return int(value)

    def listed(self, *names: str, length: int | None = None) -> list[Any] | None:
        """A list, of at least `length` if that is given; None if it is missing."""
        value = self.get(*names)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.at}{names[0]} is {short_repr(value)}; it must be a list")
        if length is not None and len(value) < length:
            raise ValueError(
                f"{self.at}{names[0]} has {len(value)} entries for {length} layers; it must have "
                "one for each"
            )
        return list(value)

    def mapping(self, *names: str) -> Mapping[str, Any] | None:
        """A mapping; None if it is missing."""
        value = self.get(*names)
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{self.at}{names[0]} is {short_repr(value)}; it must be a mapping")
        return value

    @property
    def model_type(self) -> str:
        """The language model's type, as transformers names it, without the `_text` of parts."""
        kind = str(self.get("model_type") or self.outer.get("model_type") or "")
        return kind.removesuffix("_text_model").removesuffix("_text")


def text_fields(config: Mapping[str, Any]) -> Fields:
    """The fields of the language model, also from the nested config of a multimodal model.

    ValueError for a key whose value is of another kind, or beyond any model's.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"a config is a mapping of keys, not {type(config).__name__}")
    inner: Mapping[str, Any] = config
    at = ""
    check_config(inner)
    for _ in range(3):
        nested = next((key for key in _NESTED if isinstance(inner.get(key), Mapping)), None)
        if nested is None:
            break
        inner, at = inner[nested], f"{at}{nested}."
        check_config(inner, at)
    return Fields(inner, config, at)
