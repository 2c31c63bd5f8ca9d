"""Inventories of bare hosts behind the lab's balancer, made from the one of the demo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import hosts
from .paths import HERE

DEMO = HERE.parents[1] / "inventories/lab.py"


def bare_inventory(
    file: Path,
    gpus: Mapping[str, str | None],
    driver: Mapping[str, Any],
    ssh: Mapping[str, Any] | None = None,
    **settings: Mapping[str, Any],
) -> Path:
    """Write an inventory of these hosts and their GPUs (None: recorded ones), and return its path.

    `driver` are its settings of the driver, those that are None left out; `settings` are others,
    in place of the demo's engine.
    """
    ours = [
        f'("{name}", {{**_ssh, "ssh_hostname": "{hosts.host(name).address}", '
        f'**{dict(ssh or {})!r}, "llm": { ({"gpus": declared} if declared else {})!r}}}),'
        for name, declared in gpus.items()
    ]
    text = DEMO.read_text()
    text = re.sub(r"gpu_hosts = \[.*?\n\]\n", f"gpu_hosts = [{''.join(ours)}]\n", text, flags=re.S)
    text = re.sub(r'"engine": \{.*?\n    \},\n', "", text, flags=re.S)
    wanted = {"driver": {key: value for key, value in driver.items() if value is not None}}
    lines = [f'"{name}": {dict(each)!r},\n    ' for name, each in (wanted | settings).items()]
    file.write_text(text.replace('"launch": {', "".join(lines) + '"launch": {'))
    return file
