"""Wrong values of settings are refused: each message begins with its place and says what to do."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.inputs.inventories import changed, expect, fleet, problems
from tests.unit.inputs.settings_cases import (
    BESIDE,
    ENGINES,
    KEYS,
    NAMES,
    SIZES,
    SIZES_OF_MODELS,
    TYPES,
)

MODEL = {
    "name": "org/model",
    "weight_bytes": 16_060_522_496,
    "layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "attention_heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "context_limit_tokens": 131072,
}


def test_the_inventory_that_is_changed_is_good(folder: Path):
    assert [replica.host for replica in fleet(folder, changed(folder)).plans[0].replicas]


@pytest.mark.parametrize(
    "row", [*TYPES, *KEYS, *SIZES, *NAMES, *ENGINES, *BESIDE], ids=lambda row: row[0]
)
def test_a_wrong_value_is_refused(folder: Path, row: Any):
    place, value, *expected = row
    expect(problems(folder, changed(folder, (place, value))), *expected)


@pytest.mark.parametrize(("sizes", "field", "words"), SIZES_OF_MODELS)
def test_sizes_that_no_model_has(folder: Path, sizes: dict[str, Any], field: str, words: str):
    found = problems(folder, changed(folder, ("service.model", MODEL | sizes)))
    (problem,) = found
    assert problem.startswith("services[0].model")
    assert field in problem and words in problem


def test_good_sizes_of_a_model_are_taken(folder: Path):
    assert fleet(folder, changed(folder, ("service.model", MODEL))).plans[0].replicas
