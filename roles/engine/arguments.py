"""What the values of any engine's options must be, whatever the option means."""

import math
from collections.abc import Collection

from roles.engine.asked import Argument

_LARGEST = 2**31


def check_value(name: str, value: Argument, counts: Collection[str], example: int) -> None:
    """ValueError where a value cannot be an option's; those of `counts` are positive integers.

    `example` is such an integer, for the error.
    """
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{name}: control characters and newlines are not allowed")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is no number that an option takes")
    if isinstance(value, int) and abs(value) >= _LARGEST**2:
        raise ValueError(f"{name}: the number is too large")
    if name in counts and (type(value) is not int or not 1 <= value < _LARGEST):
        raise ValueError(f"{name}: {value!r} is no positive integer; write it as in {example}")
