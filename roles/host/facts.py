"""What is on a host where our files belong."""

import shlex

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError


class FileStates(FactBase[dict[str, str]]):
    """Mode, owner, group and SHA-256 of each path that is a regular file, in one command."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, paths: list[str]) -> str:
        quoted = " ".join(shlex.quote(path) for path in paths)
        return (
            f'for f in {quoted}; do [ -f "$f" ] && '
            'printf "%s %s %s\\n" "$(stat -c "%a %U %G" -- "$f")" '
            '"$(sha256sum < "$f" | cut -d" " -f1)" "$f"; done; true'
        )

    def process(self, output: list[str]) -> dict[str, str]:
        states = {}
        for line in output:
            path, state = parse_state(line)
            states[path] = state
        return states


def parse_state(line: str) -> tuple[str, str]:
    """A line of the command: the path, and its state as HostFile.state has it."""
    try:
        mode, owner, group, digest, path = line.split(" ", 4)
    except ValueError as error:
        raise FactProcessError(f"not the state of a file: {line!r}") from error
    return path, f"{mode} {owner} {group} {digest}"
