"""Speculative decoding of a service: each engine has it by its own options, and plans the draft."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine.engine import engine
from roles.engine.params import gpu_memory
from roles.hardware import declared_hardware
from roles.plan import Shape
from roles.topology import ServiceSettings, plan_host
from tests.gguf_models import gguf_model
from tests.unit.topology.services import chat

CARD = declared_hardware("1x NVIDIA L40S", None)
SMALL = {"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "tokens": 4}
HEAD = {
    "id": "acme/head",
    "config": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_hidden_layers": 1,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
    },
}
OF_8B = {"method": "eagle3", "model": HEAD, "weights": "/srv/head"}
GGUF_DRAFT = {"method": "draft_model", "model": gguf_model("Qwen3-0.6B"), "weights": "/srv/d.gguf"}


def service(engine: str, speculative: dict[str, Any] | None, **more: Any) -> ServiceSettings:
    own = {"min_concurrency": 2, "speculative": speculative} | more
    return chat(engine, "Qwen/Qwen3-8B", "Qwen3-8B", **own)


def as_read(options: dict[str, Any]) -> dict[str, Any]:
    config = options.pop("speculative-config", None)
    return options if config is None else options | {"config": json.loads(config)}


@pytest.mark.parametrize(
    ("engine", "speculative", "options"),
    [
        (
            *("vllm", {"method": "ngram", "tokens": 5}),
            {"config": {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}},
        ),
        (
            *("vllm", SMALL),
            {
                "config": {
                    "method": "draft_model",
                    "num_speculative_tokens": 4,
                    "model": "Qwen/Qwen3-0.6B",
                }
            },
        ),
        (
            *("vllm", OF_8B),
            {
                "config": {
                    "method": "eagle3",
                    "num_speculative_tokens": 3,
                    "model": "/srv/head",
                }
            },
        ),
        ("vllm", {"method": "mtp"}, {"config": {"method": "mtp", "num_speculative_tokens": 3}}),
        (
            *("sglang", {"method": "ngram", "tokens": 5}),
            {"speculative-algorithm": "NGRAM", "speculative-num-draft-tokens": 5},
        ),
        (
            *("sglang", SMALL),
            {
                "speculative-algorithm": "STANDALONE",
                "speculative-draft-model-path": "Qwen/Qwen3-0.6B",
                "speculative-num-steps": 4,
                "speculative-eagle-topk": 1,
                "speculative-num-draft-tokens": 5,
            },
        ),
        (
            *("llama_cpp", {"method": "ngram", "tokens": 5}),
            {"spec-type": "ngram-simple", "spec-ngram-simple-size-m": 5},
        ),
        (
            *("llama_cpp", GGUF_DRAFT),
            {
                "spec-type": "draft-simple",
                "spec-draft-model": "/srv/d.gguf",
                "spec-draft-n-max": 3,
                "spec-draft-ngl": "all",
            },
        ),
    ],
)
def test_it_is_the_engines_own_options(
    engine: str, speculative: dict[str, Any], options: dict[str, Any]
):
    found = service(engine, speculative)
    assert as_read(dict(found.all_arguments)) == options


@pytest.mark.parametrize(
    ("engine", "speculative", "more", "part"),
    [
        ("vllm", {"method": "guess"}, {}, "method"),
        ("vllm", {"method": "ngram", "tokens": 0}, {}, "tokens"),
        ("vllm", {"method": "ngram", "tokens": 17}, {}, "tokens"),
        ("vllm", {"method": "draft_model"}, {}, "model: is missing"),
        ("vllm", {"method": "mtp", "model": "Qwen/Qwen3-0.6B"}, {}, "nothing is loaded for mtp"),
        ("vllm", OF_8B, {"model": "Qwen/Qwen3-4B"}, "hidden size of 4096, and Qwen/Qwen3-4B has"),
        (
            *("vllm", SMALL | {"model": "Qwen/Qwen2.5-0.5B-Instruct"}),
            *({"model": "Qwen/Qwen2.5-72B-Instruct"}, "vocabulary of 151936"),
        ),
        ("vllm", GGUF_DRAFT, {}, "Qwen3-0.6B is gguf, and the service's safetensors"),
        ("vllm", SMALL, {"task": "embed"}, "nothing to draft with task embed"),
        ("vllm", SMALL, {"arguments": {"spec-tokens": 3}}, "spec-tokens in arguments contradicts"),
        (
            *("sglang", SMALL, {"arguments": {"speculative-num-steps": 3}}),
            "speculative-num-steps in arguments contradicts",
        ),
        ("llama_cpp", {"method": "mtp"}, {}, "mtp is not planned for llama.cpp"),
        ("llama_cpp", GGUF_DRAFT | {"weights": "org/draft"}, {}, "weights: .*no GGUF file"),
        (
            *("llama_cpp", None, {"arguments": {"spec-draft-model": "/d.gguf"}}),
            r"set services\[\].speculative",
        ),
        ("ollama", {"method": "ngram"}, {}, "Ollama does not draft tokens; set engine llama_cpp"),
    ],
)
def test_what_cannot_be_is_refused(
    engine: str, speculative: dict[str, Any] | None, more: dict[str, Any], part: str
):
    with pytest.raises(ValidationError, match=part):
        service(engine, speculative, **more)


@pytest.mark.parametrize(
    ("engine", "speculative", "weights_gib"),
    [
        # 0.6 billion parameters in two bytes, and their copies for graphs none.
        ("vllm", SMALL, 1.1),
        ("sglang", SMALL, 1.1),
        # A layer of 0.2 billion parameters, and tables of 32000 tokens.
        ("vllm", OF_8B, 0.85),
        ("vllm", {"method": "mtp"}, 0.36),
        ("vllm", {"method": "ngram"}, 0.0),
    ],
)
def test_its_memory_is_planned(engine: str, speculative: dict[str, Any], weights_gib: float):
    (drafts,) = plan_host(service(engine, speculative), "h", CARD).replicas
    (plain,) = plan_host(service(engine, None), "h", CARD).replicas
    added = drafts.memory.weights_gib - plain.memory.weights_gib
    assert added == pytest.approx(weights_gib, rel=0.12, abs=0.02)
    assert (drafts.memory.kv_tokens < plain.memory.kv_tokens) is (weights_gib > 0)


def test_a_draft_keeps_a_cache_for_the_same_tokens():
    (drafts,) = plan_host(service("vllm", SMALL), "h", CARD).replicas
    (plain,) = plan_host(service("vllm", None), "h", CARD).replicas
    # Qwen3-8B has 36 layers and Qwen3-0.6B 28, with the same heads.
    assert drafts.memory.kv_needed_gib / plain.memory.kv_needed_gib == pytest.approx(64 / 36)
    (drafts,) = plan_host(service("llama_cpp", GGUF_DRAFT), "h", CARD).replicas
    (plain,) = plan_host(service("llama_cpp", None), "h", CARD).replicas
    draft_kv_gib = 28 * 8 * 2 * 128 * 2 * 2 * 4096 / 2**30
    assert plain.memory.headroom_gib - drafts.memory.headroom_gib > 1.1 + draft_kv_gib


def test_a_draft_that_cannot_be_split_refuses_the_shape():
    heads = HEAD["config"] | {"num_attention_heads": 30, "num_key_value_heads": 30}
    own = {"method": "eagle3", "model": {"id": "acme/odd", "config": heads}, "weights": "/srv/h"}
    wanted = service("vllm", own)
    card = (gpu_memory(CARD.gpus[0]),) * 4
    memories = [
        engine(kind).memory(wanted.model, card, Shape(4), wanted.engine_params)
        for kind in ("vllm", "sglang")
    ]
    assert all(not one.starts and "for the draft model: " in one.reason for one in memories)


def test_the_estimate_says_that_it_leaves_it_out():
    plan = plan_host(service("vllm", SMALL, concurrency=4), "h", CARD)
    assert any("without speculative decoding" in one for one in plan.reasons)
    without = plan_host(service("vllm", None, concurrency=4), "h", CARD)
    assert plan.replicas[0].expected == without.replicas[0].expected
