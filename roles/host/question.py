"""One question to a host: one sh program asks the parts of several roles, one parser reads it.
Pure."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).parent
_PRELUDE, _RUNNER = (
    _HERE.joinpath(name).read_text(encoding="utf-8") for name in ("prelude.sh", "question.sh")
)
_PART, _LABEL = "@@@ ", "@@ "
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
# Seconds after which a hanging part is abandoned; root's parts end `_ROOT_EARLIER_S` earlier.
_DEADLINE_S, _ROOT_EARLIER_S = 150, 10
# Maximum characters of a section; the rest of a longer one is dropped.
SECTION_LIMIT = 1_000_000
END = "end"
# The part that says whether sudo worked; the question adds it itself.
SUDO = "sudo"

Sections = Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """One role's questions to a host: a POSIX sh script that prints sections below `@@ LABEL`
    lines.

    The script runs as the login user, or as root if `root` is true, and limits the time of every
    command. It can use `has PROGRAM`, `limit SECONDS COMMAND…`, `part LABEL` and
    `file_states PATH…` (`roles.host.parse_states` reads that). `$1`… are `arguments`. `$ROOM` is a
    temporary folder, "" if the host has no room for files. `$SUDO` is "yes" if sudo asks for no
    password. Standard input and error are /dev/null.
    """

    name: str
    # With -v pyinfra prints the arguments of facts.
    script: str = field(repr=False)
    root: bool = False
    arguments: tuple[str, ...] = ()


def question(parts: Iterable[Part], deadline_s: int = _DEADLINE_S) -> str:
    """One sh program that asks all parts in parallel and ends after `deadline_s` at the latest.

    Root's parts run under one `sudo -n`, or directly if the user is root. If neither works they are
    left out, and the section "errors" of the part `SUDO` says why; "hung" is set if they did not
    answer in time. ValueError for a name that is not a plain word or is used twice.
    """
    parts = tuple(parts)
    names = [SUDO, *(part.name for part in parts)]
    if wrong := [name for name in names if not _NAME.fullmatch(name) or names.count(name) > 1]:
        raise ValueError(f"parts of one question need different plain names, not {wrong}")
    lines = [*_start(deadline_s), "ask_sudo"]
    if root := [part for part in parts if part.root]:
        inner = [*_start(deadline_s - _ROOT_EARLIER_S), *map(_begin, root), "finish"]
        lines.append(f"begin_root {_here('root program', chr(10).join(inner))}")
    lines += [_begin(part) for part in parts if not part.root]
    return "\n".join([*lines, "finish"])


def _start(deadline_s: int) -> list[str]:
    return [
        f"DEADLINE_S={deadline_s}",
        f"PRELUDE=$(cat {_here('prelude', _PRELUDE)}\n)",
        'eval "$PRELUDE"',
        _RUNNER,
    ]


def _begin(part: Part) -> str:
    return f"begin {shlex.join((part.name, *part.arguments))} {_here(part.name, part.script)}"


def _here(name: str, text: str) -> str:
    """The text as a here-document, which needs no quoting at any depth."""
    mark = f"{_PART}{name}"
    if mark in text.splitlines():
        raise ValueError(f"the script of the part {name} has a line {mark!r}, which ends it")
    return f"<<'{mark}'\n{text.rstrip()}\n{mark}"


def parse_answers(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Each part's sections by name and label, from what a `question` printed.

    Text before the first part or label, such as a login banner, is dropped. If a part or label
    comes twice, the first counts. A part without an answer is absent; a complete answer has the
    section "end".
    """
    answers: dict[str, dict[str, str]] = {}
    for name, lines_below in _split(lines, _PART):
        if name not in answers:
            answers[name] = _sections(lines_below)
    return answers


def _sections(lines: Iterable[str]) -> dict[str, str]:
    sections: dict[str, str] = {}
    for label, lines_below in _split(lines, _LABEL):
        if label not in sections:
            sections[label] = "\n".join(_bounded(lines_below)).strip("\n")
    return sections


def _split(lines: Iterable[str], mark: str) -> Iterator[tuple[str, list[str]]]:
    """For each line that begins with the mark: the rest of that line, and the lines below it."""
    name, lines_below = None, []
    for line in lines:
        if line.startswith(mark):
            if name is not None:
                yield name, lines_below
            name, lines_below = line.removeprefix(mark).strip(), []
        else:
            lines_below.append(line)
    if name is not None:
        yield name, lines_below


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    left = SECTION_LIMIT
    for line in lines:
        if left <= 0:
            return
        yield line[:left]
        left -= len(line) + 1


def require(sections: Sections, labels: Sequence[str], about: str) -> None:
    """ValueError if a part's answer is missing, is cut short or lacks one of these labels."""
    if not sections:
        raise ValueError(f"the host gave no answer about {about}")
    if missing := [label for label in (*labels, END) if label not in sections]:
        raise ValueError(
            f"the host's answer about {about} is cut short: {', '.join(missing)} missing"
        )
