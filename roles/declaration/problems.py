"""Problems of a declaration, as messages by which its author can correct it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from roles.host import IN_PYTHON, validation_problems

# Keys of an earlier version, and where they are now.
_MOVED = {"engine": "move it under engines.vllm: each kind of engine has its settings there"}
_WORDING = replace(IN_PYTHON, moved=_MOVED)


class DeclarationError(ValueError):
    """An inventory that cannot be deployed; each of its `problems` begins with its place, and
    may go on with indented lines."""

    def __init__(self, inventory: str, problems: list[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        lines = "\n".join(f"{inventory}: {problem}" for problem in self.problems)
        what = "it" if len(self.problems) == 1 else f"these {len(self.problems)} faults"
        super().__init__(f"{lines}\nNothing was done: fix {what} first, then run it again.")


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two levels of data merged into one: mappings are merged, other values replaced."""
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
    return validation_problems(error, kind, where, _WORDING)
