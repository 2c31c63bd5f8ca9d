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


def test_kv_bytes_of_one_token():
    assert Model.model_validate(SIZES).kv_bytes_per_token == 131_072
    assert Model.model_validate(SIZES | {"kv_element_bytes": 1}).kv_bytes_per_token == 65_536


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 64}, "must divide"),
        ({"kv_heads": 5}, "must divide"),
        ({"layers": 0}, "layers"),
        ({"weight_bytes": -1}, "weight_bytes"),
        ({"kv_element_bytes": float("nan")}, "kv_element_bytes"),
        ({"kv_element_bytes": 16}, "kv_element_bytes"),
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


def test_every_field_is_described():
    assert all(field.description for field in Model.model_fields.values())
