"""LoRA adapters as tests need them: PEFT's files and GGUF files, whose numbers are zeros."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gguf_files import write_sparse

# Inputs and outputs of modules of Qwen2.5-14B.
HIDDEN = 5120
MODULES = {"self_attn.q_proj": (HIDDEN, 5120), "mlp.down_proj": (13824, HIDDEN)}


def peft(
    folder: Path,
    base: str = "Qwen/Qwen2.5-14B-Instruct",
    rank: int = 16,
    modules: Mapping[str, tuple[int, int]] = MODULES,
    layer: int = 0,
    **config: Any,
) -> Path:
    """A folder with PEFT's files."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": base} | config
    (folder / "adapter_config.json").write_text(json.dumps(about))
    header: dict[str, Any] = {}
    size = 0
    for name, (inputs, outputs) in modules.items():
        for half, shape in (("A", [rank, inputs]), ("B", [outputs, rank])):
            end = size + 2 * shape[0] * shape[1]
            whole = f"base_model.model.model.layers.{layer}.{name}.lora_{half}.weight"
            header[whole] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, end]}
            size = end
    text = json.dumps(header).encode()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    return folder


def gguf_adapter(
    path: Path, architecture: str = "llama", hidden: int = 64, rank: int = 4, **more: Any
) -> Path:
    """One GGUF file, of an adapter of the first layer's queries."""
    metadata = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    tensors = {
        "blk.0.attn_q.weight.lora_a": ((hidden, rank), "F32"),
        "blk.0.attn_q.weight.lora_b": ((rank, more.pop("outputs", 128)), "F32"),
    }
    return write_sparse(path, metadata | more, tensors)
