"""The pages of the docs: their blocks of code, their inline code, their links and anchors."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_OPERATORS = frozenset(";&|()")


@dataclass(frozen=True)
class Block:
    """A block of code, or code within a line; where it stands is its name in tests."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in the order of the pages."""
    return [one for page in PAGES for one in _blocks(page) if one.language == language]


def heading_above(block: Block) -> str:
    """The heading of the section that a block stands in."""
    above = "\n".join(prose(block.page).splitlines()[: block.line - 1])
    return _HEADING.findall(above)[-1]


def _blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text[: found.start()].count("\n") + 2, found[1], found[2])
        for found in _FENCE.finditer(text)
    ]


def languages() -> set[str]:
    """The languages of all blocks; "" where one names none."""
    return {one.language for page in PAGES for one in _blocks(page)}


def prose(page: Path) -> str:
    """A page without its blocks, whose lines are empty instead."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())


def inline() -> list[Block]:
    """All code within lines; what escapes a table's lines is taken out."""
    return [
        Block(page, number, "", found.replace("\\|", "|"))
        for page in PAGES
        for number, line in enumerate(prose(page).splitlines(), 1)
        for found in _INLINE.findall(line)
    ]


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead."""
    return _LINK.findall(_INLINE.sub("", prose(page)))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(prose(page))
    return frozenset(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings)


def pipelines(text: str) -> Iterator[list[list[str]]]:
    """The commands of a shell text, those that a pipe joins together; without redirections, which
    no reader of arguments sees."""
    for line in text.replace("\\\n", " ").splitlines():
        joined: list[list[str]] = [[]]
        words = iter(_words(line))
        for word in words:
            if word in ("|", "|&"):
                joined.append([])
            elif set(word) <= _OPERATORS:
                yield from _whole(joined)
                joined = [[]]
            elif set(word) <= set("<>"):
                next(words)
            else:
                joined[-1].append(word)
        yield from _whole(joined)


def _words(line: str) -> list[str]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    return list(reader)


def _whole(joined: list[list[str]]) -> Iterator[list[list[str]]]:
    if joined != [[]]:
        yield joined
