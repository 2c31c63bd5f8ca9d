"""The catalogue of known models: the YAML files in this folder.

A row has a model's `id`; `config`, the keys of its config.json that planning needs, or `like`, the
row whose config it shares but for those keys (null takes one away); `weights_bytes`, the exact
bytes of its tensors as vLLM loads them; `source`, the origin of both; and `variant_of`, the model
of which it is a quantised variant.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from roles.models.config import parse_config
from roles.models.config_keys import short_repr
from roles.models.model import Model


@cache
def find(name: str) -> Model:
    """The model with that name on the hub; ValueError with similar names if it is unknown."""
    row = _row(name)
    if row is None:
        close = _close(name)
        guess = f"did you mean {' or '.join(close)}? Or " if close else ""
        raise ValueError(
            f"unknown model {short_repr(name)}: {guess}declare its sizes (weight_bytes, layers, "
            "hidden_size and the others of its config.json)"
        )
    model = parse_config(_config(row), model_id=name, weights_bytes=row["weights_bytes"])
    return replace(model, variant_of=row.get("variant_of"))


def is_known(name: str) -> bool:
    """Whether the catalog has a model of that name."""
    return _row(name) is not None


def variants(name: str) -> tuple[str, ...]:
    """The quantised variants of a model in the catalog, in its order."""
    return tuple(key for key, row in rows().items() if row.get("variant_of") == name)


@cache
def forms(name: str) -> tuple[Model, ...]:
    """The quantised variants of a model in the catalog, as models."""
    return tuple(map(find, variants(name)))


def catalog_config(name: str) -> dict[str, Any]:
    """The config of a model in the catalog, to plan it with other settings; KeyError if unknown."""
    return _config(rows()[name])


def rows() -> Mapping[str, Mapping[str, Any]]:
    """All rows as written, by id."""
    return {id: row for text in _texts() for id, row in _parsed(text).items()}


def _row(name: str) -> Mapping[str, Any] | None:
    """The row of a name. Only files that contain the name are parsed, for a fast start."""
    found = (_parsed(text).get(name) for text in _texts() if name in text)
    return next((row for row in found if row is not None), None)


@cache
def _texts() -> tuple[str, ...]:
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


@cache
def _parsed(text: str) -> Mapping[str, Mapping[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {row["id"]: row for row in yaml.load(text, Loader=loader)}


def _config(row: Mapping[str, Any]) -> dict[str, Any]:
    own = row.get("config", {})
    if "like" not in row:
        return dict(own)
    like = _row(row["like"])
    assert like is not None, f"{row['id']}: no row {row['like']}"
    merged = _config(like) | own
    return {key: value for key, value in merged.items() if value is not None}


def _close(name: str) -> list[str]:
    """Names that begin with `name`, the shortest first, or that are similar, with or without the
    organisation before the slash."""
    by_key = {known.lower(): known for known in rows()}
    by_key |= {known.lower().partition("/")[2]: known for known in rows()}
    # No name is longer, and comparing a text of megabytes would take minutes.
    lowered = name.lower()[:100]
    beginnings = [lowered, lowered.partition("/")[2]] if len(lowered) > 3 else []
    begun = [key for key in by_key if any(one and key.startswith(one) for one in beginnings)]
    matches = difflib.get_close_matches(lowered, by_key, n=4)
    found = [*sorted(begun, key=len), *matches]
    return list(dict.fromkeys(by_key[match] for match in found))[:3]
