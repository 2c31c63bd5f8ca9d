"""The online rows of tests/data/measured-throughput.jsonl as inputs of the performance estimate.

The file holds the end-to-end measurements of a public collection that ran under a steady load, line
for line; five rows that their own source doubts are left out. Rows whose source varies the lengths
have nine tenths of the stated ones on the mean.
"""

import json
from functools import cache
from typing import Any

from roles.engine.engine import engine
from roles.engine.params import EngineParams, gpu_memory
from roles.hardware import Gpu, find_card
from roles.plan import Shape
from roles.topology.rates import gpu_rates
from tests.benchmarks.throughput_cases import DATA, Row, model_of

# The catalog's model of the same shape, and the quantisation that its config lacks.
FORMS = {
    ("Qwen/Qwen3-32B", None): ("Qwen/Qwen3-32B", None),
    ("Qwen/Qwen3-8B", "bf16"): ("Qwen/Qwen3-8B", None),
    ("Qwen/Qwen3-8B-FP8", "fp8"): ("Qwen/Qwen3-8B-FP8", None),
    ("QuantTrio/Qwen3-Coder-30B-A3B-Instruct-AWQ", "awq-int4"): (
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "awq",
    ),
    ("Qwen/Qwen3-Coder-Next-FP8", "fp8"): ("Qwen/Qwen3-Next-80B-A3B-Instruct-FP8", None),
    ("Qwen/Qwen3.5-122B-A10B-FP8", "fp8"): ("nvidia/Qwen3.5-122B-A10B-NVFP4", "fp8-block"),
    ("Qwen/Qwen3.5-397B-A17B", "bf16"): ("Qwen/Qwen3.5-397B-A17B", None),
    ("Qwen/Qwen3.5-397B-A17B", "fp8"): ("Qwen/Qwen3.5-397B-A17B", "fp8-block"),
    ("Qwen/Qwen3.5-397B-A17B", "fp4"): ("nvidia/Qwen3.5-397B-A17B-NVFP4", None),
    ("Qwen/Qwen3.6-27B-FP8", "fp8"): ("Qwen/Qwen3.6-27B", "fp8-block"),
    ("cyankiwi/Qwen3.6-27B-AWQ-INT4", "awq-int4"): ("Qwen/Qwen3.6-27B", "awq"),
    ("Qwen/Qwen3.6-35B-A3B", "bf16"): ("Qwen/Qwen3.6-35B-A3B", None),
    ("Qwen/Qwen3.6-35B-A3B-FP8", "fp8"): ("Qwen/Qwen3.5-35B-A3B-FP8", None),
    ("amd/Kimi-K2.5-MXFP4", "mxfp4"): ("nvidia/Kimi-K2.6-NVFP4", None),
    ("cpatonn/GLM-4.5-Air-AWQ-4bit", "awq-int4"): ("zai-org/GLM-4.5-Air", "awq"),
    ("deepseek-ai/DeepSeek-R1", "fp8"): ("deepseek-ai/DeepSeek-R1", None),
    ("deepseek-ai/DeepSeek-R1", "fp4"): ("nvidia/DeepSeek-V3.1-NVFP4", None),
    ("deepseek-ai/DeepSeek-R1-0528", "fp8"): ("deepseek-ai/DeepSeek-R1", None),
    ("ibnzterrell/Meta-Llama-3.3-70B-Instruct-AWQ-INT4", "awq-int4"): (
        "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
        None,
    ),
    ("meta-llama/Llama-3.1-70B", "fp8"): ("nvidia/Llama-3.1-70B-Instruct-FP8", None),
    ("meta-llama/Llama-3.1-70B", "fp4"): ("meta-llama/Llama-3.1-70B", "nvfp4"),
    ("moonshotai/Kimi-K2.5", "int4"): ("moonshotai/Kimi-K2.5", None),
    ("moonshotai/Kimi-K2.5", "fp4"): ("nvidia/Kimi-K2.6-NVFP4", None),
    ("nvidia/Kimi-K2.5-NVFP4", "nvfp4"): ("nvidia/Kimi-K2.6-NVFP4", None),
    ("openai/gpt-oss-120b", "fp4"): ("openai/gpt-oss-120b", None),
    ("openai/gpt-oss-120b", "mxfp4"): ("openai/gpt-oss-120b", None),
}
# Editions of one card, and a name that leaves the edition open.
CARDS = {"NVIDIA RTX PRO 6000 Blackwell": "NVIDIA RTX PRO 6000 Blackwell Server Edition"}
VARIED_LENGTHS = "random 80-100%, mean 0.9x"


def measured_rows(engine_kind: str = "vllm") -> list[Row]:
    """The rows of one engine with tensor or pipeline parallel replicas of a known model."""
    lines = (DATA / "measured-throughput.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return [_row(row) for row in read if row["engine"] == engine_kind and _is_usable(row)]


def _is_usable(row: dict[str, Any]) -> bool:
    known = (row["model"], row.get("precision")) in FORMS
    doubted = "suspiciously" in row.get("note", "")
    return known and row["expert_parallel_size"] == 1 and not doubted


def _row(row: dict[str, Any]) -> Row:
    name, quantization = FORMS[row["model"], row.get("precision")]
    gpu = str(CARDS.get(row["gpu"], row["gpu"]))
    part = 0.9 if row["lengths"] == VARIED_LENGTHS else 1.0
    input_tokens = max(1, round(row["input_tokens"] * part))
    output_tokens = max(1, round(row["output_tokens"] * part))
    tensor, stages = row["tensor_parallel_size"], row["pipeline_parallel_size"]
    gpus = row["replicas"] * tensor * stages
    return Row(
        gpu=gpu,
        links=_links(row, gpu),
        model=name,
        quantization=quantization,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=stages,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency_per_gpu=row["concurrency"] / gpus,
        tokens_per_s_per_gpu=row["output_tokens_per_s"] / gpus,
        ttft_ms=row["ttft_ms"],
        tpot_ms=row["tpot_ms"],
        batch_limit=_batch_limit(
            row["engine"], name, quantization, gpu, tensor, stages, input_tokens, output_tokens
        ),
        setup=f"{row['source']} {row.get('engine_version')}",
    )


def _links(row: dict[str, Any], gpu: str) -> Any:
    rates = gpu_rates(Gpu(0, gpu, 0))
    return "nvlink" if row.get("links") != "pcie" and rates and rates.nvlink_gb_s else "pcie"


@cache
def _batch_limit(
    kind: str,
    name: str,
    quantization: str | None,
    gpu: str,
    tensor: int,
    stages: int,
    input_tokens: int,
    output_tokens: int,
) -> int:
    """The requests that the KV cache holds and the engine's default allows."""
    card = find_card(gpu)
    memory = gpu_memory(Gpu(0, gpu, card.memory_mib or 0 if card else 0))
    # Who measures gives vLLM more of the memory than its default; SGLang's is by the card.
    share = 0.95 if kind == "vllm" else None
    params = EngineParams(max_model_len=2 * (input_tokens + output_tokens), utilization=share)
    own, shape = engine(kind), Shape(tensor, stages)
    found = own.memory(model_of(name, quantization), (memory,) * shape.gpus, shape, params)
    held = found.kv_tokens / (input_tokens + output_tokens / 2)
    return max(1, min(own.batch(memory, params, params.max_model_len or 1)[1], int(held)))
