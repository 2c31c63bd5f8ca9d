"""The readers of nvidia-smi's outputs, and the real outputs that they are for."""

from collections.abc import Callable
from pathlib import Path

from roles.hardware.outputs.query_apps import parse_query_apps
from roles.hardware.outputs.query_gpu import parse_query_gpu
from roles.hardware.outputs.smi_error import parse_smi_error
from roles.hardware.outputs.smi_list import parse_smi_list
from roles.hardware.outputs.smi_q import parse_smi_q
from roles.hardware.outputs.smi_q_x import parse_smi_q_x
from roles.hardware.outputs.smi_table import parse_smi_table
from roles.hardware.outputs.smi_version import parse_smi_version

DATA = Path(__file__).parents[3] / "data" / "gpu-outputs"
READERS: dict[str, Callable[[str], object]] = {
    "query-gpu-csv": parse_query_gpu,
    "query-apps-csv": parse_query_apps,
    "smi-L": parse_smi_list,
    "smi-q": parse_smi_q,
    "smi-q-x": parse_smi_q_x,
    "smi-table": parse_smi_table,
    "smi-version": parse_smi_version,
    "smi-error": parse_smi_error,
}


def files(kind: str) -> list[Path]:
    return sorted((DATA / kind).iterdir())


def text(name: str) -> str:
    """The output of this name, such as "smi-L/1x-rtx-3090-ti_vllm-12005.txt"."""
    return (DATA / name).read_text(encoding="utf-8")
