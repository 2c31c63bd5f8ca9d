"""LoRA adapters: what their files say, and whether they are made for a model."""

import json
from pathlib import Path
from typing import Any

import pytest

from roles.models import adapter_bytes, adapter_problem, find, read_adapter
from tests.adapters import HIDDEN, gguf_adapter, peft
from tests.gguf_models import gguf_model

QWEN = find("Qwen/Qwen2.5-14B-Instruct")


def test_a_folder_is_read(tmp_path: Path):
    found = read_adapter(peft(tmp_path / "a", rank=16))
    assert (found.format, found.rank, found.base) == ("peft", 16, "Qwen/Qwen2.5-14B-Instruct")
    # Two halves of 16 × inputs and outputs × 16 numbers of two bytes, for each module.
    assert found.bytes == 2 * 16 * (5120 + 5120 + 13824 + HIDDEN)
    assert [(one.module, one.first, one.layer) for one in found.matrices] == [
        ("q_proj", True, 0),
        ("q_proj", False, 0),
        ("down_proj", True, 0),
        ("down_proj", False, 0),
    ]
    assert adapter_problem(found, QWEN) is None


def test_a_rank_may_be_written_as_a_fraction(tmp_path: Path):
    assert read_adapter(peft(tmp_path, rank=16, r=16.0)).rank == 16


def test_its_name_is_what_its_files_hold(tmp_path: Path):
    first, again = (read_adapter(peft(tmp_path / name)) for name in "ab")
    assert first.digest == again.digest
    assert read_adapter(peft(tmp_path / "a", lora_alpha=32)).digest != first.digest


def test_a_gguf_file_is_read(tmp_path: Path):
    found = read_adapter(gguf_adapter(tmp_path / "style.gguf", hidden=4096, outputs=4096))
    assert (found.format, found.rank, found.architecture) == ("gguf", 4, "llama")
    assert adapter_problem(found, gguf_model("Llama-3.1-8B-Instruct")) is None


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "the rank is 0"),
        ({"r": "16"}, "the rank is '16'"),
        ({"rank_pattern": {"q_proj": 1024}}, "the rank is 1024"),
        ({"rank_pattern": 5}, "adapter_config.json"),
        ({"base": 5}, "base_model_name_or_path is 5"),
        ({"base": ["Qwen/Qwen2.5-14B-Instruct"]}, "it is the name of the model"),
    ],
)
def test_what_engines_do_not_serve_is_refused(tmp_path: Path, config: Any, part: str):
    with pytest.raises(ValueError, match=part):
        read_adapter(peft(tmp_path, **config))


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"adapter_config\.json is not there"):
        read_adapter(tmp_path)
    peft(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut off"):
        read_adapter(tmp_path)
    weights.write_bytes(b"x")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="not a mapping"):
        read_adapter(tmp_path)
    (tmp_path / "m.gguf").write_text("GGUF")
    with pytest.raises(ValueError, match=r"m\.gguf"):
        read_adapter(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"base": "Qwen/Qwen2.5-7B-Instruct"}, "trained on Qwen/Qwen2.5-7B-Instruct"),
        ({"base": "unsloth/Qwen2.5-14B-Instruct-unsloth-bnb-4bit"}, None),
        ({"base": "/data/checkpoints/qwen"}, None),
        ({"base": None}, None),
        ({"layer": 48}, "layer 48, and the model has 48"),
        ({"modules": {"self_attn.q_proj": (3584, 3584)}}, "hidden size of 3584"),
        ({"modules": {"mlp.down_proj": (13824, 3584)}}, "down_proj is for a hidden size of 3584"),
        ({"modules": {}}, None),
    ],
)
def test_an_adapter_of_another_model_is_told(
    tmp_path: Path, changes: dict[str, Any], part: str | None
):
    if changes.get("modules") == {}:
        with pytest.raises(ValueError, match="names no tensor"):
            read_adapter(peft(tmp_path, **changes))
        return
    problem = adapter_problem(read_adapter(peft(tmp_path, **changes)), QWEN)
    assert problem is None if part is None else part in (problem or "")


def test_a_rank_that_its_config_does_not_say_is_told(tmp_path: Path):
    peft(tmp_path, rank=32)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    assert "has rank 32" in str(adapter_problem(read_adapter(tmp_path), QWEN))


@pytest.mark.parametrize(
    ("name", "more", "part"),
    [
        ("Llama-3.1-8B-Instruct", {}, "hidden size of 64"),
        ("Qwen3-4B", {}, "it is for llama, and the model is qwen3"),
        ("Llama-3.1-8B-Instruct", {"general.type": "model"}, "no LoRA adapter"),
    ],
)
def test_a_gguf_adapter_of_another_model_is_told(
    tmp_path: Path, name: str, more: dict[str, Any], part: str
):
    path = gguf_adapter(tmp_path / "a.gguf", **more)
    try:
        problem = adapter_problem(read_adapter(path), gguf_model(name))
    except ValueError as error:
        problem = str(error)
    assert part in str(problem)


def test_formats_do_not_mix(tmp_path: Path):
    folder, file = peft(tmp_path / "a"), gguf_adapter(tmp_path / "a.gguf")
    assert "PEFT" in str(adapter_problem(read_adapter(file), QWEN))
    assert ".gguf" in str(adapter_problem(read_adapter(folder), gguf_model("Qwen3-4B")))


def test_memory_is_that_of_every_matrix():
    # Qwen2.5-14B: hidden 5120, 40 heads and 8 KV heads of 128, feed-forward 13824, 48 layers.
    attention = 3 * 5120 + (5120 + 2 * 1024) + 5120 + 5120
    feed_forward = 2 * 5120 + 2 * 13824 + 13824 + 5120
    assert adapter_bytes(QWEN, 16, 1) == 48 * 2 * 16 * (attention + feed_forward)
    # Halves that are not split stay whole.
    whole = 3 * 5120 + 5120 + 2 * 5120 + 5120
    halves = (5120 + 2 * 1024) + 5120 + 2 * 13824 + 13824
    assert adapter_bytes(QWEN, 16, 2) == 48 * 2 * 16 * (whole + halves // 2)
    assert adapter_bytes(QWEN, 16, 1, range(24)) == adapter_bytes(QWEN, 16, 1) // 2
