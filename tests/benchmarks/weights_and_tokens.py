"""How near weights and tokens come to what real vLLM start-ups reported.

`python -m tests.benchmarks.weights_and_tokens` prints medians, quantiles, the cases that are off
and those left out, over tests/data/vllm-startup-memory.jsonl.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roles.models import Model, kv_tokens, parse_config, weights_per_gpu

DATA = Path(__file__).parents[1] / "data"
GIB = 2**30
Row = dict[str, Any]

# What a row's figure is not comparable for; the cause is in the row's notes or its config's.
LEFT_OUT_WEIGHTS = {
    "vm0058": "that version did not split Mixtral into pipeline stages",
    "vm0093": "a third of the model's bytes: another checkpoint than the one named",
    "vm0100": "30 GB of weights were offloaded to the CPU",
    "vm0142": "with LoRA adapters",
    "vm0173": "the config found has no vision tower",
    "vm0198": "the config found has no vision tower",
    "vm0199": "the config found has no vision tower",
    "vm0252": "with an MTP drafter; which layers are quantised is not known",
    "vm0267": "the config found has no vision tower",
    "vm0300": "the config found has no vision tower",
}
LEFT_OUT_TOKENS = {
    "vm0100": "vLLM 0.7 padded latents to 640 numbers",
    "vm0182": "the available memory is of another stage than the tokens",
    "vm0183": "the available memory is of another stage than the tokens",
    "vm0250": "DeepSeek V4's compressed caches are not modelled; the figure is rounded",
    "vm0252": "with an MTP drafter",
}
EMBEDDING_MODELS = ("e5-mistral", "SFR-Embedding")
# What a quantised checkpoint is, by what its id or the row says; the first that matches.
METHODS = (
    (r"w8a8", "int8"),
    (r"w4a16", "w4a16"),
    (r"fp8-dynamic", "fp8-dynamic"),
    (r"nvfp4", "nvfp4"),
    (r"awq", "awq"),
    (r"q8_0", "q8_0"),
    (r"q4_k_m", "q4_k_m"),
    (r"^qwen/.*-fp8 ", "fp8-block"),
    (r"^meta-llama/.*-fp8 ", "fbgemm_fp8"),
    (r"fp8", "fp8"),
    (r"gptq", "gptq"),
    (r"bitsandbytes|bnb", "bitsandbytes"),
    (r"experts_int8", "experts_int8"),
    (r"int4", "int4"),
)


@dataclass(frozen=True)
class Case:
    """One comparison: what was reported, what is predicted."""

    row: Row
    what: str
    reported: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error, negative where the prediction is too low."""
        return self.predicted / self.reported - 1


def rows() -> Iterator[Row]:
    """The start-ups, as gathered."""
    for line in (DATA / "vllm-startup-memory.jsonl").read_text().splitlines():
        yield json.loads(line)


@cache
def _index() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for line in (DATA / "model-configs" / "index.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] != "hf_quant":
            found.setdefault(entry["model_id"], entry)
    return found


def model_of(row: Row) -> Model | None:
    """The model of a row; None where no config of it is known."""
    name = row["model_id"]
    return None if name not in _index() else _model(name, _method(row))


def _method(row: Row) -> str | None:
    text = f"{row['model_id']} {row['quantization'] or ''}".lower()
    return next((method for pattern, method in METHODS if re.search(pattern, text)), None)


@cache
def _model(name: str, method: str | None) -> Model:
    entry = _index()[name]
    path = DATA / "model-configs" / entry["file"]
    config = json.loads(path.read_text())
    base = entry["relation"] == "base_of_quantised"
    hf_quant = path.with_suffix(".hf_quant.json")
    printed = json.loads(hf_quant.read_text()) if hf_quant.is_file() and not base else None
    if (base and method) or "unquantised" in entry["note"] or "ignore its" in entry["note"]:
        config.pop("quantization_config", None)
        config.get("text_config", {}).pop("quantization_config", None)
    if "use intermediate_size 29568" in entry["note"]:
        config["intermediate_size"] = 29568
    if any(part in name for part in EMBEDDING_MODELS):
        config["architectures"] = ["MistralModel"]
    return parse_config(config, model_id=name, quantization=method, hf_quant=printed)


def weights_cases() -> Iterator[Case]:
    """Weights of a GPU in GiB; with stages, of the stage that is nearest: which rank spoke is not
    known."""
    for row in rows():
        if row["weights_gib"] is None or row["id"] in LEFT_OUT_WEIGHTS:
            continue
        model = model_of(row)
        if model is None:
            continue
        stages = row["pipeline_parallel_size"] or 1
        found = [
            weights_per_gpu(
                model,
                row["tensor_parallel_size"] or 1,
                stages,
                stage,
                expert_parallel=bool(row["enable_expert_parallel"]),
                data_parallel_size=row["data_parallel_size"] or 1,
            )
            / GIB
            for stage in range(stages)
        ]
        reported = row["weights_gib"]
        yield Case(row, "weights", reported, min(found, key=lambda gib: abs(gib - reported)))


def _version(row: Row) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", row["vllm_version"] or "")
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _step_tokens(row: Row) -> int:
    if row["max_num_batched_tokens"]:
        return row["max_num_batched_tokens"]
    name = str(row["gpu_model"])
    if re.search(r"B200|B300|MI3|19\d\.\d+ GiB", name):
        return 16384
    return 8192 if re.search(r"H100|H200|H800|H20\b", name) else 2048


def tokens_cases() -> Iterator[Case]:
    """Printed tokens and concurrency from the printed available memory.

    Where a row does not say its version, the nearer of vLLM's two ways to count is taken.
    """
    for row in rows():
        available, model = row["available_kv_gib"], model_of(row)
        if not available or available < 0 or model is None or row["id"] in LEFT_OUT_TOKENS:
            continue
        dcp = re.search(r"decode-context-parallel-size (\d+)", row["notes"] or "")
        known = _version(row)
        counts = [
            kv_tokens(
                model,
                int(available * GIB),
                max_model_len=row["max_model_len"] or model.context_limit_tokens,
                tensor_parallel_size=row["tensor_parallel_size"] or 1,
                pipeline_parallel_size=row["pipeline_parallel_size"] or 1,
                kv_cache_dtype=row["kv_cache_dtype"] or "auto",
                max_num_batched_tokens=_step_tokens(row),
                decode_context_parallel_size=int(dcp[1]) if dcp else 1,
                engine_version=version,
            )
            for version in ((known,) if known else ((0, 20), (0, 33)))
        ]
        for what, key in (("tokens", "kv_cache_tokens"), ("concurrency", "max_concurrency")):
            if reported := row[key]:
                found = [
                    float(count.tokens if what == "tokens" else count.max_concurrency)
                    for count in counts
                ]
                nearest = min(found, key=lambda value: abs(value - reported))
                yield Case(row, what, reported, nearest)


def quantile(cases: list[Case], share: float) -> float:
    """The absolute relative error that `share` of the cases stay within."""
    errors = sorted(abs(case.error) for case in cases)
    return errors[min(len(errors) - 1, int(len(errors) * share))]


def main() -> int:
    """Print the report."""
    for title, cases, left_out, off in (
        ("weights of a GPU", list(weights_cases()), LEFT_OUT_WEIGHTS, 0.03),
        ("tokens and concurrency", list(tokens_cases()), LEFT_OUT_TOKENS, 0.01),
    ):
        print(f"{title}: {len(cases)} cases")
        print(f"  median error {quantile(cases, 0.5):.3%}, nine of ten {quantile(cases, 0.9):.2%}")
        for case in sorted(cases, key=lambda case: -abs(case.error)):
            if abs(case.error) > off:
                row = case.row
                print(
                    f"  off {case.error:+.1%}: {row['id']} {row['model_id']} {case.what} "
                    f"{case.reported} reported, {case.predicted:.4g} predicted"
                )
        for name, why in left_out.items():
            print(f"  left out: {name}: {why}")
    unknown = [row for row in rows() if model_of(row) is None]
    print(f"without a config: {len(unknown)} rows: {', '.join(row['id'] for row in unknown)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
