"""Published config.json files, as tests read them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from roles.models import Model, parse_config

DATA = Path(__file__).parents[2] / "data"
CONFIGS = DATA / "model-configs"


def read(name: str) -> Any:
    """A JSON file of tests/data/model-configs, by the part of its name after the organisation."""
    (path,) = CONFIGS.glob(f"*--{name}.json")
    return json.loads(path.read_text())


@cache
def published(name: str, **more: Any) -> Model:
    """The model of a published config.json, with its hf_quant_config.json where it has one."""
    found = list(CONFIGS.glob(f"*--{name}.hf_quant.json"))
    hf_quant = json.loads(found[0].read_text()) if found else None
    return parse_config(read(name), model_id=name, hf_quant=hf_quant, **more)
