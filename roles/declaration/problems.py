"""What is wrong with a declaration, said so that its author can mend it."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_TYPES = {"str", "int", "float", "bool"}
# Keys that were known in an earlier version, and where they are now.
_MOVED = {"engine": "move it under engines.vllm: each kind of engine has its settings there"}


class DeclarationError(ValueError):
    """An inventory that cannot be deployed; `problems` has one line each, path first."""

    def __init__(self, inventory: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{inventory}: nothing was done, the inventory must be mended first:\n{lines}"
        )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two levels of declared data as one: mappings are merged, anything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def problems_of(error: ValidationError, kind: type[BaseModel], where: str) -> Iterator[str]:
    """Each problem that pydantic found, as `path: what is wrong; what to do`."""
    details = error.errors()
    deeper = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    for detail in details:
        # A list whose items are wrong counts as too short as well.
        if detail["type"] == "too_short" and detail["loc"] in deeper:
            continue
        path = _path(where, detail["loc"])
        yield f"{path}: {_message(detail, kind)}"


def _path(where: str, location: tuple[int | str, ...]) -> str:
    path = where
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        # Unions add the name of the member that was tried; it is no key of the inventory.
        elif part not in _TYPES and (part.isidentifier() or "-" in part):
            path += f".{part}" if path else part
    return path or "llm"


def _message(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        if len(detail["loc"]) == 1 and key in _MOVED:
            return _MOVED[key]
        known = _known(kind, detail["loc"][:-1])
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key; {hint}"
    if detail["type"] == "missing":
        return "is missing; set it (the README's table of settings says what it means)"
    if detail["type"] == "string_pattern_mismatch":
        return (
            f"{detail['input']!r} has characters that are not allowed here; it must match "
            f"{detail.get('ctx', {}).get('pattern')}"
        )
    if detail["type"] == "too_long":
        return f"at most {detail['ctx']['max_length']} here; remove the others"  # type: ignore
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:
        # Python does not print an integer of thousands of digits.
        return "that"


def _known(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed at a place below `kind`."""
    for part in location:
        if isinstance(part, int):
            continue
        field = kind.model_fields.get(part)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            break
        kind = inner
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
