"""`nvidia-smi --query-compute-apps=…` and `--query-retired-pages=…` in CSV."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.hardware.outputs import values
from roles.hardware.outputs.csv_table import Row, read_table
from roles.hardware.outputs.record import Process
from roles.hardware.outputs.text import OutputError, read_lines

_PROCESS = frozenset({"pid", "process_name", "used_gpu_memory", "used_memory"})
_GPU = frozenset({"timestamp", "gpu_name", "gpu_bus_id", "gpu_serial", "gpu_uuid", "pci.bus_id"})
_PAGE = frozenset({"retired_pages.address", "retired_pages.timestamp", "retired_pages.cause"})


@dataclass(frozen=True)
class RetiredPage:
    """A page of GPU memory taken out of use; `address` and `cause` are as printed."""

    address: str
    cause: str | None = None
    gpu_uuid: str | None = None
    gpu_pci_address: str | None = None


@dataclass(frozen=True)
class QueryApps:
    """The rows of either table; `messages` are error or warning lines between them."""

    processes: tuple[Process, ...] = ()
    retired_pages: tuple[RetiredPage, ...] = ()
    messages: tuple[str, ...] = ()


def parse_query_apps(text: str, fields: Sequence[str] | None = None) -> QueryApps:
    """Parse either table; `fields` are the requested names if no header is printed.

    Rows without a page's address mean that the GPU has no such list. OutputError for text
    without the columns of either table, and for rows that do not fit them.
    """
    lines = read_lines(text)
    table = read_table(lines, _PROCESS | _PAGE, fields)
    columns = table.columns or ()
    own = set(columns) & (_PROCESS | _PAGE)
    if not own or not set(columns) <= own | _GPU | {"name", "uuid", "serial"}:
        raise OutputError(
            "no processes or retired pages as nvidia-smi prints them in CSV: ask it for a "
            "header, or name the fields",
            lines[0] if lines else None,
        )
    if set(columns) & _PAGE:
        pages = [page for row in table.rows if (page := _page(row, columns)) is not None]
        return QueryApps(retired_pages=tuple(pages), messages=table.messages)
    processes = tuple(_process(row, columns) for row in table.rows)
    return QueryApps(processes, messages=table.messages)


def _process(row: Row, columns: Sequence[str]) -> Process:
    uuid, address = _gpu(row, columns)
    pid = _cell(row, columns, "pid")
    memory = _cell(row, columns, "used_gpu_memory", "used_memory")
    return Process(
        gpu_uuid=uuid,
        gpu_pci_address=address,
        pid=_number(row, pid, "pid"),
        name=_cell(row, columns, "process_name", "name"),
        used_memory_mib=_number(row, memory, "used memory"),
    )


def _page(row: Row, columns: Sequence[str]) -> RetiredPage | None:
    address = _cell(row, columns, "retired_pages.address")
    uuid, gpu = _gpu(row, columns)
    cause = _cell(row, columns, "retired_pages.cause")
    return None if address is None else RetiredPage(address, cause, uuid, gpu)


def _gpu(row: Row, columns: Sequence[str]) -> tuple[str | None, str | None]:
    address = _cell(row, columns, "gpu_bus_id", "pci.bus_id")
    if address is not None and values.pci_address(address) is None:
        raise OutputError(f"{address!r} is no PCI address such as 00000000:3B:00.0", row.line)
    uuid = _cell(row, columns, "gpu_uuid", "uuid")
    return uuid, None if address is None else values.pci_address(address)


def _cell(row: Row, columns: Sequence[str], *names: str) -> str | None:
    """The value of the first existing column of these; None if it is absent or could not be
    read."""
    at = next((columns.index(name) for name in names if name in columns), None)
    cell = "" if at is None else row.cells[at]
    return None if values.is_absent(cell) or values.is_failure(cell) else cell


def _number(row: Row, cell: str | None, meaning: str) -> int | None:
    value = None if cell is None else values.mebibytes(cell)
    if cell is not None and value is None:
        raise OutputError(f"{cell!r} is no {meaning}", row.line)
    return value
