"""Ray's wheels, fetched once: vLLM's CPU build does without Ray, so it is in no lock of the lab."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .paths import CONTROL_ADDRESS, HTTP_PORT, WWW, cached, others, sh

RAY = "ray==2.60.0"
FOLDER = "/opt/ray"
INSTALL = f"""set -e
sudo python3 -m venv {FOLDER}
sudo {FOLDER}/bin/pip install -q --no-index --trusted-host {CONTROL_ADDRESS} \\
    --find-links http://{CONTROL_ADDRESS}:{HTTP_PORT}/ray/ {RAY}
"""
"""Installs it on a host."""


def serve_wheels() -> None:
    """Put the wheels where hosts get them."""
    folder = cached("ray", RAY, _fetch)
    for old in others(folder):
        shutil.rmtree(old)
    shown = WWW / "ray"
    shown.unlink(missing_ok=True)
    shown.symlink_to(folder)


def _fetch(partial: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:"]
    sh([*pip, "-d", partial, RAY])
