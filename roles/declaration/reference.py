"""The tables of docs/settings.md, made from the settings themselves.

`python -m roles.declaration.reference docs/settings.md` writes them between the file's markers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from roles.balancer import BalancerSettings, RouteSettings
from roles.declaration.settings import FleetSettings, HostSettings, Service
from roles.driver import DriverSettings
from roles.engine import ENGINE_SETTINGS
from roles.interconnect import InterconnectSettings
from roles.launch import LaunchSettings
from roles.models import DeclaredModel
from roles.topology import GroupSettings, SpeculativeSettings
from roles.tuning import TuningSettings
from roles.validation import ValidationSettings
from roles.watchdog import ServiceWatch, WatchdogSettings

BEGIN = "<!-- settings: made by `make reference`, do not edit -->"
END = "<!-- end of settings -->"

TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`llm` of `all`", FleetSettings),
    ("`llm` of a host or a group", HostSettings),
    ("`services[]`", Service),
    ("`services[].route`", RouteSettings),
    ("`services[].members[]`", GroupSettings),
    ("`services[].speculative`", SpeculativeSettings),
    ("`services[].model`, where the catalog has no such model", DeclaredModel),
    *((f"`engines.{kind}`", settings) for kind, settings in ENGINE_SETTINGS.items()),
    ("`driver`", DriverSettings),
    ("`tuning`", TuningSettings),
    ("`interconnect`", InterconnectSettings),
    ("`launch`", LaunchSettings),
    ("`balancer`", BalancerSettings),
    ("`validation`", ValidationSettings),
    ("`watchdog`", WatchdogSettings),
    ("`services[].watchdog`", ServiceWatch),
)


def reference() -> str:
    """All tables, in Markdown."""
    return "\n".join(f"## {title}\n\n{_table(kind)}" for title, kind in TABLES)


def with_reference(text: str) -> str:
    """A text with the part between its markers replaced; ValueError where it has no markers."""
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"no {BEGIN} … {END} in the text")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _table(kind: type[BaseModel]) -> str:
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|", *_rows(kind)]
    return "\n".join(rows) + "\n"


def _rows(kind: type[BaseModel]) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        # Validators set this field, so an inventory cannot.
        if field.exclude:
            continue
        # A type that a validator widens has a note of its own.
        note = next((note for note in field.metadata if isinstance(note, str)), None)
        kind_of_value = note or _type(field.annotation)
        cells = (f"`{name}`", kind_of_value, _default(field), field.description or "")
        yield "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default in (None, (), {}) or field.default is PydanticUndefined:
        return "—"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{value}`"


def _type(annotation: Any) -> str:
    """A type in words of those who write inventories."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    origin = get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return _TYPE_NAMES.get(
            annotation, "mapping" if issubclass(annotation, BaseModel) else "text"
        )
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if all(isinstance(argument, str) for argument in arguments):
        return " or ".join(f'`"{argument}"`' for argument in arguments)
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))


_TYPE_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
}


def main(arguments: list[str]) -> int:
    """Write the tables into the named file."""
    file = Path(arguments[0])
    file.write_text(with_reference(file.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
