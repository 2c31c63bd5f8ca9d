"""The recorded hardware of an inventory's hosts: one YAML file to read and commit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roles.hardware.cards import find_card
from roles.hardware.difference import gpu_findings
from roles.hardware.gpus import Gpu, Hardware, LinkOutcome, Links, LinkVerdict
from roles.hardware.outputs.topo import LINK_LABELS, P2P_LABELS
from roles.hardware.settings import check_card_name
from roles.host import parse_yaml

HEADER = "# Recorded by deploys/discover.py: a deploy stops a host whose hardware is another.\n"
# The start of each host's part: all other lines begin with a space.
_NEXT_PART = re.compile(r"\n(?! )")

# Models are built on first use: most programs that import this module never read a recording.
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
SmallCount = Annotated[int, Field(ge=0, le=4_194_304)]
# As `entry` writes them: nvidia-smi's or AMD's labels, "?" for an unknown pair.
_LINKS = re.compile(rf"{LINK_LABELS}|NV|XGMI|PCIE|\?")
_P2P = re.compile(rf"{P2P_LABELS}|\?")
_PCI_ADDRESS = r"^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]$"
_PCI_DEVICE = r"^(0x)?[0-9A-Fa-f]{4}:?[0-9A-Fa-f]{4}$"
_MIG_PROFILE = r"^([1-9]c\.)?[1-9]g\.[0-9]{1,3}gb([+-][a-z.]{1,20})*$"
_IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,99}$"
PrintableText = Annotated[str, Field(pattern=r"^[ -~]{1,300}$")]
# A host's devices, with all partitions and slices; a row has a label for each.
MAX_GPUS = 256
Rows = Annotated[list[Annotated[str, Field(max_length=8 * MAX_GPUS)]], Field(max_length=MAX_GPUS)]


class RecordedGpu(BaseModel):
    """One recorded GPU; see `Gpu`. Unknown fields are left out.

    `index` is left out if it is the GPU's position in the list.
    """

    model_config = _STRICT

    index: Annotated[int, Field(ge=0, lt=MAX_GPUS)] | None = None
    name: str
    memory_mib: Annotated[int, Field(ge=1, le=2**20)]
    reserved_mib: SmallCount | None = None
    compute_capability: Annotated[float, Field(ge=1, lt=20)] | None = None
    pci_address: Annotated[str, Field(pattern=_PCI_ADDRESS)] | None = None
    pci_device_id: Annotated[str, Field(pattern=_PCI_DEVICE)] | None = None
    numa_node: SmallCount | None = None
    pcie_generation: SmallCount | None = None
    pcie_generation_max: SmallCount | None = None
    pcie_width: SmallCount | None = None
    pcie_width_max: SmallCount | None = None
    mig_profile: Annotated[str, Field(pattern=_MIG_PROFILE)] | None = None
    mig_parent: SmallCount | None = None
    mig_index: SmallCount | None = None
    uuid: Annotated[str, Field(pattern=_IDENTIFIER)] | None = None
    serial: Annotated[str, Field(pattern=_IDENTIFIER)] | None = None


class RecordedVerdict(BaseModel):
    """A recorded verdict; see `LinkVerdict`."""

    model_config = _STRICT

    gpus: Annotated[list[SmallCount], Field(min_length=2, max_length=64)]
    p2p: bool
    outcome: LinkOutcome
    gb_s: Annotated[float, Field(ge=0, lt=1e6)] | None = None
    transport: PrintableText | None = None
    library: PrintableText | None = None
    driver_version: PrintableText | None = None
    engine: PrintableText | None = None
    detail: PrintableText | None = None


class RecordedHost(BaseModel):
    """A recorded host: GPUs in the driver's order, and rows of link labels with "X" for the GPU
    itself."""

    model_config = _STRICT

    driver_version: Annotated[str, Field(pattern=r"^[ -~]{1,200}$")] | None = None
    gpus: Annotated[list[RecordedGpu], Field(min_length=1, max_length=MAX_GPUS)]
    links: Rows | None = None
    p2p: Rows | None = None
    interconnect: Annotated[list[RecordedVerdict], Field(max_length=1000)] | None = None


def recorded_hardware(data: Any) -> Hardware:
    """The hardware of one host's entry; the ValueError names each invalid field."""
    try:
        host = RecordedHost.model_validate(data)
    except ValidationError as error:
        errors = (
            f"{'.'.join(map(str, problem['loc'])) or 'entry'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ValueError("; ".join(errors)) from None
    gpus = tuple(_gpu(index, gpu) for index, gpu in enumerate(host.gpus))
    for gpu in gpus:
        card = find_card(gpu.name)
        # Slices and partitions have less; rebuilt cards have up to four times as much.
        if card and card.memory_mib and gpu.memory_mib > 4 * card.memory_mib:
            raise ValueError(f"gpus: {gpu.memory_mib} MiB is more than a {gpu.name} has")
    for before, gpu in pairwise(gpus):
        if gpu.index <= before.index:
            raise ValueError(f"gpus: index {gpu.index} stands behind {before.index}")
    links = _pairs(host.links, gpus, "links", _LINKS)
    p2p = _pairs(host.p2p, gpus, "p2p", _P2P)
    verdicts = _verdicts(host.interconnect or [], gpus)
    return Hardware(gpus, links, p2p, host.driver_version, verdicts)


def with_verdicts(data: Any, hardware: Hardware, verdicts: Sequence[LinkVerdict]) -> dict[str, Any]:
    """A host's entry with its verdicts replaced.

    `data` is the existing entry. For a declared host it may be None or have other GPUs: then a new
    entry is made from `hardware`, without a driver version, so that nothing new can differ.
    """
    if data is None or not _have_same_gpus(hardware, recorded_hardware(data)):
        data = entry(replace(hardware, driver_version=None, interconnect=()))
    kept = {key: value for key, value in data.items() if key != "interconnect"}
    return kept | ({"interconnect": _verdict_lines(verdicts)} if verdicts else {})


def keep_verdicts(found: Hardware, recorded: Hardware | None) -> Hardware:
    """Observed hardware with the recorded verdicts, if these are about the same GPUs."""
    if recorded is None or not _have_same_gpus(found, recorded):
        return found
    return replace(found, interconnect=recorded.interconnect)


def _have_same_gpus(one: Hardware, other: Hardware) -> bool:
    """Whether both have the same GPUs with the same indexes, which verdicts use."""
    return [gpu.index for gpu in one.gpus] == [gpu.index for gpu in other.gpus] and not any(
        gpu_findings(one.gpus, other.gpus)
    )


def completed_from_recording(declared: Hardware, recorded: Hardware | None) -> Hardware:
    """Declared hardware, completed from the recording if that has the same GPUs."""
    if recorded is None or any(gpu_findings(declared.gpus, recorded.gpus)):
        return declared
    return replace(recorded, links=declared.links or recorded.links)


def entry(hardware: Hardware, identifiers: Mapping[int, Mapping[str, str]] | None = None) -> dict:
    """One host's entry for the file; `identifiers` adds uuid and serial by GPU index."""
    more = identifiers or {}
    gpus = [
        {
            key: value
            for key, value in {**vars(gpu), **more.get(gpu.index, {})}.items()
            if value is not None and (key != "index" or value != place)
        }
        for place, gpu in enumerate(hardware.gpus)
    ]
    fields: dict[str, Any] = {"driver_version": hardware.driver_version, "gpus": gpus}
    fields |= {
        "links": _rows(hardware.links, hardware.gpus),
        "p2p": _rows(hardware.p2p, hardware.gpus),
        "interconnect": _verdict_lines(hardware.interconnect) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def recording(entries: Mapping[str, Any]) -> str:
    """The file's text: hosts by name, one GPU or row of links a line."""
    return _joined({name: _part(name, one) for name, one in entries.items()})


def recording_with(text: str, entries: Mapping[str, Any]) -> str:
    """The file's text with these entries added or replaced; ValueError as `read_recording`.

    The parts of other hosts stay the same to the character if `recording` wrote them.
    """
    known = _read_parts(text)
    if known is None:
        return recording(read_recording(text) | dict(entries))
    parts = {name: part for name, (part, _) in known.items()}
    return _joined(parts | {name: _part(name, one) for name, one in entries.items()})


def _joined(parts: Mapping[str, str]) -> str:
    return HEADER + "".join(parts[name] for name in sorted(parts))


def _part(name: str, entry: Any) -> str:
    """The part of the file's text for one host."""
    return yaml.dump({name: entry}, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def read_recording(text: str) -> dict[str, Any]:
    """The entries of a file's text by host; ValueError if it is not a mapping of hosts, or has one
    host twice."""
    known = _read_parts(text)
    if known is not None:
        return {name: entry for name, (_, entry) in known.items()}
    parsed = parse_yaml(text)
    entries = {} if parsed is None else parsed
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError("must map hosts to their hardware")
    return entries


# A run over many hosts reads and writes the file once a host: the same text is read once.
@lru_cache(maxsize=1)
def _read_parts(text: str) -> Mapping[str, tuple[str, Any]] | None:
    """The part and the entry of each host in a text that `recording` wrote; None for another."""
    if not text.startswith(HEADER):
        return None
    lines = _NEXT_PART.split(text.removeprefix(HEADER).removesuffix("\n"))
    parts = [f"{part}\n" for part in lines if part]
    found = [(part, _read_part(part)) for part in parts]
    known = {one[0]: (part, one[1]) for part, one in found if one is not None}
    return known if len(known) == len(found) else None


@lru_cache(maxsize=65536)
def _read_part(part: str) -> tuple[str, Any] | None:
    """The host and entry of a part that `recording` wrote; None for any other text."""
    try:
        entries = parse_yaml(part)
    except ValueError:
        return None
    if not isinstance(entries, dict) or len(entries) != 1:
        return None
    name, entry = next(iter(entries.items()))
    return (name, entry) if isinstance(name, str) and _part(name, entry) == part else None


def _gpu(position: int, gpu: RecordedGpu) -> Gpu:
    check_card_name(gpu.name)
    values = gpu.model_dump(exclude={"index", "uuid", "serial"})
    return Gpu(index=position if gpu.index is None else gpu.index, **values)


def _verdict_lines(verdicts: Sequence[LinkVerdict]) -> list[dict[str, Any]]:
    ordered = sorted(verdicts, key=lambda one: (len(one.gpus), one.gpus, not one.p2p))
    return [
        {key: value for key, value in vars(one).items() if value is not None}
        | {"gpus": list(one.gpus)}
        for one in ordered
    ]


def _verdicts(
    recorded: Sequence[RecordedVerdict], gpus: tuple[Gpu, ...]
) -> tuple[LinkVerdict, ...]:
    indexes = {gpu.index for gpu in gpus}
    seen: set[tuple[tuple[int, ...], bool]] = set()
    for number, one in enumerate(recorded):
        where, key = f"interconnect[{number}].gpus", (tuple(one.gpus), one.p2p)
        if one.gpus != sorted(set(one.gpus)):
            raise ValueError(f"{where}: {one.gpus} are not in ascending order")
        if unknown := set(one.gpus) - indexes:
            raise ValueError(f"{where}: the host has no GPU {min(unknown)}")
        if key in seen:
            raise ValueError(f"{where}: {one.gpus} is there twice with p2p {one.p2p}")
        seen.add(key)
    return tuple(LinkVerdict(**{**one.model_dump(), "gpus": tuple(one.gpus)}) for one in recorded)


def _rows(links: Links | None, gpus: tuple[Gpu, ...]) -> list[str] | None:
    """A row for each GPU with its label to every GPU, "X" to itself and "?" if unknown."""
    if links is None or len(gpus) < 2:
        return None
    label = {pair: name for i, j, name in links for pair in ((i, j), (j, i))}
    indexes = [gpu.index for gpu in gpus]
    return [" ".join("X" if i == j else label.get((i, j), "?") for j in indexes) for i in indexes]


def _pairs(
    rows: list[str] | None, gpus: tuple[Gpu, ...], where: str, labels: re.Pattern[str]
) -> Links | None:
    if rows is None:
        return None
    cells = [row.split() for row in rows]
    if [len(row) for row in cells] != [len(gpus)] * len(gpus):
        raise ValueError(f"{where}: needs a row and a column for each of the {len(gpus)} GPUs")
    for i, row in enumerate(cells):
        for j, label in enumerate(row):
            if (label == "X") != (i == j) or label != cells[j][i]:
                raise ValueError(f"{where}[{i}]: {label!r} to GPU {j} contradicts the other rows")
            if i != j and not labels.fullmatch(label):
                raise ValueError(f"{where}[{i}]: {label!r} is no label of nvidia-smi or amd-smi")
    return tuple(
        (a.index, b.index, cells[i][j])
        for i, a in enumerate(gpus)
        for j, b in enumerate(gpus)
        if i < j and cells[i][j] != "?"
    )


class _Dumper(yaml.SafeDumper):
    """Block style for the file and its lists; a GPU or a verdict is one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _mapping(dumper: yaml.SafeDumper, data: dict) -> yaml.MappingNode:
    node = yaml.SafeDumper.represent_dict(dumper, data)
    node.flow_style = "memory_mib" in data or "outcome" in data
    return node


_Dumper.add_representer(dict, _mapping)
