"""Parses every form of rocm-smi's output about GPUs: text, tables, CSV, JSON."""

import re

from roles.hardware.outputs.amd import (
    AmdReport,
    Cell,
    Gpus,
    architecture,
    bytes_to_mib,
    csv_cells,
    device_id,
    has_link_types,
    link_pairs,
    matrix_row,
    numa_node,
    number_pairs,
    pci_address,
    read_json,
    value_or_none,
    watts,
)
from roles.hardware.outputs.text import Line, OutputError, read_lines

_BANNER = re.compile(
    r"ROCm System Management Interface|End of ROCm SMI Log|^ROCM-SMI(?:-LIB)? version: "
)
_VALUE = re.compile(r"^\s*GPU\[(\d{1,3})\]\s*:\s*(.*)$")
_CARD = re.compile(r"card(\d{1,3})")
_TITLE = re.compile(r"^=+ *([^= ](?:[^=]*[^= ])?) *=+$")
_MATRICES = {
    "Link Type between two GPUs": "link type",
    "Weight between two GPUs": "weight",
    "Hops between two GPUs": "hops",
}
_GPU_LABEL = re.compile(r"GPU(\d{1,3})")
_PAIR = re.compile(
    r"\(Topology\) (Link type|Weight|Hops) between DRM devices (\d{1,3}) and (\d{1,3})"
)
# Tables with a row a GPU: the concise one (of ROCm up to 5, 6.0, and since 6.1) and --showhw.
_TABLE = re.compile(r"^\s*(?:GPU|Device)\s+(?:Temp|Node|NODE|DID|\[Model)\b", re.IGNORECASE)
_ROW = re.compile(r"^\s*(\d{1,3})\s+(\S.*)$")
_TABLE_END = re.compile(r"^\s*=+")
_ROW_END = re.compile(
    r"(?:(?<!\S)\S{0,20}mhz|N/A)\s+(?:\S{0,20}mhz|N/A)\s+(?:[\d.]+%|N/A)\s+\S+"
    r"\s+(?P<cap>[\d.]{1,9}W|N/A|unsupp\S*)\s+(?:\d+%|N/A|unsupp\S*)\s+(?P<use>\d{1,3}%|N/A)$",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(r"(?<!\S)(\d{1,3})(?:\.\d+)? ?°?[cC](?!\S)")
_DEVICE_ID = re.compile(r"(?<!\S)\[?(0x[0-9a-f]{4})(?=[\s,:]|$)", re.IGNORECASE)
_BUS = re.compile(r"(?<!\S)[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7](?!\S)", re.IGNORECASE)


def parse_rocm_smi(text: str) -> AmdReport:
    """Parse any output of rocm-smi; one without GPUs gives none.

    OutputError, with the line, for text that is not rocm-smi's or that contradicts itself.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("rocm-smi printed nothing")
    gpus = Gpus()
    if any(line.text.startswith("device,") for line in lines):
        _read_csv(lines, gpus)
        return AmdReport(gpus.records())
    if not any(_BANNER.search(line.text) for line in lines):
        if any(line.text.lstrip().startswith("{") for line in lines):
            return _read_json(lines, gpus)
        if not any(_VALUE.match(line.text) for line in lines):
            raise OutputError("this is no output of rocm-smi", lines[0])
    return _read_text(lines, gpus)


def _read_text(lines: list[Line], gpus: Gpus) -> AmdReport:
    for line in lines:
        if match := _VALUE.match(line.text):
            key, _, value = match[2].partition(":")
            _read_value(gpus, int(match[1]), key, value, line)
    _read_tables(lines, gpus)
    cells: dict[str, list[Cell]] = {}
    for title, matrix in _matrices(lines):
        for row, *_ in matrix:
            gpus.add(row)
        # In some partition modes rocm-smi omits a title; link types are recognised by their values.
        kind = "link type" if has_link_types(matrix) else _MATRICES.get(title, title)
        cells.setdefault(kind, []).extend(matrix)
    return _report(gpus, cells.get("link type", []), cells.get("weight", []), cells.get("hops", []))


def _report(gpus: Gpus, links: list[Cell], weights: list[Cell], hops: list[Cell]) -> AmdReport:
    return AmdReport(gpus.records(), link_pairs(links), number_pairs(weights), number_pairs(hops))


def _read_value(gpus: Gpus, index: int, key: str, value: str, line: Line | None) -> None:
    """Add one value of a GPU, by rocm-smi's name for it; unknown names are ignored.

    "Card series" became "Card Series" in ROCm 6, "GPU ID" became "Device ID". The card's model is
    the device's id in some versions and the subsystem's in others, so it is not used.
    """
    gpus.add(index)
    match key.strip().casefold():
        case "card series":
            gpus.add(index, line, name=value_or_none(value))
        case "device name":
            gpus.add_default(index, name=value_or_none(value))
        case "pci bus":
            gpus.add(index, line, pci_address=pci_address(value, line))
        case "gpu id" | "device id":
            gpus.add(index, line, pci_device_id=device_id(value, line))
        case "unique id":
            gpus.add(index, line, uuid=value_or_none(value))
        case "serial number":
            gpus.add(index, line, serial=None if value.strip() == "0" else value_or_none(value))
        case "gfx version":
            gpus.add(index, line, architecture=architecture(value))
        case "vram total memory (b)":
            gpus.add(index, line, memory_total_mib=bytes_to_mib(value, line))
        case "vram total used memory (b)":
            gpus.add(index, line, memory_used_mib=bytes_to_mib(value, line))
        case "max graphics package power (w)":
            gpus.add(index, power_limit_w=watts(value, line))
        case "(topology) numa node":
            gpus.add(index, line, numa_node=numa_node(value, line))


def _read_tables(lines: list[Line], gpus: Gpus) -> None:
    in_table = False
    index: int | None = None
    for line in lines:
        if _TABLE.match(line.text):
            in_table, index = True, None
        elif _TABLE_END.match(line.text):
            # There is also a rule below the header; the table ends at the rule below its rows.
            in_table = in_table and index is None
        elif in_table and (row := _ROW.match(line.text)):
            index = int(row[1])
            _read_row(gpus, index, row[2], line)
        elif in_table and index is not None and re.match(r"\s+[A-Za-z]", line.text):
            # ROCm 6.0 prints the name on a separate line, cut to 20 characters.
            gpus.add(index, line, name=value_or_none(line.text))


def _read_row(gpus: Gpus, index: int, row: str, line: Line) -> None:
    gpus.add(index)
    if match := _DEVICE_ID.search(row):
        gpus.add(index, line, pci_device_id=device_id(match[1], line))
    if match := _BUS.search(row):
        gpus.add(index, line, pci_address=pci_address(match[0], line))
    # The temperature is alone or followed by other columns, so it is recognised by its unit.
    if match := _TEMPERATURE.search(row):
        gpus.add(index, temperature_c=int(match[1]))
    if match := _ROW_END.search(row):
        cap, use = value_or_none(match["cap"]), value_or_none(match["use"])
        if cap and re.fullmatch(r"\d+(\.\d+)?W", cap):
            gpus.add(index, power_limit_w=float(cap[:-1]))
        if use:
            gpus.add(index, utilization_percent=int(use[:-1]))


def _matrices(lines: list[Line]) -> list[tuple[str, list[Cell]]]:
    """The matrices of pairs of GPUs, each below its row of labels, with their titles."""
    found: list[tuple[str, list[Cell]]] = []
    title = ""
    columns: list[int] = []
    for line in lines:
        words = line.text.split()
        labels = [_GPU_LABEL.fullmatch(word) for word in words]
        if match := _TITLE.match(line.text.strip()):
            title, columns = match[1], []
        elif all(labels):
            columns = [int(label[1]) for label in labels if label]
            found.append((title, []))
        elif labels[0] and columns:
            row = int(labels[0][1])
            found[-1][1].extend(matrix_row(row, columns, words[1:], line, line is lines[-1]))
    return found


def _read_csv(lines: list[Line], gpus: Gpus) -> None:
    header: list[str] = []
    for line in lines:
        cells = csv_cells(line)
        if cells[:1] == ["device"]:
            header = cells
        elif cells and header and (card := _CARD.fullmatch(cells[0])):
            if len(cells) != len(header):
                raise OutputError(f"{len(cells)} values for {len(header)} columns", line)
            for key, value in zip(header[1:], cells[1:], strict=True):
                _read_value(gpus, int(card[1]), key, value, line)


def _read_json(lines: list[Line], gpus: Gpus) -> AmdReport:
    document = read_json(lines)
    if not isinstance(document, dict):
        raise OutputError("this is no output of rocm-smi", lines[0])
    cards = [(key, value) for key, value in document.items() if _CARD.fullmatch(key)]
    system = document.get("system")
    if not cards and not isinstance(system, dict):
        raise OutputError("JSON without a card is no output of rocm-smi", lines[0])
    for key, card in cards:
        if not isinstance(card, dict):
            raise OutputError(f"{key} is no object")
        index = int(key.removeprefix("card"))
        gpus.add(index)
        for name, value in card.items():
            _read_value(gpus, index, str(name), str(value), None)
    pairs: list[tuple[str, Cell]] = [
        (match[1], (int(match[2]), int(match[3]), str(value), None))
        for key, value in (system if isinstance(system, dict) else {}).items()
        if (match := _PAIR.fullmatch(key))
    ]
    for _, (i, j, _, _) in pairs:
        gpus.add(i)
        gpus.add(j)
    cells = {kind: [cell for name, cell in pairs if name == kind] for kind, _ in pairs}
    return _report(gpus, cells.get("Link type", []), cells.get("Weight", []), cells.get("Hops", []))
