"""What a service is for: each engine has it by its own options, and plans with it."""

from dataclasses import replace
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from roles.engine import Placement, VllmSettings
from roles.engine.vllm.start import options_of
from roles.fleet import served
from roles.hardware import declared_hardware
from roles.models import Model
from roles.topology import ServiceSettings, plan_fleet, plan_host
from roles.topology.head_line import head_line
from tests.gguf_models import gguf_model

QWEN = "Qwen/Qwen3-8B"
CARD = declared_hardware("1x NVIDIA L40S", None)
CLASSIFIER = {
    "id": "acme/reranker",
    "config": {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "model_type": "xlm-roberta",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "max_position_embeddings": 8194,
        "vocab_size": 250002,
    },
}
ENCODER = {
    "id": "acme/encoder",
    "config": CLASSIFIER["config"] | {"architectures": ["XLMRobertaModel"]},
}
Pooling = Literal["", "none", "mean", "cls", "last", "rank"]


def gguf(pooling: Pooling = "", encoder: bool = False) -> Model:
    model = gguf_model("Qwen3-0.6B", "Q8_0")
    assert model.gguf is not None
    return replace(model, gguf=replace(model.gguf, pooling=pooling, encoder=encoder))


def service(engine: str, task: str = "embed", model: object = QWEN, **more: Any) -> ServiceSettings:
    own: dict[str, Any] = {
        "name": "search",
        "engine": engine,
        "model": model,
        "weights": "/srv/m.gguf" if isinstance(model, Model) else "/srv/m",
        "max_model_len": 4000,
        "min_concurrency": 1,
        "task": task,
    }
    return ServiceSettings.model_validate(own | more)


WHOLE = {"batch-size": 4096, "ubatch-size": 4096}
SGLANG_ENCODER = {
    "is-embedding": True,
    "attention-backend": "triton",
    "chunked-prefill-size": -1,
    "disable-radix-cache": True,
}


@pytest.mark.parametrize(
    ("engine", "task", "model", "more", "options"),
    [
        ("vllm", "generate", QWEN, {"recipe": False}, {}),
        ("vllm", "embed", QWEN, {}, {"runner": "pooling", "convert": "embed"}),
        ("vllm", "embed", ENCODER, {}, {"runner": "pooling"}),
        ("vllm", "rerank", CLASSIFIER, {}, {"runner": "pooling"}),
        (
            *("vllm", "rerank", QWEN, {"arguments": {"convert": "classify"}}),
            {"runner": "pooling", "convert": "classify"},
        ),
        ("sglang", "embed", QWEN, {}, {"is-embedding": True}),
        ("sglang", "embed", ENCODER, {}, SGLANG_ENCODER),
        ("sglang", "rerank", CLASSIFIER, {}, SGLANG_ENCODER),
        ("sglang", "rerank", QWEN, {}, {}),
        ("llama_cpp", "embed", gguf(), {}, {"embeddings": True, "pooling": "last"}),
        ("llama_cpp", "embed", gguf("last"), {}, {"embeddings": True}),
        ("llama_cpp", "embed", gguf("mean"), {}, {"embeddings": True, **WHOLE}),
        (
            *("llama_cpp", "embed", gguf(), {"arguments": {"pooling": "mean"}}),
            {"embeddings": True, "pooling": "mean", **WHOLE},
        ),
        ("llama_cpp", "rerank", gguf("rank"), {}, {"reranking": True}),
        ("llama_cpp", "rerank", gguf("rank", encoder=True), {}, {"reranking": True, **WHOLE}),
        ("ollama", "embed", gguf("mean"), {}, WHOLE),
    ],
)
def test_it_is_the_engines_own_options(
    engine: str, task: str, model: object, more: dict[str, Any], options: dict[str, object]
):
    assert service(engine, task, model, **more).all_arguments == options


@pytest.mark.parametrize(
    ("engine", "task", "model", "more", "part"),
    [
        ("vllm", "talk", QWEN, {}, "task"),
        ("vllm", "generate", ENCODER, {}, "generates no text by its files; set task embed"),
        ("sglang", "generate", CLASSIFIER, {}, "set task rerank"),
        ("vllm", "embed", CLASSIFIER, {}, "set task rerank"),
        ("llama_cpp", "generate", gguf("last"), {}, "set task embed"),
        ("llama_cpp", "embed", gguf("rank"), {}, "set task rerank"),
        ("ollama", "rerank", gguf("rank"), {}, "Ollama ranks no documents; set engine llama_cpp"),
        ("ollama", "embed", gguf(), {}, "pooling_type"),
        ("vllm", "embed", QWEN, {"arguments": {"runner": "draft"}}, "task"),
        ("sglang", "embed", QWEN, {"arguments": {"is-embedding": True}}, "task"),
        ("llama_cpp", "generate", gguf(), {"arguments": {"embeddings": True}}, "task"),
        ("llama_cpp", "generate", gguf(), {"arguments": {"pooling": "mean"}}, "set task embed"),
        ("llama_cpp", "embed", gguf(), {"arguments": {"pooling": "rank"}}, "cls, last, mean"),
        (
            *("llama_cpp", "embed", gguf("mean"), {"arguments": {"ubatch-size": 512}}),
            "ubatch-size 512 is less than max_model_len 4000",
        ),
        ("vllm", "embed", QWEN, {"concurrency": 4, "output_tokens": 8}, "output_tokens"),
        ("vllm", "embed", QWEN, {"concurrency": 4, "itl_limit_ms": 8}, "itl_limit_ms"),
        ("vllm", "rerank", QWEN, {"embedding_size": 8}, "embedding_size"),
        ("vllm", "embed", QWEN, {"embedding_size": 0}, "embedding_size"),
    ],
)
def test_what_cannot_be_is_refused(
    engine: str, task: str, model: object, more: dict[str, Any], part: str
):
    with pytest.raises(ValidationError, match=part):
        service(engine, task, model, **more)


def test_ollama_embeds_one_text_at_a_time():
    plan = plan_host(service("ollama", model=gguf("mean"), min_concurrency=2), "h", CARD)
    assert not plan.replicas
    assert "set min_concurrency 1" in plan.problems[0]


def test_a_recipe_is_for_chats():
    assert service("vllm", task="generate").recipe_notes
    assert not service("vllm").recipe_notes


def test_memory_is_planned_for_it():
    def planned(engine: str, task: str, model: object):
        (replica,) = plan_host(service(engine, task, model), "h", CARD).replicas
        return replica.memory

    # Nothing is sampled of what is pooled.
    pooled, sampled = planned("vllm", "embed", QWEN), planned("vllm", "generate", QWEN)
    assert pooled.sampler_gib == 0 < sampled.sampler_gib
    assert pooled.kv_tokens > sampled.kv_tokens
    # Steps of whole requests take more than usual ones, and an encoder keeps no token.
    whole, parts = (
        planned("llama_cpp", "embed", gguf("mean")),
        planned("llama_cpp", "embed", gguf()),
    )
    assert whole.activations_gib > 4 * parts.activations_gib
    header = gguf("mean", encoder=True)
    assert planned("llama_cpp", "embed", header).starts


def test_the_load_is_requests():
    plan = plan_fleet(service("vllm", concurrency=8, input_tokens=512), {"h": CARD})
    assert plan.load is not None and plan.load.output_tokens == 1
    assert "requests/s" in head_line(plan) and "for 512 tokens" in head_line(plan)


@pytest.mark.parametrize(
    ("requirement", "task", "options"),
    [
        ("vllm==0.33.0", "embed", {"runner": "pooling", "convert": "embed"}),
        ("vllm==0.10.1", "embed", {"runner": "pooling", "convert": "embed"}),
        ("vllm==0.10.0", "embed", {"task": "embed"}),
        ("vllm==0.9.2", "rerank", {"task": "score"}),
    ],
)
def test_older_vllm_names_the_task(requirement: str, task: str, options: dict[str, str]):
    wanted = service("vllm", task)
    (replica,) = plan_host(wanted, "h", CARD).replicas
    build = VllmSettings(requirement=requirement)
    found = options_of(replica, served(wanted), build, Placement("127.0.0.1", 29000, 60))
    assert {name: found.get(name) for name in ("runner", "convert", "task") if name in found} == (
        options
    )
