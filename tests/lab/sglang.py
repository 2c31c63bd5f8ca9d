"""SGLang for CPUs: its wheels, fetched once, and what stands for the modules that it lacks here.

No kernels for CPUs are published; its path through PyTorch alone serves, if what it imports from
vLLM and torchvision, and never calls, is there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .paths import CONTROL_ADDRESS, HERE, HTTP_PORT, WWW, cached, others
from .wheelhouse import UV, fetch, pinned, write_wheel

LOCK = HERE / "sglang-cpu-0.5.23.lock"
STUBS = ("sglang-cpu-stubs", "0.5.23")
_LACKING = """def _lacking(*_, **__):
    raise NotImplementedError

rotary_embedding = rms_norm = fused_add_rms_norm = awq_dequantize = _lacking
"""
_MODES = """from enum import Enum

NAMES = "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS"
InterpolationMode = Enum("InterpolationMode", NAMES)
"""
_ANY_CLASS = """def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""
MODULES = {
    "vllm/__init__.py": "",
    "vllm/_custom_ops.py": _LACKING,
    "torchvision/__init__.py": '__version__ = "0.28.0"\n',
    "torchvision/transforms/__init__.py": _MODES,
    "torchvision/transforms/functional.py": _ANY_CLASS,
    "torchvision/transforms/v2/__init__.py": _ANY_CLASS,
    "torchvision/transforms/v2/functional.py": _ANY_CLASS,
    "torchvision/io/__init__.py": _ANY_CLASS,
}


def serve_wheels() -> None:
    """Put the wheels where hosts get them. It is no part of the lab's usual build: it is large."""
    folder = cached("sglang", repr((pinned(LOCK), STUBS, UV, MODULES)), _fetch)
    for old in others(folder):
        shutil.rmtree(old)
    shown = WWW / "sglang"
    shown.unlink(missing_ok=True)
    shown.symlink_to(folder)


def _fetch(partial: Path) -> None:
    stub = "==".join(STUBS)
    fetch([line for line in pinned(LOCK) if line != stub], partial)
    write_wheel(partial, *STUBS, MODULES)


def settings() -> dict[str, Any]:
    """The settings by which hosts install it."""
    return {
        "device": "cpu",
        "requirement": "sglang==0.5.23",
        "lock": str(LOCK),
        "wheelhouse": f"http://{CONTROL_ADDRESS}:{HTTP_PORT}/sglang/",
        "allow_http_from": [CONTROL_ADDRESS],
        "allow_unhashed": True,
        "packages": ["libnuma1"],
        "environment": {"HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"},
    }


# A card's kernels are not there.
ARGUMENTS = {"attention-backend": "torch_native", "sampling-backend": "pytorch"}
