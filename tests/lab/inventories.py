"""Inventories of the lab's hosts, made from the one of the demo."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.gguf_models import recorded

from . import hosts, llama
from .paths import GGUF_FOLDER, HERE, LabError

DEMO = HERE.parents[1] / "inventories/lab.py"
GPUS = {
    "gpu1": "2x NVIDIA L40S",
    "gpu2": "2x NVIDIA GeForce RTX 4090",
    "gpu3": "4x NVIDIA A10G",
}
"""The GPUs of the lab's usual hosts, as inventories declare them."""
MIXED_GPUS = {"gpu4": "1x NVIDIA GeForce RTX 4090 + 1x NVIDIA GeForce RTX 3090"}
LLAMA_SERVICE: Mapping[str, Any] = {
    "name": "qwen2.5-14b",
    "model": "Qwen/Qwen2.5-14B-Instruct",
    "engine": "llama_cpp",
    "max_model_len": 4096,
    # A tiny model stands in for the weights.
    "weights": f"{GGUF_FOLDER}/tiny.gguf",
}
"""The demo's service on llama.cpp; where each replica goes is as with vLLM."""
VALIDATION: Mapping[str, Any] = {"load_s": 2, "load_max_tokens": 64, "completion_timeout_s": 300}
"""All of a proof with a short load: the usual one is put on vLLM, which the demo serves by."""
Declared = str | None | Mapping[str, Any]
"""A host's GPUs, None where they are recorded, or all of its settings."""


def bare_inventory(
    file: Path,
    gpus: Mapping[str, Declared],
    driver: Mapping[str, Any],
    ssh: Mapping[str, Any] | None = None,
    **settings: Mapping[str, Any],
) -> Path:
    """Write an inventory of these hosts and their GPUs (None: recorded ones), and return its path.

    `driver` are its settings of the driver, those that are None left out; `settings` are others,
    in place of the demo's engine. The balancer is lb3, and reports lie beside the inventory:
    nothing is shared with the fleet of other tests.
    """
    wanted = {"driver": {key: value for key, value in driver.items() if value is not None}}
    text = _without_engine(_with_hosts(DEMO.read_text(), gpus, ssh or {}))
    address = hosts.host("lb3").address
    lines = f'balancers = [("lb3", {{**_ssh, "ssh_hostname": "{address}"}})]\n'
    text = _replaced(r"balancers = \[.*?\]\n", lines, text)
    proofs = {**VALIDATION, "report_dir": str(file.parent / "reports")}
    text = _replaced(r'"validation": \{.*?\},\n', f'"validation": {proofs!r},\n', text)
    file.write_text(_with_settings(text, wanted | settings))
    return file


def llama_inventory(
    file: Path,
    gpus: Mapping[str, Declared] = GPUS,
    services: Sequence[Mapping[str, Any]] = (LLAMA_SERVICE,),
    engine: Mapping[str, Any] | None = None,
    **settings: Mapping[str, Any],
) -> Path:
    """Write an inventory whose services run on llama.cpp, and return its path.

    `engine` are settings of llama.cpp besides the lab's own, `settings` are others of the fleet.
    Each service's model is recorded beside the inventory, as of a GGUF of its published config.
    """
    text = _without_engine(_with_hosts(DEMO.read_text(), gpus, {}))
    listed = [
        {**service, "model": str(gguf_model(file.parent, service["model"]))} for service in services
    ]
    text = _replaced(r'"services": \[.*?\n    \],\n', f'"services": {listed!r},\n', text)
    text = _replaced(r'"validation": \{.*?\},\n', f'"validation": {dict(VALIDATION)!r},\n', text)
    engines = {"llama_cpp": llama_engine() | dict(engine or {})}
    file.write_text(_with_settings(text, {"engines": engines} | settings))
    return file


def gguf_model(folder: Path, model: str) -> Path:
    """Record a GGUF of a model that tests/data/model-configs has, by its id; the record's path."""
    file = folder / f"{model.rpartition('/')[2]}.json"
    record = recorded(file.stem).model_copy(update={"id": model})
    file.write_text(record.text())
    return file


def llama_engine() -> dict[str, Any]:
    """The settings by which hosts install the lab's llama.cpp."""
    return {
        "device": "cpu",
        "version": llama.VERSION,
        "archive": llama.URL,
        "sha256": llama.archive_sha256(),
        # It is built without OpenMP; the usual ones are not in the lab's own repository.
        "packages": [],
        # All replicas share one machine: threads that spin for each other take its cores away.
        "environment": {"LLAMA_ARG_THREADS": "1"},
    }


def _with_hosts(text: str, gpus: Mapping[str, Declared], ssh: Mapping[str, Any]) -> str:
    ours = [
        f'("{name}", {{**_ssh, "ssh_hostname": "{hosts.host(name).address}", '
        f'**{dict(ssh)!r}, "llm": {_of_host(declared)!r}}}),'
        for name, declared in gpus.items()
    ]
    return _replaced(r"gpu_hosts = \[.*?\n\]\n", f"gpu_hosts = [{''.join(ours)}]\n", text)


def _of_host(declared: Declared) -> dict[str, Any]:
    if declared is None or isinstance(declared, str):
        return {"gpus": declared} if declared else {}
    return dict(declared)


def _without_engine(text: str) -> str:
    return _replaced(r'"engines?": \{.*?\n    \},\n', "", text)


def _with_settings(text: str, settings: Mapping[str, Any]) -> str:
    lines = [f'"{name}": {dict(each)!r},\n    ' for name, each in settings.items()]
    return _replaced(r'"launch": \{', "".join(lines) + '"launch": {', text)


def _replaced(pattern: str, new: str, text: str) -> str:
    found, count = re.subn(pattern, lambda _: new, text, flags=re.S)
    if count != 1:
        raise LabError(f"{DEMO} has {count} places like {pattern!r}, not one")
    return found
