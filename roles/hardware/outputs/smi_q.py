"""Parses `nvidia-smi -q`: complete or with -d, also excerpts and text with people's remarks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from roles.hardware.outputs.reading import merged
from roles.hardware.outputs.record import GpuRecord, MigDevice, Process
from roles.hardware.outputs.smi_error import is_message
from roles.hardware.outputs.smi_tree import Leaf, describes_gpu, mig_device, process, record_of
from roles.hardware.outputs.text import Line, OutputError, read_lines
from roles.hardware.outputs.values import pci_address, version, whole

_LOG = re.compile(r"=+\s*NVSMI LOG\s*=+")
_GPU = re.compile(r"GPU ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", re.IGNORECASE)
# Not a line's first character.
_COLON = re.compile(r"(?<=.):(?=\s|$)")
_MAX_KEY_LENGTH = 120
_HEADING = re.compile(r"[A-Z][A-Za-z0-9 ._/-]{0,59}")
# Remarks that people add behind a value: wide blanks, or an arrow.
_REMARK = re.compile(r"\s{2,}.*|\s*<[=-].*")


@dataclass(frozen=True)
class SmiQuery:
    """`attached_gpus` is the driver's number of GPUs; excerpts may show fewer."""

    gpus: tuple[GpuRecord, ...]
    driver_version: str | None = None
    cuda_version: str | None = None
    attached_gpus: int | None = None
    processes: tuple[Process, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Section:
    """A GPU's lines as leaves; `address` is None in an excerpt without the GPU's own line."""

    address: str | None
    leaves: tuple[Leaf, ...]


def parse_smi_q(text: str) -> SmiQuery:
    """Parse the text form. GPUs are in the order of their index if all attached ones are shown.

    Of several logs of the same GPUs, as -l prints them, the newest counts. OutputError for text
    without a GPU's section, and for logs of different GPUs in one text.
    """
    lines = read_lines(text)
    logs = [_read_log(group) for group in _logs(lines)]
    shown = [log for log in logs if log.gpus or log.attached_gpus == 0]
    if not shown:
        raise OutputError(
            "no GPU as nvidia-smi -q prints it: is this its output?", lines[0] if lines else None
        )
    last = shown[-1]
    for log in reversed(shown[:-1]):
        last = joined(log, last)
    messages = tuple(line.text.strip() for line in lines if is_message(line.text))
    return replace(last, messages=messages)


def joined(older: SmiQuery, newer: SmiQuery) -> SmiQuery:
    """Two logs of the same GPUs merged; OutputError if the GPUs differ."""
    if [gpu.pci_address for gpu in older.gpus] != [gpu.pci_address for gpu in newer.gpus]:
        raise OutputError("here are logs of different GPUs: give one at a time")
    gpus = tuple(map(merged, older.gpus, newer.gpus))
    return replace(newer, gpus=gpus, messages=(*older.messages, *newer.messages))


def _logs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    group: list[Line] = []
    for line in lines:
        if _LOG.fullmatch(line.text.strip()) and group:
            yield group
            group = []
        group.append(line)
    yield group


def _read_log(lines: Sequence[Line]) -> SmiQuery:
    heads = [at for at, line in enumerate(lines) if _GPU.fullmatch(line.text.strip())]
    head = _leaves(lines[: heads[0]] if heads else lines)
    sections = [
        _Section(_address(lines[at]), _leaves(lines[at + 1 : end]))
        for at, end in zip(heads, [*heads[1:], len(lines)], strict=False)
    ]
    if not heads and describes_gpu(head):
        sections = [_Section(None, head)]
    values = {leaf.path[-1]: leaf.text for leaf in reversed(head) if len(leaf.path) == 1}
    driver = version(values.get("driver version", "")) or version(values.get("kmd version", ""))
    attached = whole(values.get("attached gpus", ""))
    whole_list = attached == len(sections)
    gpus = [
        _gpu(section, index if whole_list else None, driver)
        for index, section in enumerate(sections)
    ]
    return SmiQuery(
        tuple(gpus),
        driver,
        version(values.get("cuda version", "")) or version(values.get("cuda umd version", "")),
        attached,
        tuple(
            it
            for section, gpu in zip(sections, gpus, strict=True)
            for it in _processes(section.leaves, gpu)
        ),
    )


def _address(line: Line) -> str | None:
    match = _GPU.fullmatch(line.text.strip())
    return None if match is None else pci_address(match[1])


def _gpu(section: _Section, index: int | None, driver: str | None) -> GpuRecord:
    return record_of(
        section.leaves,
        tuple(_mig_devices(section.leaves)),
        index=index,
        pci_address=section.address,
        driver_version=driver,
    )


def _leaves(lines: Sequence[Line]) -> tuple[Leaf, ...]:
    """The values with their headings, from the indentation."""
    above: list[tuple[int, str]] = []
    found: list[Leaf] = []
    for line in lines:
        plain = line.text.expandtabs(8)
        depth, content = len(plain) - len(plain.lstrip()), plain.strip()
        colon = _COLON.search(content)
        key = (content[: colon.start()].rstrip() if colon else content).lower()
        if is_message(content) or len(key) > _MAX_KEY_LENGTH:
            continue
        if colon is None and not _HEADING.fullmatch(content):
            continue
        while above and above[-1][0] >= depth:
            above.pop()
        above.append((depth, key))
        if colon is not None:
            path = tuple(name for _, name in above)
            found.append(Leaf(path, _value(path, content[colon.end() :])))
    return tuple(found)


def _value(path: Sequence[str], text: str) -> str:
    return text.strip() if "processes" in path else _REMARK.sub("", text.strip())


def _mig_devices(leaves: Sequence[Leaf]) -> Iterator[MigDevice]:
    """Every "MIG Device" section begins with its index."""
    own = [leaf for leaf in leaves if "mig device" in leaf.path]
    for group in _split(own, "index"):
        device = mig_device(group)
        if device is not None:
            yield device


def _processes(leaves: Sequence[Leaf], gpu: GpuRecord) -> Iterator[Process]:
    own = [leaf for leaf in leaves if "processes" in leaf.path]
    for group in _split(own, "process id"):
        found = process(group, gpu)
        if found is not None:
            yield found


def _split(leaves: Sequence[Leaf], first: str) -> list[list[Leaf]]:
    """The leaves in groups, each of which begins with a leaf of this name."""
    number = 0
    numbers = [number := number + (leaf.path[-1] == first) for leaf in leaves]
    pairs = zip(numbers, leaves, strict=True)
    return [[leaf for _, leaf in group] for _, group in groupby(pairs, key=lambda it: it[0])]
