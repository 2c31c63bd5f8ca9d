"""Models that an inventory declares, by their sizes or by a file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.models import DeclaredModel, declared_model, model_of_file
from roles.models.settings import RecordedModel

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weight_bytes": 2**21},
            "weight_bytes is 2097152; it must be near to what the sizes make",
        ),
        ({"weight_bytes": 2**49}, "weight_bytes is 562949953421312; it must be near to"),
        (
            {"attention_heads": 2**20, "kv_heads": 1},
            "attention_heads is 1048576; it must be a whol",
        ),
        ({"hidden_size": 2**30}, "hidden_size"),
        ({"head_dim": 2**30}, "head_dim"),
    ],
)
def test_sizes_that_no_model_has_together_are_told_by_their_names(
    change: dict[str, Any], message: str
):
    with pytest.raises(ValueError) as error:
        declared_model(SIZES | change)
    assert message in str(error.value)


COUNTS = [name for name, size in SIZES.items() if name != "weight_bytes" and size != SIZES["name"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 64}, "must divide"),
        ({"kv_heads": 5}, "must divide"),
        ({"layers": 0}, "layers"),
        ({"weight_bytes": -1}, "weight_bytes"),
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
        DeclaredModel.model_validate(SIZES | change)


@pytest.mark.parametrize("value", [True, "5", 5.0, 0, -1, 2**31, 10**400, float("nan"), None])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_written_as_integers(name: str, value: Any):
    with pytest.raises(ValidationError, match=name):
        DeclaredModel.model_validate(SIZES | {name: value})


@pytest.mark.parametrize(
    ("size", "padded"), [(1, 64), (64, 64), (65, 128), (128256, 128256), (151665, 151680)]
)
def test_a_vocabulary_is_held_in_whole_64s(size: int, padded: int):
    assert (
        DeclaredModel.model_validate(SIZES | {"vocab_size": size}).model().padded_vocabulary_size
        == padded
    )


def test_every_field_is_described():
    assert all(field.description for field in DeclaredModel.model_fields.values())


CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
RECORDED: dict[str, Any] = {"id": "acme/mine", "config": CONFIG, "weights_bytes": 16_060_522_496}


def test_a_recorded_model_is_that_of_its_sizes():
    by_config, by_sizes = declared_model(RECORDED), declared_model(SIZES)
    assert (by_config.id, by_config.weights_bytes) == ("acme/mine", 16_060_522_496)
    assert (by_config.layers, by_config.first, by_config.last) == (
        by_sizes.layers,
        by_sizes.first,
        by_sizes.last,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "config: must be an object"),
        ({"config": {}}, "config: has too few entries"),
        ({"config": CONFIG | {"hidden_size": "wide"}}, "config: hidden_size is 'wide'"),
        (
            {"config": CONFIG | {"num_hidden_layers": 10**9}},
            "must be a whole number from 1 to 512",
        ),
        (
            {"config": CONFIG | {"architectures": 5}},
            "config: architectures is 5; it must be a list",
        ),
        ({"id": "a/../b"}, "id: a model's name has no empty part"),
        ({"revision": "main"}, "revision: 'main' has characters"),
        ({"weights_bytes": "16 GB"}, "weights_bytes: must be a whole number"),
        ({"weight_bytes": 5}, "weight_bytes: unknown key; did you mean weights_bytes?"),
        # The engine would not be told so.
        ({"quantization": "fp8"}, "quantization"),
    ],
)
def test_a_recorded_model_that_is_wrong(change: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        declared_model(RECORDED | change)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_id_is_named():
    with pytest.raises(ValueError, match="id: is missing"):
        declared_model({"config": CONFIG})


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"id": "a"}'])
def test_a_damaged_file_says_how_to_make_it_anew(tmp_path: Path, content: bytes):
    file = tmp_path / "m.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.json: .*roles\.models read SOURCE > .*m\.json"):
        model_of_file(file)


def test_what_is_recorded_comes_back(tmp_path: Path):
    odd = RecordedModel.model_validate(
        RECORDED | {"config": CONFIG | {"time_step_limit": [0.0, float("inf")], "pad": None}}
    )
    (tmp_path / "m.json").write_text(odd.text())
    assert RecordedModel.model_validate_json((tmp_path / "m.json").read_text()) == odd
    assert model_of_file(tmp_path / "m.json") == odd.model()
