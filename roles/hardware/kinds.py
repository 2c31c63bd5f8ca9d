"""The parsers of outputs, by kind, and their results as plain mappings."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.outputs.dmesg import parse_dmesg
from roles.hardware.outputs.lspci import parse_lspci
from roles.hardware.outputs.nccl import parse_nccl
from roles.hardware.outputs.nvlink import parse_nvlink
from roles.hardware.outputs.query_apps import parse_query_apps
from roles.hardware.outputs.query_gpu import parse_query_gpu
from roles.hardware.outputs.rocm_smi import parse_rocm_smi
from roles.hardware.outputs.smi_error import parse_smi_error
from roles.hardware.outputs.smi_list import parse_smi_list
from roles.hardware.outputs.smi_q import parse_smi_q
from roles.hardware.outputs.smi_q_x import parse_smi_q_x
from roles.hardware.outputs.smi_table import parse_smi_table
from roles.hardware.outputs.smi_version import parse_smi_version
from roles.hardware.outputs.topo import parse_topo
from roles.hardware.outputs.topo_p2p import parse_topo_p2p
from roles.hardware.outputs.ubuntu_drivers import parse_ubuntu_drivers

READERS: dict[str, Callable[[str], Any]] = {
    "amd-smi": parse_amd_smi,
    "dmesg": parse_dmesg,
    "lspci": parse_lspci,
    "nccl": parse_nccl,
    "nvlink": parse_nvlink,
    "query-apps-csv": parse_query_apps,
    "query-gpu-csv": parse_query_gpu,
    "rocm-smi": parse_rocm_smi,
    "smi-L": parse_smi_list,
    "smi-error": parse_smi_error,
    "smi-q": parse_smi_q,
    "smi-q-x": parse_smi_q_x,
    "smi-table": parse_smi_table,
    "smi-version": parse_smi_version,
    "topo": parse_topo,
    "topo-p2p": parse_topo_p2p,
    "ubuntu-drivers": parse_ubuntu_drivers,
}


def read(kind: str, text: str) -> dict[str, Any]:
    """The parsed output as a JSON-able mapping; the OutputError names the invalid line."""
    return asdict(READERS[kind](text))
