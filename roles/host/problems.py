"""What pydantic found wrong in settings, as messages by which their author can correct it."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from roles.checks import printable

_TYPES = {"str", "int", "float", "bool", "[key]"}
# The beginning of a message about a field of the model: "services[0].share: ".
_PLACE = re.compile(r"([a-z_]+)[\w.\[\]]*: ")
_MEMBER = re.compile(r"[\[\](),]")


def validation_problems(
    error: ValidationError, kind: type[BaseModel], where: str, moved: Mapping[str, str]
) -> Iterator[str]:
    """Each problem that pydantic found, as `path: what is wrong; what to do`.

    `moved` are keys of an earlier version, and where they are now.
    """
    details = error.errors(include_url=False)
    places = [_keys(detail["loc"]) for detail in details]
    deeper = {place[:depth] for place in places for depth in range(len(place))}
    mistyped = {
        (place[:-1], close)
        for place, detail in zip(places, details, strict=True)
        if detail["type"] == "extra_forbidden" and (close := _closest_key(detail, kind))
    }
    found: dict[str, None] = {}
    unions = _unions(places, details)
    for place, detail in zip(places, details, strict=True):
        # A problem deeper inside explains more than the problem of the whole, which a union's other
        # members report, or a list that is too short without its wrong items.
        if place in deeper and (detail["type"] == "too_short" or detail["type"].endswith("_type")):
            continue
        # The key is not missing, but misspelled.
        if detail["type"] == "missing" and (place[:-1], place[-1]) in mistyped:
            continue
        if place in unions:
            path = _path(where, place) or "llm"
            found[f"{path}: must be {unions[place]}, not {printed(detail['input'])}"] = None
            continue
        found[_line(_path(where, place), detail, kind, moved)] = None
    yield from found


def _unions(
    places: list[tuple[int | str, ...]], details: list[ErrorDetails]
) -> dict[tuple[int | str, ...], str]:
    """The types that are allowed at a place where pydantic tried several, in words."""
    tried: dict[tuple[int | str, ...], dict[str, None]] = {}
    for place, detail in zip(places, details, strict=True):
        if detail["type"] in _EXPECTED:
            tried.setdefault(place, {})[_EXPECTED[detail["type"]]] = None
    return {place: " or ".join(words) for place, words in tried.items() if len(words) > 1}


def _line(path: str, detail: ErrorDetails, kind: type[BaseModel], moved: Mapping[str, str]) -> str:
    message = _message(detail, kind, moved)
    # A message of a model about one of its fields begins with the field's name.
    place = _PLACE.match(message)
    model = _model_at(kind, detail["loc"])
    if detail["type"] == "value_error" and place and model and place[1] in model.model_fields:
        return f"{path}.{message}" if path else message
    return f"{path or 'llm'}: {message}"


def _keys(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A place without the members of unions that pydantic tried, which are no keys of the
    inventory."""
    return tuple(
        part
        for part in location
        if isinstance(part, int) or (part not in _TYPES and not _MEMBER.search(part))
    )


def _path(where: str, location: tuple[int | str, ...]) -> str:
    path = where
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            part = part if part and part.isprintable() else repr(part)
            path += f".{part:.80}" if path else f"{part:.80}"
    return path


def _message(detail: ErrorDetails, kind: type[BaseModel], moved: Mapping[str, str]) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        if len(detail["loc"]) == 1 and key in moved:
            return moved[key]
        close, known = _closest_key(detail, kind), _known_keys(kind, detail["loc"][:-1])
        hint = f"did you mean {close}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key; {hint}"
    if detail["type"] == "missing":
        return "is missing; set it (docs/settings.md says what it means)"
    if detail["type"] == "string_pattern_mismatch":
        return (
            f"{printed(detail['input'])} has characters that are not allowed here; it must match "
            f"{detail.get('ctx', {}).get('pattern')}"
        )
    if detail["type"] == "too_short":
        return f"has too few entries, at least {detail['ctx']['min_length']}; add one"  # type: ignore
    if detail["type"] == "too_long":
        return f"at most {detail['ctx']['max_length']} here; remove the others"  # type: ignore
    if detail["type"] == "value_error" and "integer string conversion" in detail["msg"]:
        return "the number has thousands of digits; write a smaller one"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    message = f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
    if detail["type"] in _EXPECTED:
        message = f"must be {_EXPECTED[detail['type']]}"
    message += f", not {printed(detail['input'])}"
    return f"{message}; {remedy}" if (remedy := _remedy(detail, kind)) else message


def _remedy(detail: ErrorDetails, kind: type[BaseModel]) -> str | None:
    """What to write where a value is of another type."""
    value, number = detail["input"], detail["type"] in ("int_type", "float_type")
    if value is None:
        needed = _is_required(kind, detail["loc"])
        return "give it a value" if needed else "leave the setting out, or give it a value"
    if number and isinstance(value, bool):
        return f"{value} is no number; write one"
    if number and isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        return "write the number without quotes"
    return _REMEDIES.get(detail["type"])


# The types in the words of those who write inventories.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_REMEDIES = {
    "int_type": "write a whole number such as 8",
    "float_type": "write a number such as 0.5",
    "bool_type": "write True or False",
    "string_type": "write text in quotes",
    "tuple_type": "write [ … ]",
    "dict_type": "write { … }",
    "model_type": "write { … }",
}


def _closest_key(detail: ErrorDetails, kind: type[BaseModel]) -> str | None:
    """The known key that is most similar to an unknown one."""
    known = _known_keys(kind, detail["loc"][:-1])
    return next(iter(difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)), None)


def printed(value: Any) -> str:
    """A value as Python writes it, shortened; its type where it cannot be written."""
    try:
        return printable(f"{value!r:.60}")
    except Exception:
        # Integers of thousands of digits, and objects whose repr raises.
        return f"a value of type {type(value).__name__}"


def _model_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The kind of settings that a place holds; None where it holds something else."""
    nearest, is_there = _nearest(kind, location)
    return nearest if is_there else None


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed at a place within settings of `kind`."""
    return list(_nearest(kind, location)[0].model_fields)


def _nearest(
    kind: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[type[BaseModel], bool]:
    """The innermost kind of settings on the way to a place, and whether it is at that place."""
    for part in location:
        if isinstance(part, int):
            continue
        field = kind.model_fields.get(part)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return kind, False
        kind = inner
    return kind, True


def _is_required(kind: type[BaseModel], location: tuple[int | str, ...]) -> bool:
    """Whether a place holds a setting that cannot be left out."""
    nearest, _ = _nearest(kind, location[:-1])
    field = nearest.model_fields.get(str(location[-1])) if location else None
    return field is not None and field.is_required()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
