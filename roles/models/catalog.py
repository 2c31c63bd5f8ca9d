"""Models whose sizes are known: `catalog.yaml`, each row with the source of its figures."""

import difflib
from functools import cache
from pathlib import Path

import yaml

from roles.models.model import Model


def find(name: str) -> Model:
    """The model of that name on the hub; ValueError with close names where it is not known."""
    model = _catalog().get(name)
    if model is None:
        close = _close(name)
        guess = f"did you mean {' or '.join(close)}? Or " if close else ""
        raise ValueError(
            f"unknown model {name!r}: {guess}declare its sizes (weight_bytes, layers, hidden_size "
            "and the others of its config.json)"
        )
    return model


def _close(name: str) -> list[str]:
    """Names that look like `name`, with or without the organisation before the slash."""
    by_key = {known.lower(): known for known in _catalog()}
    by_key |= {known.lower().partition("/")[2]: known for known in _catalog()}
    matches = difflib.get_close_matches(name.lower(), by_key, n=4)
    return list(dict.fromkeys(by_key[match] for match in matches))[:3]


@cache
def _catalog() -> dict[str, Model]:
    text = Path(__file__).with_name("catalog.yaml").read_text(encoding="utf-8")
    models = {}
    for row in yaml.safe_load(text):
        row.pop("source")
        model = Model.model_validate(row)
        models[model.name] = model
    return models
