"""Checks of option values that all engines share."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from roles.engine.params import Argument

_MAX_INTEGER = 2**31
# JSON for speculative decoding or a chat template has some kilobytes; a systemd line may have 1
# MiB.
_MAX_LENGTH = 16_384


def check_opposites(arguments: Mapping[str, Argument]) -> None:
    """ValueError if an option and its `no-` form are both set."""
    for name in arguments:
        if f"no-{name}" in arguments:
            raise ValueError(f"{name} and no-{name} contradict each other; leave one of them out")


def check_one_of(name: str, value: Argument, known: Collection[str]) -> None:
    """ValueError if an option does not take a value; it suggests the nearest one."""
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"set one of {', '.join(known)}"
        raise ValueError(f"{name}: {value!r:.60} is none that the engine knows; {hint}")


@cache
def option_names(file: Path) -> frozenset[str]:
    """The options that a file lists, between blanks; its lines with # say where they are from."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(name for line in lines if not line.startswith("#") for name in line.split())


def unknown_options(
    arguments: Iterable[str], known: Collection[str], engine: str, abbreviated: bool
) -> tuple[str, ...]:
    """Options that a version of an engine does not know, in words, each with the nearest that it
    does; `abbreviated` where the engine takes the beginning of an option for the option."""
    found = []
    for name in arguments:
        begun = abbreviated and any(one.startswith(name) for one in known)
        if name in known or begun:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "leave it out, unless yours does"
        found.append(f"{engine} does not know `{name}`; {hint}")
    return tuple(found)


def check_value(name: str, value: Argument, counts: Collection[str], example: int) -> None:
    """ValueError if a value cannot be an option's; options in `counts` need a positive integer.

    `example` is such an integer, for the error.
    """
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{name}: control characters and newlines are not allowed")
    if isinstance(value, str) and len(value) > _MAX_LENGTH:
        raise ValueError(f"{name}: has more than {_MAX_LENGTH} characters; shorten it")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is no number that an option takes")
    if isinstance(value, int) and abs(value) >= _MAX_INTEGER**2:
        raise ValueError(f"{name}: the number is too large")
    if name in counts and (type(value) is not int or not 1 <= value < _MAX_INTEGER):
        raise ValueError(f"{name}: {value!r} is no positive integer; write it as in {example}")
