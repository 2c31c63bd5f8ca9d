"""A short digest of each setting that a replica starts from: a later run can name those that
differ without their values, which may be private. Pure."""

import hashlib
import re
import shlex
from collections.abc import Mapping

from roles.engine import Start

# Enough to see a change, and too few to tell a guess of a private value from thousands of others.
_DIGITS = 4
# A key of YAML at the left margin, with the lines that belong to it.
_YAML_KEY = re.compile(r"(?m)^([a-z][a-z0-9-]*):((?:.*\n)(?:[ -].*\n)*)")


def fingerprints(start: Start, **parts: str) -> dict[str, str]:
    """Digests by the name of an option, of an environment variable or of one of the `parts`."""
    values = _command_options(start.command)
    for text in start.files.values():
        values |= dict(_YAML_KEY.findall(text))
    values |= {**start.environment, **parts}
    return {
        name: hashlib.sha256(text.encode()).hexdigest()[:_DIGITS] for name, text in values.items()
    }


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose digests differ, or that only one side has."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _command_options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    following = [*words[1:], ""]
    return {
        word.removeprefix("--"): "" if value.startswith("--") else value
        for word, value in zip(words, following, strict=True)
        if word.startswith("--")
    }
