"""What pydantic found wrong in settings, as messages by which their author can correct it."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from roles.checks import printable

_TYPES = {"str", "int", "float", "bool", "[key]", "constrained-str"}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
# The beginning of a message about a field of the model: "services[0].share: ".
_PLACE = re.compile(r"([a-z_]+)[\w.\[\]]*: ")
_MEMBER = re.compile(r"[\[\](),]")
# How pydantic's own messages begin: "Input should be …", "String should have …".
_SHOULD = re.compile(r"^\w+ should(?= )")


@dataclass(frozen=True)
class Wording:
    """How problems of one kind of input are put: its words for types and for remedies.

    `top` is the place of all of it, `docs` says where a missing setting is explained, `moved` are
    keys of an earlier version, and where they are now. `is_json`: values are written as JSON has
    them.
    """

    expected: Mapping[str, str]
    remedies: Mapping[str, str]
    top: str = ""
    docs: str = ""
    moved: Mapping[str, str] = field(default_factory=dict)
    is_json: bool = False


def validation_problems(
    error: ValidationError, kind: type[BaseModel], where: str, wording: Wording
) -> Iterator[str]:
    """Each problem that pydantic found, as `path: what is wrong; what to do`."""
    members = _TYPES | _names(kind)
    details = [_without_members(one, members) for one in error.errors(include_url=False)]
    places = [detail["loc"] for detail in details]
    deeper = {place[:depth] for place in places for depth in range(len(place))}
    mistyped = {
        (place[:-1], close)
        for place, detail in zip(places, details, strict=True)
        if detail["type"] in _UNKNOWN and (close := _closest_key(detail, kind))
    }
    found: dict[str, None] = {}
    unions = _unions(places, details, wording)
    for place, detail in zip(places, details, strict=True):
        # A problem deeper inside explains more than the problem of the whole, which a union's other
        # members report, or a list that is too short without its wrong items.
        if place in deeper and (
            detail["type"] in ("too_short", "literal_error") or detail["type"].endswith("_type")
        ):
            continue
        # The key is not missing, but misspelled.
        if detail["type"] == "missing" and (place[:-1], place[-1]) in mistyped:
            continue
        if place in unions:
            message = f"must be {unions[place]}, not {_value(detail['input'], wording)}"
            found[_placed(_path(where, place), message, wording)] = None
            continue
        found[_line(_path(where, place), detail, kind, wording)] = None
    yield from found


def _unions(
    places: list[tuple[int | str, ...]], details: list[ErrorDetails], wording: Wording
) -> dict[tuple[int | str, ...], str]:
    """The types that are allowed at a place where pydantic tried several, in words."""
    tried: dict[tuple[int | str, ...], dict[str, None]] = {}
    for place, detail in zip(places, details, strict=True):
        if detail["type"] == "literal_error":
            tried.setdefault(place, {})[detail.get("ctx", {})["expected"]] = None
        if detail["type"] in wording.expected:
            tried.setdefault(place, {})[wording.expected[detail["type"]]] = None
    return {place: " or ".join(words) for place, words in tried.items() if len(words) > 1}


def _line(path: str, detail: ErrorDetails, kind: type[BaseModel], wording: Wording) -> str:
    message = _message(detail, kind, wording)
    # A message of a model about one of its fields begins with the field's name.
    place = _PLACE.match(message)
    model = _model_at(kind, detail["loc"])
    if detail["type"] == "value_error" and place and model and place[1] in model.model_fields:
        return f"{path}.{message}" if path else message
    return _placed(path, message, wording)


def _placed(path: str, message: str, wording: Wording) -> str:
    place = path or wording.top
    return f"{place}: {message}" if place else message


def _names(kind: type[BaseModel]) -> set[str]:
    """The names of all kinds of settings within one."""
    inner = {one for field in kind.model_fields.values() for one in _models(field.annotation)}
    return {one.__name__ for one in inner}.union(*map(_names, inner - {kind}))


def _without_members(detail: ErrorDetails, members: set[str]) -> ErrorDetails:
    """A problem, its place without the members of unions that pydantic tried, which are no keys of
    the input."""
    place = tuple(
        part
        for part in detail["loc"]
        if isinstance(part, int) or (part not in members and not _MEMBER.search(part))
    )
    return {**detail, "loc": place}


def _path(where: str, location: tuple[int | str, ...]) -> str:
    path = where
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            part = part if part and part.isprintable() else repr(part)
            path += f".{part:.80}" if path else f"{part:.80}"
    return path


def _message(detail: ErrorDetails, kind: type[BaseModel], wording: Wording) -> str:
    if detail["type"] in _UNKNOWN:
        return _unknown_key(detail, kind, wording)
    if detail["type"] == "missing":
        return f"is missing; set it{wording.docs}"
    if detail["type"] == "string_pattern_mismatch":
        return (
            f"{_value(detail['input'], wording)} has characters that are not allowed here; it must "
            f"match {detail.get('ctx', {}).get('pattern')}"
        )
    if detail["type"] == "too_short":
        return f"has too few entries, at least {detail['ctx']['min_length']}; add one"  # type: ignore
    if detail["type"] == "too_long":
        return f"at most {detail['ctx']['max_length']} here; remove the others"  # type: ignore
    if detail["type"] == "value_error" and "integer string conversion" in detail["msg"]:
        return "the number has thousands of digits; write a smaller one"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] in wording.expected:
        message = f"must be {wording.expected[detail['type']]}"
    else:
        message = _SHOULD.sub("must", detail["msg"])
    message += f", not {_value(detail['input'], wording)}"
    return f"{message}; {remedy}" if (remedy := _remedy(detail, kind, wording)) else message


def _unknown_key(detail: ErrorDetails, kind: type[BaseModel], wording: Wording) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if len(detail["loc"]) == 1 and key in wording.moved:
        return wording.moved[key]
    if _model_at(kind, detail["loc"][:-1]) is None:
        return "unknown key; correct or remove it"
    close, known = _closest_key(detail, kind), _known_keys(kind, detail["loc"][:-1])
    hint = f"did you mean {close}?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key; {hint}"


def _remedy(detail: ErrorDetails, kind: type[BaseModel], wording: Wording) -> str | None:
    """What to write where a value is of another type."""
    value, number = detail["input"], detail["type"] in ("int_type", "float_type")
    if value is None:
        needed = _is_required(kind, detail["loc"])
        return "give it a value" if needed else "leave the setting out, or give it a value"
    if number and isinstance(value, bool):
        return f"{_value(value, wording)} is no number; write one"
    if number and isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        return "write the number without quotes"
    return wording.remedies.get(detail["type"])


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_REMEDIES = {
    "int_type": "write a whole number such as 8",
    "float_type": "write a number such as 0.5",
    "bool_type": "write True or False",
    "string_type": "write text in quotes",
    "tuple_type": "write [ … ]",
    "list_type": "write [ … ]",
    "dict_type": "write { … }",
    "model_type": "write { … }",
    "finite_number": "write a number such as 0.5",
}
# What people write in Python: inventories and their groups.
IN_PYTHON = Wording(_EXPECTED, _REMEDIES, "llm", " (docs/settings.md says what it means)")
# What is written as JSON: lines for a command, and recorded files.
IN_JSON = Wording(
    _EXPECTED | {"bool_type": "true or false", "dict_type": "an object", "model_type": "an object"},
    _REMEDIES | {"bool_type": "write true or false"},
    is_json=True,
)


def _closest_key(detail: ErrorDetails, kind: type[BaseModel]) -> str | None:
    """The known key that is most similar to an unknown one."""
    known = _known_keys(kind, detail["loc"][:-1])
    return next(iter(difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)), None)


def _value(value: Any, wording: Wording) -> str:
    if wording.is_json and isinstance(value, bool | None):
        return json.dumps(value)
    return printed(value)


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
        setting = kind.model_fields.get(part)
        inner = next(_models(setting.annotation), None) if setting else None
        if inner is None:
            return kind, False
        kind = inner
    return kind, True


def _is_required(kind: type[BaseModel], location: tuple[int | str, ...]) -> bool:
    """Whether a place holds a setting that cannot be left out."""
    nearest, _ = _nearest(kind, location[:-1])
    setting = nearest.model_fields.get(str(location[-1])) if location else None
    return setting is not None and setting.is_required()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
