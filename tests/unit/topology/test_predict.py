"""`predict`: lines in, lines out; a wrong line is answered and harms no other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.topology.named_gpus import named_gpu
from roles.topology.predict import Answer, CaseSettings, answers, schema
from tests.unit.models.published import read

ROOT = Path(__file__).parents[3]
LLAMA = {
    "id": "a",
    "config": read("Llama-3.1-8B-Instruct"),
    "gpu": {"name": "H100 80G"},
    "max_model_len": 8192,
    "gpu_memory_utilization": 0.95,
    "engine_version": "0.19.0",
}


def answer(**more: Any) -> dict[str, Any]:
    (found,) = answers([json.dumps({**LLAMA, **more})])
    return found


def test_a_start_as_logged():
    # vLLM 0.19 printed 14.99 GiB, 58.11 GiB, 476,016 tokens and 58.11x.
    found = answer()
    assert set(found) == set(Answer.model_fields)
    assert found["id"] == "a"
    assert found["weights_gib"] == pytest.approx(14.99, abs=0.01)
    assert found["available_kv_gib"] == pytest.approx(58.11, rel=0.01)
    assert found["kv_cache_tokens"] == pytest.approx(476016, rel=0.01)
    assert found["max_concurrency"] == pytest.approx(58.11, rel=0.01)
    assert (found["fits"], found["reason"]) == (True, "")


def test_known_kv_memory_gives_the_printed_tokens():
    found = answer(available_kv_gib=58.11)
    assert found["kv_cache_tokens"] == pytest.approx(476016, rel=1e-4)
    assert found["available_kv_gib"] == 58.11


def test_a_model_of_the_catalog_is_as_its_config():
    by_id = answer(config=None, model="meta-llama/Llama-3.1-8B-Instruct")
    assert by_id == answer()
    quantised = answer(config=None, model="meta-llama/Llama-3.1-8B-Instruct", quantization="fp8")
    assert quantised["weights_gib"] == pytest.approx(8.46, abs=0.05)


def test_null_is_as_missing():
    empty = dict.fromkeys(set(CaseSettings.model_fields) - set(LLAMA))
    assert answer(**empty) == answer()


def test_another_width_than_the_configs():
    # A config that says FP8, and an engine told NVFP4: half of the bytes.
    config = read("MiniMax-M2.7")
    output = answer(config=config, quantization="nvfp4 (modelopt)", tensor_parallel_size=2)
    assert output["weights_gib"] == pytest.approx(62.75, rel=0.03)
    own = answer(config=config, quantization="fp8", tensor_parallel_size=2)
    assert own["weights_gib"] > 100


def test_a_config_without_a_limit_takes_the_length_that_is_asked():
    config = {k: v for k, v in LLAMA["config"].items() if k != "max_position_embeddings"}
    assert answer(config=config, max_model_len=16384)["fits"]
    assert "131072" in answer(max_model_len=131073)["reason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"tensor_parallel_size": "2"}, "tensor_parallel_size"),
        ({"gpu_memory_utilization": 1.1}, "gpu_memory_utilization"),
        ({"gpu": {}}, "gpu: neither name nor memory_gib"),
        ({"gpu": {"name": "Voodoo 2"}}, "gpu: the memory of 'Voodoo 2' is not known"),
        ({"gpu": None}, "gpu"),
        ({"config": None}, "neither config nor model"),
        ({"config": {}}, "config: "),
        ({"config": {"hidden_size": [1], "num_hidden_layers": {}}}, "config: "),
        ({"config": None, "model": "meta-llama/Llama-3.1-8B-Instrukt"}, "model: unknown model"),
        ({"quantization": "int3"}, "int3"),
        ({"kv_cache_dtype": "fp3"}, "kv_cache_dtype: unknown"),
        ({"utilization": 0.9}, "utilization"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str):
    found = answer(**change)
    assert set(found) == {"id", "error"}
    assert found["id"] == "a"
    assert message in found["error"]


def test_the_command_answers_the_other_lines():
    lines = [json.dumps(LLAMA), "{", "[1]", "", json.dumps({**LLAMA, "id": "b"})]
    done = subprocess.run(
        [sys.executable, "-m", "roles.topology", "predict"],
        cwd=ROOT,
        input="\n".join(lines),
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in found] == ["a", None, None, "b"]
    assert ["error" in line for line in found] == [False, True, True, False]
    assert done.returncode == 1
    assert done.stderr == ""


def test_the_schema_is_of_what_goes_in_and_out():
    found = schema()
    assert set(found["input"]["properties"]) == set(CaseSettings.model_fields)
    assert {"id", "weights_gib", "fits", "reason"} <= set(found["output"]["properties"])


@pytest.mark.parametrize(
    ("name", "memory_gib", "usable_gib"),
    # What torch said of these cards.
    [
        ("H100 80G", None, 79.19),
        ("NVIDIA H100 80GB HBM3", 80, 79.19),
        ("NVIDIA H100", 79.18, 79.18),
        ("RTX 4090 24G", None, 23.55),
        ("NVIDIA A10", 22.09, 22.09),
        ("A100", None, 79.25),
        ("A100 40GB", None, 39.5),
        # By the size that they are sold by, and as people shorten them.
        ("L40S", 48, 44.4),
        ("A10G", 24, 22.05),
        ("Tesla T4", 16, 14.56),
        ("B200", 192, 178.35),
        ("2080ti", None, 10.6),
        ("3090", 24, 23.56),
        ("7900 XTX", None, 23.98),
        ("RTX PRO 6000", None, 94.97),
        # A card that was rebuilt.
        ("RTX 4090", 48, 47.5),
        ("RTX 2080 Ti", 22, 21.56),
        # No card of the table: a round size as it is sold, anything else as CUDA says.
        ("GTX 9090", 32, 31.5),
        (None, 14.56, 14.56),
        ("Mystery 48GB", None, 47.5),
    ],
)
def test_gpus_as_people_name_them(name: str | None, memory_gib: float | None, usable_gib: float):
    assert named_gpu(name, memory_gib).usable_mib / 1024 == pytest.approx(usable_gib, rel=0.004)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(CaseSettings.model_fields)), JSON)
def test_any_value_of_a_field_is_answered(field: str, value: Any):
    (found,) = answers([json.dumps({**LLAMA, field: value})])
    assert set(found) in ({"id", "error"}, set(Answer.model_fields))


@given(st.sampled_from(sorted(LLAMA["config"])), JSON)
def test_any_value_in_a_config_is_answered(key: str, value: Any):
    (found,) = answers([json.dumps({**LLAMA, "config": {**LLAMA["config"], key: value}})])
    assert set(found) in ({"id", "error"}, set(Answer.model_fields))


def test_a_start_without_kernels_for_the_card_is_refused():
    case = {"model": "Qwen/Qwen2.5-7B-Instruct", "quantization": "int8", "max_model_len": 4096}
    lines = [json.dumps(case | {"gpu": {"name": name}}) for name in ("B200", "H100 80GB")]
    blackwell, hopper = answers(lines)
    assert not blackwell["fits"] and "in FP8" in blackwell["reason"]
    assert hopper["fits"]
