"""Remedies as lines to paste into an inventory: settings of a service, or data of a host. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from roles.engine.params import GpuMemory
from roles.engine.planning import Instead
from roles.hardware import find_card
from roles.plan import Load
from roles.topology.remedies import Remedy


def inventory_line(remedy: Remedy, arguments: Mapping[str, Any], load: Load | None) -> str:
    """A remedy as a line of Python, its comment included; a cluster in words.

    `arguments` are those that the service has already. A load whose requests are longer than the
    new `max_model_len` is shortened with it.
    """
    if remedy.gpus:
        first, *others = (_gpus(count, gpu) for count, gpu in remedy.gpus)
        placed = f"in the host's data: {remedy.case.placed}"
        return settings_line({"gpus": first}, "; or ".join((placed, *map(_literal, others))))
    settings = dict(remedy.settings)
    if not settings:
        return str(remedy)
    if "arguments" in settings:
        settings["arguments"] = {**arguments, **settings["arguments"]}
    longest = settings.get("max_model_len")
    if longest and load and longest < load.input_tokens + load.output_tokens:
        prompt = longest * load.input_tokens // (load.input_tokens + load.output_tokens)
        settings |= {"input_tokens": max(1, prompt), "output_tokens": longest - max(1, prompt)}
    return settings_line(settings, "a quantised form" if "model" in settings else "")


def refusal_line(instead: Instead, arguments: Mapping[str, Any]) -> str:
    """What to do in place of a refused card: as a line where it is settings of the service."""
    settings: dict[str, Any] = dict(instead.settings)
    if instead.options:
        settings["arguments"] = {**arguments, **dict(instead.options)}
    return settings_line(settings, instead.comment) if settings else instead.words


def settings_line(settings: Mapping[str, Any], comment: str = "") -> str:
    """Settings as items of a dict of Python, on one line."""
    items = " ".join(f"{_literal(name)}: {_literal(value)}," for name, value in settings.items())
    return f"{items}  # {comment}" if comment else items


def _gpus(count: int, gpu: GpuMemory) -> str | list[dict[str, Any]]:
    """GPUs as a host declares them: in short, unless their memory is not the table's."""
    card = find_card(gpu.name)
    if card is not None and card.memory_mib == gpu.total_mib:
        return f"{count}x {gpu.name}"
    return [{"name": gpu.name, "memory_mib": int(gpu.total_mib), "count": count}]


def _literal(value: Any) -> str:
    """A value of Python, with text in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        items = (f"{_literal(name)}: {_literal(one)}" for name, one in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
