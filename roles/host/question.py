"""One question to a host: the parts that several roles want to know, asked by one sh program, and
the one parser of what it prints. Pure."""

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
# Seconds after which a part that hangs is left behind; root's parts end so much earlier.
_DEADLINE_S, _ROOT_EARLIER_S = 150, 10
# Characters of one section: the rest of a longer one is dropped.
SECTION_LIMIT = 1_000_000
END = "end"
# The part that tells how sudo went; the question itself adds it.
SUDO = "sudo"

Sections = Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """What one role asks a host: a POSIX sh script that prints sections, each below `@@ LABEL`.

    The script runs as the ordinary user, or as root where `root`, and limits the time of all that
    it runs. It has `has PROGRAM`, `limit SECONDS COMMAND…`, `part LABEL` and `file_states PATH…`
    (which `roles.host.parse_states` reads). `$1`… are `arguments`; `$ROOM` is a folder of its own
    that goes away at the end, empty where the host has no room for files; `$SUDO` is "yes" where
    sudo asks for no password. Standard input and error are /dev/null.
    """

    name: str
    # pyinfra prints the arguments of facts with -v.
    script: str = field(repr=False)
    root: bool = False
    arguments: tuple[str, ...] = ()


def question(parts: Iterable[Part], deadline_s: int = _DEADLINE_S) -> str:
    """One sh program that asks all parts side by side and ends after so many seconds at most.

    Root's parts go by one `sudo -n`, or directly where the user is root; where neither is possible
    they are left out, and the section "errors" of the part `SUDO` says why ("hung" is there too
    where they gave no answer in time). ValueError for a name that is no plain word or stands twice.
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
    """The text as a here-document, which needs no quoting however deep it stands."""
    mark = f"{_PART}{name}"
    if mark in text.splitlines():
        raise ValueError(f"the script of the part {name} has a line {mark!r}, which ends it")
    return f"<<'{mark}'\n{text.rstrip()}\n{mark}"


def parse_answers(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Each part's sections by name and label, from what a `question` printed.

    What stands before the first part or label, as a login's banner, is dropped. Of a part or label
    that comes twice the first counts. A part that was not asked or gave no answer is absent; one
    that was answered to its end has the section "end".
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
    """What stands below each line that begins with the mark, by the rest of that line."""
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
    """ValueError where a part's answer is not there, is cut short or lacks one of these labels."""
    if not sections:
        raise ValueError(f"the host gave no answer about {about}")
    if missing := [label for label in (*labels, END) if label not in sections]:
        raise ValueError(
            f"the host's answer about {about} is cut short: {', '.join(missing)} missing"
        )
