"""What is on a host where our files belong."""

import shlex

from pyinfra.api import FactBase


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
            mode, owner, group, digest, path = line.split(" ", 4)
            states[path] = f"{mode} {owner} {group} {digest}"
        return states
