"""`amd-smi process --json`: the processes on each GPU.

Source: amdsmi_cli/amdsmi_commands.py (process), of ROCm 6.2 to 7.2: a list with one entry a GPU,
each with a "process_list", whose "process_info" is a text where nothing runs.
"""

from collections.abc import Iterator
from typing import Any

from roles.hardware.outputs.amd import read_json
from roles.hardware.outputs.record import Process
from roles.hardware.outputs.text import OutputError, read_lines

_BYTES = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def parse_amd_processes(text: str) -> tuple[Process, ...]:
    """The processes in the order of the output; OutputError for text that is no such JSON."""
    lines = read_lines(text)
    if not lines:
        raise OutputError("amd-smi printed nothing")
    document = read_json(lines)
    entries = document.get("gpu_data", document) if isinstance(document, dict) else document
    entries = entries if isinstance(entries, list) else [entries]
    known = [it for it in entries if isinstance(it, dict) and "process_list" in it]
    if not known:
        raise OutputError("JSON without a process list of amd-smi", lines[0])
    return tuple(process for entry in known for process in _of_gpu(entry))


def _of_gpu(entry: dict[str, Any]) -> Iterator[Process]:
    listed = entry["process_list"]
    for item in listed if isinstance(listed, list) else ():
        found = item.get("process_info") if isinstance(item, dict) else None
        if isinstance(found, dict):
            memory = found.get("memory_usage")
            yield Process(
                pid=_whole(found.get("pid")),
                name=_name(found.get("name")),
                used_memory_mib=_mib(memory.get("vram_mem") if isinstance(memory, dict) else None),
                gpu_index=_whole(entry.get("gpu")),
            )


def _name(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if text not in ("", "N/A") else None


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _mib(value: object) -> int | None:
    """MiB of an amount with its unit; amd-smi calls 1024 bytes KB."""
    if not isinstance(value, dict):
        return None
    amount, unit = value.get("value"), _BYTES.get(str(value.get("unit", "B")).upper())
    if isinstance(amount, bool) or not isinstance(amount, int | float) or unit is None:
        return None
    return int(amount * unit) // 2**20 if 0 <= amount < 2**63 else None
