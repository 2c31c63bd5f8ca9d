from typing import Any

import pytest
from pydantic import ValidationError

from roles.models import Model

SIZES: dict[str, Any] = {
    "name": "meta-llama/Llama-3.1-8B-Instruct",
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


COUNTS = [name for name, size in SIZES.items() if name != "weight_bytes" and size != SIZES["name"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 64}, "must divide"),
        ({"kv_heads": 5}, "must divide"),
        ({"layers": 0}, "layers"),
        ({"weight_bytes": -1}, "weight_bytes"),
        ({"kv_element_bytes": float("nan")}, "kv_element_bytes"),
        ({"kv_element_bytes": float("inf")}, "kv_element_bytes"),
        ({"kv_element_bytes": 1e-300}, "kv_element_bytes"),
        ({"kv_element_bytes": True}, "kv_element_bytes"),
        ({"kv_element_bytes": "2"}, "kv_element_bytes"),
        ({"kv_element_bytes": 16}, "kv_element_bytes"),
        ({"weight_bytes": 2**50}, "weight_bytes"),
        ({"experts": 8}, "experts"),
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a/../b"}, "name"),
        ({"name": "a//b"}, "name"),
        ({"name": "/etc/passwd"}, "name"),
    ],
)
def test_sizes_that_no_model_has_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Model.model_validate(SIZES | change)


@pytest.mark.parametrize("value", [True, "5", 5.0, 0, -1, 2**31, 10**400, float("nan"), None])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_written_as_integers(name: str, value: Any):
    with pytest.raises(ValidationError, match=name):
        Model.model_validate(SIZES | {name: value})


@pytest.mark.parametrize(
    ("size", "padded"), [(1, 64), (64, 64), (65, 128), (128256, 128256), (151665, 151680)]
)
def test_a_vocabulary_is_held_in_whole_64s(size: int, padded: int):
    assert Model.model_validate(SIZES | {"vocab_size": size}).padded_vocab_size == padded


def test_every_field_is_described():
    assert all(field.description for field in Model.model_fields.values())
