"""Parses logs of NCCL with NCCL_DEBUG=INFO: the transports between the ranks of a group."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from roles.hardware.outputs.text import OutputError, read_lines

_NCCL = re.compile(r"\bNCCL (?:INFO|WARN|TRACE|ABORT|version)\b")
_SEGMENT = r"(?:direct pointer|[\w.()\[\]+-]+(?: [A-Za-z]\w*(?=/))?)"
# A channel between two ranks, with its transport. A line may have several records, and no record
# continues on the next line. "Ring" is NCCL up to 2.4.
_CHANNEL = re.compile(
    r"(?P<start>\b(?:Channel|Ring|CollNet)\s+\d+(?:/\d+)?\s*:)|\bNCCL (?:INFO|WARN)"
    rf"|\bvia\s+(?P<way>direct shared memory|[A-Z]\w*(?:/{_SEGMENT})*)"
)
# A device: "0", "0(8)" with the rank that owns it, or "5[5]", a GPU in between.
_DEVICE = re.compile(r"\d+(?:\(\d+\)|\[\w+\])?")
# Last parts of a transport that are no beginning of another: a log cut there is still read.
_WHOLE_PART = re.compile(
    r"IPC|CUMEM|CE|read|SHM|GDRDMA|Shared|direct|direct pointer|direct shared memory"
)
_NEXT_RECORD = re.compile(r"(?<!\s)\s+(?:\[\S+\s)?\S+:\d+:\d+ \[\d+\]")


@dataclass(frozen=True)
class NcclLog:
    """The parsed NCCL lines of a log.

    `transports` are the distinct transports of the channels, sorted, as printed without device
    numbers: "P2P/CUMEM", "SHM/direct/direct", "NET/IB/GDRDMA", "NET/Socket"; the old "direct shared
    memory" is "SHM". It is empty if the log shows no channel. `nvls`: whether NVLS (reduction in
    the NVSwitch) has channels, or is available if no line counts them. `ranks` is the size of the
    largest group. `warnings` are the distinct NCCL WARN texts in order.
    """

    transports: tuple[str, ...]
    nvls: bool
    version: str | None
    ranks: int | None
    warnings: tuple[str, ...]


def parse_nccl(text: str) -> NcclLog:
    """Reads a log in which NCCL's lines may be among others; OutputError if there is none."""
    lines = [line.text for line in read_lines(text)]
    if not any(map(_NCCL.search, lines)):
        raise OutputError("no line of NCCL: run with NCCL_DEBUG=INFO and give its output")
    plain = "\n".join(lines)
    versions = re.findall(r"\bNCCL version\s*(?::\s*)?(\d\S*)", plain)
    ranks = [int(count) for count in re.findall(r"(?i)\bnranks[ =](\d{1,9})", plain)]
    return NcclLog(
        transports=_transports(lines, text.endswith(("\n", "\r"))),
        nvls=_nvls(plain),
        version=versions[0] if versions else None,
        ranks=max(ranks, default=None),
        warnings=_warnings(lines),
    )


def _transports(lines: list[str], last_line_is_whole: bool) -> tuple[str, ...]:
    found: set[str] = set()
    for number, line in enumerate(lines, start=1):
        for match in _ways(line):
            segments = match["way"].split("/")
            cut = number == len(lines) and match.end() == len(line) and not last_line_is_whole
            if not cut or _WHOLE_PART.fullmatch(segments[-1]) or _DEVICE.fullmatch(segments[-1]):
                found.add(_normal(segments))
    return tuple(sorted(found))


def _ways(line: str) -> Iterator[re.Match[str]]:
    """The way of each channel in a line."""
    started = False
    for match in _CHANNEL.finditer(line):
        if started and match["way"]:
            yield match
        started = bool(match["start"])


def _normal(segments: list[str]) -> str:
    if segments == ["direct shared memory"]:
        return "SHM"
    return "/".join(part for part in segments if not _DEVICE.fullmatch(part))


def _nvls(plain: str) -> bool:
    counts = re.findall(r"\b(\d{1,9}) nvls channels", plain)
    if counts:
        return any(int(count) for count in counts)
    return bool(re.search(r"NVLS multicast support is available|\bNVLS Head\b", plain))


def _warnings(lines: list[str]) -> tuple[str, ...]:
    texts = (piece for line in lines for piece in line.split("NCCL WARN")[1:])
    messages = (_NEXT_RECORD.split(piece, maxsplit=1)[0].strip() for piece in texts)
    return tuple(dict.fromkeys(message for message in messages if message))
