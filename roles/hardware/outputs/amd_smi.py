"""Parses every form of amd-smi's output about GPUs: text, tables, CSV, JSON."""

import re
from collections.abc import Iterator

from roles.hardware.outputs.amd import (
    AmdReport,
    Cell,
    Gpus,
    architecture,
    csv_cells,
    device_id,
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

_OTHER_TOOL = re.compile(r"ROCm System Management Interface|End of ROCm SMI Log|NVIDIA-SMI")
_BANNER = re.compile(
    r"AMD-SMI \d|AMD System Management Interface|AMDSMI Tool: |^EVENT LISTENING:"
    r"|No CPER files|^CPU: \d+$"
)
_BLOCK = re.compile(r"^\s*(GPU|CPU): (\d{1,3})$")
_KEY = re.compile(r"^\s*([A-Z][A-Z0-9_ ]*):(?:\s+(\S.*))?$")
# fmt: off
_SECTIONS = frozenset((
    "ASIC", "BOARD", "BUS", "CACHE_INFO", "CLOCK", "DRIVER", "ECC", "FW_LIST", "IFWI", "LIMIT",
    "MEM_USAGE", "NUMA", "PARTITION", "PCIE", "POWER", "PROCESS_INFO", "RAS", "TEMPERATURE",
    "THROTTLE", "USAGE", "VBIOS", "VRAM", "XGMI_ERR",
))
# fmt: on
_MATRIX_TITLE = re.compile(r"^([A-Z][A-Z -]*) TABLE:$")
_MATRICES = {"LINK TYPE": "links", "WEIGHT": "weights", "HOPS": "hops"}
_BDF = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", re.IGNORECASE)
# A table with a row a GPU: monitor, partition, and any CSV that went through `column -t`.
_TABLE = re.compile(
    r"^\s*(?:GPU(?:_ID)?(?:\s+[A-Z][A-Z0-9_%]*)+|(?:timestamp\s+)?gpu(?:_id)?(?:\s+[a-z][a-z0-9_%]*)+)$"
)
_TABLE_ROW = re.compile(r"^\s*(?:\d{4}/\d{2}/\d{2} [\d:]+\s+)?(\d{1,3})\s+\S")
_QUANTITY = re.compile(r"\S+(?: (?:W|°C|%|MHz|[KMG]?B|[KMG]b/s|[KMG]B/s)(?!\S))?")
# amd-smi nests its values three deep.
_MAX_NESTING = 5
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MEMORY = re.compile(r"([0-9]{1,12}) ?(?:MB|MiB)")
_CSV_MEMORY = re.compile(r"([0-9]{1,12}) ?(?:MB|MiB)?")
# The summary that `amd-smi` alone prints since version 26: two lines a GPU.
_SUMMARY_FIRST = re.compile(rf"^\| ({_BDF.pattern}) +(\S.*?) +\| (.*)\|$", re.IGNORECASE)
_SUMMARY_SECOND = re.compile(r"^\| +(\d{1,3}) +\S+ +\S+ +\S+ +\| (.*)\|$")


def parse_amd_smi(text: str) -> AmdReport:
    """Parse any output of amd-smi; one without GPUs, such as `amd-smi version`, gives none.

    Memory that amd-smi calls MB is MiB: 65520 MB of a card of 64 GiB. GPUs of the topology's tables
    are named by their PCI addresses only; their index is the place in the table, which is amd-smi's
    order. OutputError, with the line, for text that is not amd-smi's or contradicts itself.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("amd-smi printed nothing")
    if other := next((line for line in lines if _OTHER_TOOL.search(line.text)), None):
        raise OutputError("this is another tool's output, not amd-smi's", other)
    if any(re.match(r"\s*[\[{]\s*($|[\"{])", line.text) for line in lines):
        return _read_json(lines)
    gpus = Gpus()
    if any(line.text.split(",")[0] == "gpu" and "," in line.text for line in lines):
        _read_csv(lines, gpus)
        return AmdReport(gpus.records())
    return _read_text(lines, gpus)


def _read_text(lines: list[Line], gpus: Gpus) -> AmdReport:
    # Every reader gets all lines: amd-smi mixes tables and blocks in one output.
    known = [
        any(_BANNER.search(line.text) for line in lines),
        _read_blocks(lines, gpus),
        _read_tables(lines, gpus),
        _read_summary(lines, gpus),
        _read_xgmi(lines, gpus),
    ]
    cells = _matrices(lines, gpus)
    if not any(known) and not cells:
        raise OutputError("this is no output of amd-smi", lines[0])
    return AmdReport(
        gpus.records(),
        link_pairs(cells.get("links", [])),
        number_pairs(cells.get("weights", [])),
        number_pairs(cells.get("hops", [])),
    )


def _read_value(
    gpus: Gpus, index: int, section: str, key: str, value: str, line: Line | None
) -> None:
    """Add one value of a GPU, by its section and key; unknown keys are ignored."""
    match section, key:
        case _, "MARKET_NAME":
            gpus.add(index, line, name=value_or_none(value))
        case "ASIC", "DEVICE_ID":
            gpus.add(index, line, pci_device_id=device_id(value, line))
        case _, "TARGET_GRAPHICS_VERSION":
            gpus.add(index, line, architecture=architecture(value))
        case _, "BDF" | "GPU_BDF":
            gpus.add(index, line, pci_address=pci_address(value, line))
        case _, "UUID" | "GPU_UUID":
            gpus.add(index, line, uuid=_uuid(value))
        case _, "PRODUCT_SERIAL":
            gpus.add(index, line, serial=None if value.strip() == "0" else value_or_none(value))
        case "DRIVER", "VERSION":
            gpus.add(index, line, driver_version=value_or_none(value))
        case "VRAM", "SIZE":
            gpus.add(index, line, memory_total_mib=_memory(value, line))
        case _, "TOTAL_VRAM" | "VRAM_TOTAL":
            gpus.add(index, line, memory_total_mib=_memory(value, line))
        case _, "USED_VRAM" | "VRAM_USED":
            gpus.add(index, line, memory_used_mib=_memory(value, line))
        case _, "FREE_VRAM":
            gpus.add(index, line, memory_free_mib=_memory(value, line))
        case "LIMIT", "SOCKET_POWER":
            gpus.add(index, line, power_limit_w=watts(value, line))
        case ("USAGE", "GFX_ACTIVITY") | (_, "GFX%"):
            gpus.add(index, line, utilization_percent=_percent(value))
        case _, "SOCKET_POWER_LIMIT" | "PWR_CAP":
            gpus.add(index, line, power_limit_w=watts(value, line))
        case "NUMA", "NODE":
            gpus.add(index, line, numa_node=numa_node(value, line))


def _percent(value: str) -> int | None:
    """A percentage; None for a placeholder."""
    match = re.fullmatch(r"([0-9]{1,3})(?:\.[0-9]+)? ?%?", value.strip())
    return int(match[1]) if match else None


def _uuid(value: str) -> str | None:
    """A complete UUID, else None: people hide parts of it before they publish an output."""
    return value.strip() if _UUID.fullmatch(value.strip()) else None


def _memory(value: str, line: Line | None) -> int | None:
    """MiB; None for values like "0.4 GB", which `monitor` rounds too much."""
    text = value_or_none(value)
    if text is None or re.fullmatch(r"[0-9.]+ ?GB", text):
        return None
    # Only CSV omits the unit; in other forms a number without a unit is cut.
    match = (_CSV_MEMORY if line is None or "," in line.text else _MEMORY).fullmatch(text)
    if match is None:
        raise OutputError(f"{text[:40]!r} is no memory in MB", line)
    return int(match[1])


def _read_blocks(lines: list[Line], gpus: Gpus) -> bool:
    """Read YAML-like blocks below `GPU: 0`; return whether there is any block or known section.

    The last key without a value is the section: copies lose the indentation.
    """
    index: int | None = None
    section, found = "", False
    for line in lines:
        if block := _BLOCK.match(line.text):
            index = int(block[2]) if block[1] == "GPU" else None
            section, found = "", True
            if index is not None:
                gpus.add(index)
        elif key := _KEY.match(line.text):
            if key[2] is None:
                section = key[1]
                found = found or section in _SECTIONS
            elif index is not None:
                _read_value(gpus, index, section, key[1], key[2], line)
    return found


def _read_tables(lines: list[Line], gpus: Gpus) -> bool:
    columns: list[str] = []
    found = False
    for line in lines:
        row = _TABLE_ROW.match(line.text)
        if _TABLE.match(line.text):
            columns = line.text.upper().split()
        elif row and columns:
            found = True
            gpus.add(int(row[1]))
            values = _QUANTITY.findall(line.text.strip())
            # A row of another length is cut, or has values of several words: its columns are
            # unknown.
            if len(values) == len(columns):
                for column, value in zip(columns, values, strict=True):
                    _read_value(gpus, int(row[1]), "", column, value, line)
        else:
            columns = []
    return found


def _read_summary(lines: list[Line], gpus: Gpus) -> bool:
    first: re.Match[str] | None = None
    for line in lines:
        text = line.text.strip()
        second = _SUMMARY_SECOND.match(text)
        if first and second:
            index = int(second[1])
            gpus.add(
                index, line, name=value_or_none(first[2]), pci_address=pci_address(first[1], line)
            )
            if memory := re.search(r"(\d{1,9})/(\d{1,9}) MB", second[2]):
                used, total = int(memory[1]), int(memory[2])
                gpus.add(index, line, memory_used_mib=used, memory_total_mib=total)
            if power := re.search(r"/(\d{1,6}) W", first[3]):
                gpus.add(index, power_limit_w=float(power[1]))
        first = _SUMMARY_FIRST.match(text)
    return any("AMD-SMI" in line.text for line in lines)


def _read_xgmi(lines: list[Line], gpus: Gpus) -> bool:
    """The header of `amd-smi xgmi`'s metrics names every GPU, by its address or as GPU0."""
    found = False
    for line in lines:
        words = line.text.split()
        if words[:1] == ["bdf"] and "link_type" in words:
            found = True
            for index, word in enumerate(words[words.index("link_type") + 1 :]):
                address = pci_address(word, line) if _BDF.fullmatch(word) else None
                gpus.add(index, line, pci_address=address)
        elif (
            found
            and len(words) > 1
            and _BDF.fullmatch(words[1])
            and (label := re.fullmatch(r"GPU(\d{1,3})", words[0]))
        ):
            gpus.add(int(label[1]), line, pci_address=pci_address(words[1], line))
    return found


def _matrices(lines: list[Line], gpus: Gpus) -> dict[str, list[Cell]]:
    """The cells of the tables of `amd-smi topology` by their names."""
    cells: dict[str, list[Cell]] = {}
    title, name = "", ""
    columns: list[str] = []
    rows: list[str] = []
    for line in lines:
        words = line.text.split()
        addresses = [word.lower() for word in words if _BDF.fullmatch(word)]
        if match := _MATRIX_TITLE.match(line.text.strip()):
            title, columns = match[1], []
        elif title and len(addresses) == len(words):
            columns, rows = addresses, []
            name = str(_MATRICES.get(title, title))
            cells.setdefault(name, [])
            for index, address in enumerate(columns):
                gpus.add(index, line, pci_address=pci_address(address, line))
        elif columns and words[0].lower() in columns:
            row = _row_index(columns, words[0].lower(), rows)
            rows.append(words[0].lower())
            columns_of_gpu = range(len(columns))
            cells[name].extend(matrix_row(row, columns_of_gpu, words[1:], line, line is lines[-1]))
    return cells


def _row_index(columns: list[str], address: str, rows: list[str]) -> int:
    """The GPU of a row: partitions share an address, so their order distinguishes them."""
    columns_of_gpu = [index for index, column in enumerate(columns) if column == address]
    return columns_of_gpu[min(rows.count(address), len(columns_of_gpu) - 1)]


def _read_csv(lines: list[Line], gpus: Gpus) -> None:
    header: list[str] = []
    for line in lines:
        cells = csv_cells(line)
        if cells[:1] == ["gpu"]:
            header = [cell.strip().upper() for cell in cells]
        elif header and cells and re.fullmatch(r"\d{1,3}", cells[0]):
            if len(cells) != len(header):
                raise OutputError(f"{len(cells)} values for {len(header)} columns", line)
            gpus.add(int(cells[0]))
            for key, value in zip(header[1:], cells[1:], strict=True):
                section, name = ("VRAM", "SIZE") if key in ("SIZE", "VRAM_SIZE") else ("", key)
                _read_value(gpus, int(cells[0]), section, name, value, line)


def _read_json(lines: list[Line]) -> AmdReport:
    document = read_json(lines)
    entries = document.get("gpu_data", document) if isinstance(document, dict) else document
    entries = entries if isinstance(entries, list) else [entries]
    known = [entry for entry in entries if isinstance(entry, dict)]
    if not any(_is_of_amd_smi(entry) for entry in known):
        raise OutputError("JSON without a GPU or a section of amd-smi", lines[0])
    gpus = Gpus()
    cells: list[tuple[str, Cell]] = []
    for entry in known:
        index = _index(entry.get("gpu"))
        if index is not None:
            gpus.add(index)
            for section, key, value in _flat(entry):
                _read_value(gpus, index, section, key, value, None)
            cells.extend(_json_links(index, entry.get("links"), gpus))
    links, weights, hops = (
        [cell for name, cell in cells if name == key] for key in ("link_type", "weight", "num_hops")
    )
    return AmdReport(gpus.records(), link_pairs(links), number_pairs(weights), number_pairs(hops))


def _is_of_amd_smi(entry: dict[str, object]) -> bool:
    sections = {key.upper() for key in entry} & (_SECTIONS | {"GPU", "GPU_ID"})
    return bool(sections) or any(
        isinstance(value, dict) and set(value) == {"value", "unit"} for value in entry.values()
    )


def _index(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1000 else None


def _flat(
    entry: dict[str, object], section: str = "", depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of everything in an object, spelled as in amd-smi's text."""
    for key, value in entry.items():
        if isinstance(value, dict) and "value" in value:
            unit = value_or_none(str(value.get("unit", ""))) or ""
            number = value_or_none(str(value["value"])) or "N/A"
            yield section, key.upper(), number if number == "N/A" else f"{number} {unit}".strip()
        elif isinstance(value, dict) and depth < _MAX_NESTING:
            yield from _flat(value, key.upper(), depth + 1)
        elif not isinstance(value, list | dict):
            yield section, key.upper(), str(value)


def _json_links(index: int, links: object, gpus: Gpus) -> Iterator[tuple[str, Cell]]:
    for link in links if isinstance(links, list) else []:
        other = _index(link.get("gpu")) if isinstance(link, dict) else None
        if other is None:
            continue
        bdf = link.get("bdf")
        gpus.add(other, pci_address=pci_address(str(bdf), None) if bdf else None)
        for key in ("link_type", "weight", "num_hops"):
            if key in link:
                yield key, (index, other, str(link[key]), None)
