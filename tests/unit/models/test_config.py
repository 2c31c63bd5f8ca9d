"""config.json read as vLLM reads it: kinds of layers, limits, defaults, quantisation, errors."""

from collections import Counter
from typing import Any

import pytest

from roles.models import Attention, Experts, Model, parse_config
from roles.models.model import Recurrent
from roles.models.weights import checkpoint_bytes
from tests.unit.models.published import CONFIGS, published, read

NAMES = sorted(
    path.name.removesuffix(".json").split("--")[1]
    for path in CONFIGS.glob("*.json")
    if not path.name.endswith(".hf_quant.json")
)


def mixers(model: Model) -> Counter[str]:
    return Counter(layer.mixer.kind if layer.mixer else "none" for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Llama-3.1-8B-Instruct", {"full": 32}),
        ("Mistral-7B-v0.1", {"sliding": 32}),
        ("gemma-2-27b-it", {"sliding": 23, "full": 23}),
        ("gemma-3-27b-it", {"sliding": 52, "full": 10}),
        ("gpt-oss-120b", {"sliding": 18, "full": 18}),
        ("EXAONE-4.0-32B", {"sliding": 48, "full": 16}),
        ("Llama-4-Scout-17B-16E-Instruct", {"chunked": 36, "full": 12}),
        ("DeepSeek-V3", {"mla": 61}),
        ("Qwen3-Next-80B-A3B-Instruct", {"gdn": 36, "full": 12}),
        ("Qwen3.5-27B", {"gdn": 48, "full": 16}),
        ("Kimi-Linear-48B-A3B-Instruct-4bit", {"kda": 20, "mla": 7}),
        ("AI21-Jamba-1.5-Mini", {"mamba1": 28, "full": 4}),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", {"mamba2": 23, "full": 6, "none": 23}),
        ("gemma-4-E2B-it", {"sliding": 28, "full": 7}),
        ("Qwen2.5-7B-Instruct", {"full": 28}),
        # Its window is as long as its context.
        ("Phi-3-vision-128k-instruct", {"full": 32}),
        ("MiMo-7B-Base", {"full": 36}),
        ("Llama-3_3-Nemotron-Super-49B-v1", {"full": 49, "none": 31}),
    ],
)
def test_the_kinds_of_layers(name: str, kinds: dict[str, int]):
    assert mixers(published(name)) == kinds


@pytest.mark.parametrize(
    ("name", "experts", "sparse_layers"),
    [
        ("Mixtral-8x7B-v0.1", Experts(8, 2, 14336), 32),
        ("Qwen3-30B-A3B", Experts(128, 8, 768), 48),
        ("DeepSeek-V3", Experts(256, 8, 2048, 2048), 58),
        ("DeepSeek-V2-Lite", Experts(64, 6, 1408, 2816), 26),
        ("Qwen1.5-MoE-A2.7B", Experts(60, 4, 1408, 5632), 24),
        ("Llama-4-Maverick-17B-128E-Instruct", Experts(128, 1, 8192, 8192), 24),
        ("AI21-Jamba-1.5-Mini", Experts(16, 2, 14336), 16),
        ("MiniMax-M2.7", Experts(256, 8, 1536), 62),
        ("MiniMax-M3", Experts(128, 4, 3072, 3072), 57),
        ("gemma-4-26B-A4B", Experts(128, 8, 704, 2112), 30),
        ("Laguna-S-2.1-FP8", Experts(256, 10, 1024, 1024), 47),
    ],
)
def test_experts(name: str, experts: Experts, sparse_layers: int):
    model = published(name)
    assert model.experts == experts
    assert sum(isinstance(layer.mlp, Experts) for layer in model.layers) == sparse_layers


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("Llama-3.1-8B-Instruct", Attention("full", 32, 8, 128, 128)),
        ("Llama-2-7b-hf", Attention("full", 32, 32, 128, 128)),
        ("DeepSeek-V3", Attention("mla", 128, 1, 576, 0)),
        ("DeepSeek-V3.2", Attention("mla", 128, 1, 576, 0, 0, 132)),
        # What the published file leaves to transformers' defaults.
        ("gemma-3-4b-it", Attention("sliding", 8, 4, 256, 256, 1024)),
        ("llava-1.5-7b-hf", Attention("full", 32, 32, 128, 128)),
        ("Laguna-S-2.1-FP8", Attention("full", 48, 8, 128, 128)),
    ],
)
def test_the_first_attention(name: str, attention: Attention):
    assert published(name).attentions[0] == attention


def test_layers_whose_heads_differ():
    full = {a for a in published("gemma-4-26B-A4B").attentions if a.kind == "full"}
    assert full == {Attention("full", 16, 2, 512, 512)}
    assert published("Laguna-S-2.1-FP8").attentions[1].heads == 72
    shared = [layer.own_kv for layer in published("gemma-4-E2B-it").layers]
    assert shared == [True] * 15 + [False] * 20


def test_the_state_of_linear_attention():
    # Qwen3.5-35B-A3B: 2 x 16 x 128 + 32 x 128 channels, 32 states of 128 x 128 in float32.
    (state,) = {
        layer.mixer
        for layer in published("Qwen3.5-35B-A3B").layers
        if isinstance(layer.mixer, Recurrent)
    }
    assert state == Recurrent("gdn", 32, 16, 4, 8192, 32 * 128 * 128, 4)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({}, 131_072),
        (
            {"max_position_embeddings": 8192, "rope_scaling": {"type": "linear", "factor": 4}},
            32_768,
        ),
        ({"max_position_embeddings": 8192, "rope_scaling": None}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, 131_072),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 262_144),
        ({"seq_length": 4096}, 4096),
    ],
)
def test_the_context_limit(change: dict[str, Any], limit: int):
    config = read("Llama-3.1-8B-Instruct") | change
    assert parse_config(config).context_limit_tokens == limit


def test_gemma_3_scales_its_limit_itself():
    assert published("gemma-3-4b-it").context_limit_tokens == 131_072


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        ("Llama-3.2-3B-Instruct", True),
        ("Llama-3.1-8B-Instruct", False),
        ("gemma-2-2b-it", True),
        ("Qwen3-4B", True),
        ("opt-125m", True),
        ("Mistral-Small-3.2-24B-Instruct-2506", False),
    ],
)
def test_tied_embeddings(name: str, tied: bool):
    model = published(name)
    assert model.tied_embeddings is tied
    assert any(weight.name == "lm_head" for weight in model.last) is not tied


def formats(name: str, **options: Any) -> dict[str, str]:
    """The format of each linear of the last layer, by its name."""
    return {w.name: w.format.name for w in published(name, **options).layers[-1].weights}


@pytest.mark.parametrize(
    ("name", "linear", "format"),
    [
        ("Qwen2.5-72B-Instruct-AWQ", "self_attn.qkv_proj", "awq"),
        ("Qwen3-235B-A22B-FP8", "mlp.experts", "fp8-block"),
        ("Qwen3-235B-A22B-FP8", "mlp.gate", "bfloat16"),
        ("gpt-oss-20b", "mlp.experts", "mxfp4"),
        ("gpt-oss-20b", "self_attn.qkv_proj", "bfloat16"),
        ("Kimi-K2.5", "mlp.experts", "int4"),
        ("Kimi-K2.5", "self_attn.o_proj", "bfloat16"),
        ("Kimi-K2.5", "mlp.shared_experts.gate_up_proj", "bfloat16"),
        ("DeepSeek-V3.1-NVFP4", "mlp.experts", "nvfp4"),
        ("DeepSeek-V3.1-NVFP4", "self_attn.q_b_proj", "bfloat16"),
        ("DeepSeek-V3.1-NVFP4", "self_attn.o_proj", "nvfp4"),
        ("Gemma-4-31B-IT-NVFP4", "self_attn.qkv_proj", "bfloat16"),
        ("Gemma-4-31B-IT-NVFP4", "mlp.down_proj", "nvfp4"),
        ("Qwen3.6-27B-NVFP4", "self_attn.qkv_proj", "fp8"),
        ("Qwen3.6-27B-NVFP4", "mlp.gate_up_proj", "nvfp4"),
        ("Llama-4-Scout-17B-16E-Instruct-FP8-dynamic", "mlp.experts", "fp8-channel"),
        ("Llama-4-Scout-17B-16E-Instruct-FP8-dynamic", "self_attn.qkv_proj", "bfloat16"),
        ("Laguna-S-2.1-FP8", "mlp.experts", "fp8-block"),
        ("Laguna-S-2.1-FP8", "self_attn.qkv_proj", "bfloat16"),
    ],
)
def test_what_a_checkpoint_quantises(name: str, linear: str, format: str):
    assert formats(name)[linear] == format


@pytest.mark.parametrize(
    ("method", "format"),
    [
        ("fp8", "fp8"),
        ("awq_marlin", "awq"),
        ("gptq", "gptq"),
        ("bitsandbytes", "nf4"),
        ("gguf q4_k_m", "gguf-q4_k_m"),
        ("nvfp4", "nvfp4"),
    ],
)
def test_what_the_engine_is_told(method: str, format: str):
    assert formats("Llama-3.1-8B-Instruct", quantization=method)["mlp.down_proj"] == format


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "4096"}, "hidden_size is '4096'; it must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a whole number from 1"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"num_key_value_heads": 5}, r"num_key_value_heads \(5\) must divide"),
        ({"num_hidden_layers": 2**50}, "it must be a whole number from 1 to 512"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 32 layers"),
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8'"),
        ({"quantization_config": {"quant_method": "magic"}}, "unknown quantisation 'magic'"),
        ({"torch_dtype": "int8"}, "use float16, bfloat16 or float32"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"rope_scaling": 3}, "rope_scaling is 3; it must be a mapping"),
    ],
)
def test_a_config_that_cannot_be_says_which_key(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        parse_config(read("Llama-3.1-8B-Instruct") | change)


def test_a_missing_key_is_named():
    config = read("Qwen3-8B")
    del config["hidden_size"]
    with pytest.raises(ValueError, match=r"hidden_size is missing; take the config\.json"):
        parse_config(config)


@pytest.mark.parametrize("config", [{}, [], None, {"model_type": 5}, {"text_config": {}}])
def test_what_is_no_config_of_a_model(config: Any):
    try:
        parse_config(config)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("name", NAMES)
def test_every_published_config_is_read(name: str):
    model = published(name)
    assert model.layers and model.first
    assert bool(model.warnings) == (not model.exact)


def test_an_unknown_kind_is_taken_to_keep_every_token():
    # DeepSeek V4 compresses its cache in ways of its own, and has experts in MXFP4.
    model = published("DeepSeek-V4-Flash-0731")
    assert mixers(model) == {"full": 43}
    assert "keeps every token" in model.warnings[0]
    assert formats("DeepSeek-V4-Flash-0731")["mlp.experts"] == "mxfp4"
    assert formats("DeepSeek-V4-Flash-0731")["self_attn.o_proj"] == "fp8-block"


def test_a_size_for_each_layer():
    # Gemma 3n E4B: 6.87 thousand million parameters in its language model.
    config = {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "text_config": {
            "model_type": "gemma3n_text",
            "hidden_size": 2048,
            "hidden_size_per_layer_input": 256,
            "head_dim": 256,
            "intermediate_size": [16384] * 35,
            "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
            "max_position_embeddings": 32768,
            "num_attention_heads": 8,
            "num_hidden_layers": 35,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 15,
            "sliding_window": 512,
            "vocab_size": 262400,
            "vocab_size_per_layer_input": 262144,
        },
    }
    model = parse_config(config)
    assert mixers(model) == {"sliding": 28, "full": 7}
    assert checkpoint_bytes(model) == pytest.approx(2 * 6.87e9, rel=0.015)
