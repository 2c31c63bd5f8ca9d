"""Kinds of models that the recorded configs have not: parameters as published, KV bytes by hand."""

from typing import Any

import pytest

from roles.models import parse_config
from roles.models.kv_groups import CacheOptions, token_bytes
from roles.models.model import Attention
from roles.models.weights import checkpoint_bytes


def sizes(kind: str, hidden: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """A config in the usual words."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "torch_dtype": "bfloat16",
        **more,
    }


EVERY_EIGHTH = ([0] * 7 + [1]) * 10
DBRX = {
    "model_type": "dbrx",
    "d_model": 6144,
    "n_heads": 48,
    "n_layers": 40,
    "max_seq_len": 32768,
    "vocab_size": 100352,
    "attn_config": {"kv_n_heads": 8, "model_type": ""},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}
STEP3 = sizes(
    "step3_text",
    *(7168, 61, 64),
    intermediate_size=18432,
    num_attention_groups=1,
    vocab_size=128815,
    moe_intermediate_size=5120,
    moe_num_experts=48,
    moe_top_k=3,
    share_expert_dim=5120,
    share_q_dim=2048,
    head_dim=256,
    moe_layers_enum=",".join(map(str, range(4, 60))),
)
MINIMAX = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9216,
    "num_local_experts": 32,
    "num_experts_per_tok": 2,
    "vocab_size": 200064,
}
MINIMAX_TYPES = ["full_attention" if kind else "linear_attention" for kind in EVERY_EIGHTH]
CASES = [
    (
        "bloom-560m",
        {"model_type": "bloom", "n_embed": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250880},
        0.5592,
        2 * 1024 * 24 * 2,
    ),
    (
        "gpt-j-6b",
        {"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_layer": 28, "vocab_size": 50400},
        6.0509,
        2 * 4096 * 28 * 2,
    ),
    (
        "starcoder",
        {
            **{"model_type": "gpt_bigcode", "n_embd": 6144, "n_head": 48, "n_layer": 40},
            **{"n_inner": 24576, "n_positions": 8192, "vocab_size": 49152, "multi_query": True},
        },
        15.5175,
        2 * 128 * 40 * 2,
    ),
    ("dbrx", DBRX, 131.597, 2 * 8 * 128 * 40 * 2),
    ("step3", STEP3, 316.4, 2 * 256 * 61 * 2),
    (
        "MiniMax-Text-01",
        sizes("minimax_text_01", 6144, 80, 64, **MINIMAX, attn_type_list=EVERY_EIGHTH),
        456.09,
        2 * 8 * 128 * 10 * 2,
    ),
    (
        "MiniMax-Text-01-hf",
        sizes("minimax", 6144, 80, 64, **MINIMAX, layer_types=MINIMAX_TYPES),
        456.09,
        2 * 8 * 128 * 10 * 2,
    ),
    (
        "Hunyuan-A13B",
        sizes(
            *("hunyuan_v1_moe", 4096, 32, 32),
            num_key_value_heads=8,
            intermediate_size=3072,
            moe_intermediate_size=[3072] * 32,
            moe_topk=[8] * 32,
            num_experts=64,
            num_shared_expert=[1] * 32,
            vocab_size=128167,
            tie_word_embeddings=True,
        ),
        80.39,
        2 * 8 * 128 * 32 * 2,
    ),
    (
        "LongCat-Flash",
        {
            **sizes("longcat_flash", 6144, 28, 64, ffn_hidden_size=12288),
            **{"expert_ffn_hidden_size": 2048, "n_routed_experts": 512, "moe_topk": 12},
            **{"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
            **{"vocab_size": 131072},
        },
        560,
        56 * 576 * 2,
    ),
    (
        "MiniCPM3-4B",
        {
            **sizes("minicpm3", 2560, 62, 40, intermediate_size=6400, vocab_size=73448),
            **{"q_lora_rank": 768, "kv_lora_rank": 256},
            **{"qk_nope_head_dim": 64, "qk_rope_head_dim": 32},
        },
        4.07,
        # vLLM keeps 40 whole heads of 96, not the latent.
        2 * 40 * 96 * 62 * 2,
    ),
    (
        "mamba2-2.7b",
        {
            **{"model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 64},
            **{"num_heads": 80, "head_dim": 64, "state_size": 128, "vocab_size": 50288},
            **{"tie_word_embeddings": True},
        },
        2.702,
        0,
    ),
    (
        "falcon-mamba-7b",
        {
            **{"model_type": "falcon_mamba", "hidden_size": 4096, "num_hidden_layers": 64},
            **{"intermediate_size": 8192, "state_size": 16, "expand": 16, "time_step_rank": 256},
        },
        7.273,
        0,
    ),
    (
        "Falcon-H1-7B",
        sizes(
            *("falcon_h1", 3072, 44, 12),
            num_key_value_heads=2,
            head_dim=128,
            intermediate_size=12288,
            mamba_d_head=128,
            mamba_n_heads=24,
            mamba_d_state=256,
            vocab_size=130048,
        ),
        7.586,
        2 * 2 * 128 * 44 * 2,
    ),
    (
        "Bamba-9B",
        sizes(
            *("bamba", 4096, 32, 32),
            num_key_value_heads=8,
            attn_layer_indices=[9, 18, 27],
            intermediate_size=14336,
            mamba_d_head=64,
            mamba_n_heads=128,
            mamba_d_state=128,
            vocab_size=128256,
        ),
        9.78,
        2 * 8 * 128 * 3 * 2,
    ),
    (
        "chatglm3-6b",
        sizes(
            *("chatglm", 4096, 28, 32),
            architectures=["ChatGLMModel"],
            ffn_hidden_size=13696,
            multi_query_group_num=2,
            padded_vocab_size=65024,
            add_qkv_bias=True,
        ),
        6.2436,
        2 * 2 * 128 * 28 * 2,
    ),
    (
        "whisper-large-v3",
        {
            **{"model_type": "whisper", "d_model": 1280, "vocab_size": 51866},
            **{"decoder_layers": 32, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120},
            **{"encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120},
            **{"num_hidden_layers": 32, "max_target_positions": 448},
        },
        1.5435,
        # Its own tokens and the encoder's.
        2 * 2 * 1280 * 32 * 2,
    ),
    (
        "bge-m3",
        sizes(
            *("xlm-roberta", 1024, 24, 16),
            architectures=["XLMRobertaModel"],
            intermediate_size=4096,
            max_position_embeddings=8194,
            vocab_size=250002,
        ),
        0.568,
        0,
    ),
    (
        "SmolLM3-3B",
        sizes(
            *("smollm3", 2048, 36, 16),
            num_key_value_heads=4,
            intermediate_size=11008,
            vocab_size=128256,
        ),
        3.075,
        2 * 4 * 128 * 36 * 2,
    ),
    (
        "Apertus-8B",
        sizes(
            *("apertus", 4096, 32, 32),
            num_key_value_heads=8,
            intermediate_size=21504,
            vocab_size=131072,
        ),
        8.05,
        2 * 8 * 128 * 32 * 2,
    ),
]


@pytest.mark.parametrize(("config", "billions", "kv"), [case[1:] for case in CASES])
def test_parameters_are_as_published(config: dict[str, Any], billions: float, kv: int):
    model = parse_config(config)
    assert checkpoint_bytes(model) / model.dtype_bytes / 1e9 == pytest.approx(billions, rel=0.01)
    own = [layer.mixer for layer in model.layers if layer.own_kv]
    attentions = [mixer for mixer in own if isinstance(mixer, Attention)]
    assert sum(token_bytes(model, mixer, CacheOptions()) for mixer in attentions) == kv


def test_a_chat_model_has_a_head_and_an_embedding_model_has_none():
    config = sizes("llama", 4096, 1, 32, intermediate_size=11008, vocab_size=32000)
    named = {
        name: checkpoint_bytes(parse_config({**config, "architectures": [name]}))
        for name in ("LlamaForCausalLM", "InternVLChatModel", "QWenLMHeadModel", "LlamaModel")
    }
    head = 2 * 32000 * 4096
    whole = named["LlamaForCausalLM"]
    assert list(named.values()) == [whole, whole, whole, whole - head]


def test_the_limit_of_command_r_is_the_longer():
    config = sizes("cohere", 64, 1, 2, intermediate_size=64, vocab_size=64)
    config |= {"max_position_embeddings": 8192, "model_max_length": 131072}
    assert parse_config(config).context_limit_tokens == 131072
