"""Real starts of vLLM (tests/data/vllm-startup-memory.jsonl) as cases of `predict`.

What a row's own text says against comparing it is kept with it as a reason.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roles.engine.vllm.engine_versions import parse_version

DATA = Path(__file__).parents[1] / "data"
_CONFIGS = DATA / "model-configs"
# A start that did not fail for memory, and those that did.
STARTED, OUT_OF_MEMORY = "ok", ("oom_load", "oom_profile", "oom_kv", "oom_after_kv")
# What a name says of a checkpoint's quantisation where its config was not found.
_METHODS = (
    ("w8a8", "int8"),
    ("w4a16", "w4a16"),
    ("nvfp4", "nvfp4"),
    ("fp8", "fp8"),
    ("awq", "awq"),
    ("bnb-4bit", "bitsandbytes"),
    ("int4", "int4"),
)
# Words of a row's notes or quote, and why the row says nothing of a plain start.
_TEXT_REASONS = (
    ("lora", "more was loaded: LoRA"),
    ("medusa", "more was loaded: a speculative model"),
    (r"\bmtp\b", "more was loaded: a speculative model"),
    ("quantised or partial model", "the row doubts its model"),
    ("rank-specific", "weights of one rank of many, not said which"),
    ("not implemented", "an engine that ignored what it was told"),
    ("other process|another process|second instance", "foreign memory on the GPU"),
    ("on startup is less than desired", "foreign memory on the GPU"),
    ("sleep-mode the profile is wrong", "fault of the engine"),
    ("no credit in this check|bug report", "fault of the engine"),
    ("unusually large", "a profile that the row itself calls unusual"),
    ("approximate", "figures that the row calls approximate"),
    ("rounded", "figures that the row calls rounded"),
    ("total over 8", "the sum of several engines"),
    ("decode-context-parallel", "decode context parallel, which is no field of the row"),
    ("kv the min", "memory of one rank and tokens of another"),
    ("ranks report|^ranks|tp16xpp2", "figures of different ranks"),
    ("mamba state cache", "state cache that the engine did not profile"),
    ("title says", "contradicts itself"),
    ("partition=", "layers cut by hand, over unequal GPUs"),
)
_V0 = re.compile(r"\bV0\b|VLLM_USE_V1=0")


@dataclass(frozen=True)
class Row:
    """One start: as recorded, the config that its model has, and what speaks against it."""

    fields: dict[str, Any]
    config: dict[str, Any] | None
    quantization: str | None
    reason: str | None

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def cpu_offload_gib(self) -> float | None:
        """Weights kept in the host's memory, as the notes say."""
        printed = re.search(r"cpu.offload.gb[= ](\d+)", str(self["notes"]))
        return float(printed[1]) if printed else None

    @property
    def case(self) -> dict[str, Any]:
        """The row as a line of `predict`."""
        same = ("id", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        same += ("enable_expert_parallel", "max_model_len", "gpu_memory_utilization")
        same += ("max_num_seqs", "max_num_batched_tokens", "enforce_eager", "kv_cache_dtype")
        dtype = {"fp16": "float16"}.get(self["dtype"], self["dtype"])
        return {
            **{name: self[name] for name in same},
            "config": self.config,
            "quantization": self.quantization,
            "dtype": dtype,
            "engine_version": self["vllm_version"],
            "cpu_offload_gib": self.cpu_offload_gib,
            "gpu": {"name": self["gpu_model"], "memory_gib": self["gpu_mem_gib"]},
        }


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in their order."""
    lines = (DATA / "vllm-startup-memory.jsonl").read_text().splitlines()
    return tuple(_row(json.loads(line)) for line in lines)


def _row(fields: dict[str, Any]) -> Row:
    known = _index().get(fields["model_id"])
    if known is None:
        return Row(fields, None, fields["quantization"], "its model's config is not known")
    config = json.loads((_CONFIGS / known["file"]).read_text())
    quantization = fields["quantization"]
    reason = _reason(fields) or _config_reason(known)
    if known["relation"] != "exact":
        name = fields["model_id"].lower()
        quantization = quantization or next((m for word, m in _METHODS if word in name), None)
        if not quantization or not _is_of(config, quantization):
            config.pop("quantization_config", None)
        if size := re.search(r"use intermediate_size (\d+)", known["note"]):
            config["intermediate_size"] = int(size[1])
    return Row(fields, config, quantization, reason)


def _foreign_gib(quote: str) -> float:
    """What others hold where a failed allocation says total and own memory."""
    printed = re.search(r"([\d.]+) GiB total capacity; ([\d.]+) GiB already allocated", quote)
    return float(printed[1]) - float(printed[2]) if printed else 0.0


def _is_of(config: dict[str, Any], quantization: str) -> bool:
    """Whether a config's quantisation is the one told."""
    method = str(config.get("quantization_config", {}).get("quant_method"))
    return method == "compressed-tensors" or method in quantization or quantization in method


def _reason(fields: dict[str, Any]) -> str | None:
    if fields["outcome"] == "oom_after_kv" and _released(fields) < (0, 21):
        return "fault of the engine: what it took after the KV cache was no part of its sum"
    if _foreign_gib(fields["quote"]) > 2:
        return "foreign memory on the GPU"
    text = " ".join(str(fields[name] or "") for name in ("quote", "notes")).lower()
    for pattern, reason in _TEXT_REASONS:
        if re.search(pattern, text):
            return reason
    if not fields["vllm_version"] and str(fields["date"] or "2026") < "2025":
        return "an old engine by its date, its version is not said"
    if (fields["vllm_version"] or "").startswith("0.8") and _V0.search(str(fields["notes"])):
        return "an engine told to be the old V0"
    return None


def _released(fields: dict[str, Any]) -> tuple[int, ...]:
    return parse_version(fields["vllm_version"])


def _config_reason(known: dict[str, Any]) -> str | None:
    """Why the config found is not the model's own."""
    note = known["note"]
    if known["relation"] != "sibling":
        return None
    if re.search(r"only|no lm_head|differ|not verified|not in text|image_size", note):
        return f"the config found is another model's: {note}"
    return None


@cache
def _index() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in (_CONFIGS / "index.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "hf_quant" not in entry["file"]:
            found.setdefault(entry["model_id"], entry)
    return found
