"""A LoRA adapter in a local folder (PEFT's files) or in one GGUF file, and whether it is made for a
model.

Sources: PEFT's adapter_config.json and names of tensors; llama.cpp b11434 `src/llama-adapter.cpp`.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from roles.host import open_file, path_exists, read_bytes
from roles.models import checkpoint
from roles.models.config_keys import is_integer_between, short_repr
from roles.models.gguf import Header, read_header
from roles.models.model import Model, Weight

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# vLLM takes no higher rank (`--max-lora-rank`).
MAX_RANK = 512
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,5})\.")
_BLOCK = re.compile(r"^blk\.(\d{1,5})\.")
# Modules that read the hidden state, and that write it.
_READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "attn_q", "attn_k", "attn_v")
_WRITERS = ("o_proj", "down_proj", "attn_output", "ffn_down")
# What quantised copies of a model are called.
_COPY = re.compile(r"(-unsloth)?-bnb-4bit$|-(awq|gptq|fp8|gguf)(-.*)?$", re.IGNORECASE)
# Bytes of a number as engines keep adapters: in the model's own type of 16 bits.
NUMBER_BYTES = 2


@dataclass(frozen=True)
class Matrix:
    """One half of what an adapter adds to a module: `first` is the one that reads."""

    module: str
    first: bool
    outputs: int
    inputs: int
    layer: int | None


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its files with their SHA-256, its rank, and what it says of its base.

    `base` is the name of the model that it was trained on, "" where its files do not say.
    `architecture` is llama.cpp's name, "" for PEFT's files.
    """

    format: Literal["peft", "gguf"]
    files: tuple[tuple[Path, str], ...]
    rank: int
    bytes: int
    base: str
    architecture: str
    matrices: tuple[Matrix, ...]

    @property
    def digest(self) -> str:
        """A name for exactly these files."""
        lines = [f"{path.name} {digest}" for path, digest in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_adapter(path: Path) -> Adapter:
    """The adapter in a folder or a GGUF file; ValueError says what is wrong with it."""
    names = [path] if path.suffix == ".gguf" else [path / CONFIG, path / WEIGHTS]
    for name in names:
        if not path_exists(name):
            raise ValueError(f"{name} is not there; name a folder with PEFT's files, or a .gguf")
    stats = tuple((name, (facts := os.stat(name)).st_size, facts.st_mtime_ns) for name in names)
    return _read(path, stats)


# A plan reads the same files many times, and hashing takes a second a gigabyte.
@lru_cache(maxsize=64)
def _read(path: Path, stats: tuple[tuple[Path, int, int], ...]) -> Adapter:
    files = tuple((name, _digest(name)) for name, _, _ in stats)
    return _gguf(path, files) if path.suffix == ".gguf" else _peft(path, files)


def _digest(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _peft(folder: Path, files: tuple[tuple[Path, str], ...]) -> Adapter:
    where = str(folder / CONFIG)
    config = checkpoint.read_mapping(read_bytes(folder / CONFIG), where)
    for key, wanted in (("peft_type", ("LORA",)), ("use_dora", (None, False)),
                        ("bias", (None, "none")), ("modules_to_save", (None, []))):  # fmt: skip
        if (found := config.get(key)) not in wanted:
            raise ValueError(
                f"{where}: {key} is {short_repr(found)}, which engines do not serve; train plain "
                "LoRA without it"
            )
    base = config.get("base_model_name_or_path") or ""
    if not isinstance(base, str):
        raise ValueError(
            f"{where}: base_model_name_or_path is {short_repr(base)}; it is the name of the model"
        )
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, Mapping):
        raise ValueError(f"{where}: rank_pattern is {short_repr(pattern)}, not a mapping")
    ranks = [config.get("r"), *pattern.values()]
    for rank in ranks:
        if not is_integer_between(rank, 1, MAX_RANK):
            raise ValueError(f"{where}: the rank is {short_repr(rank)}; it is from 1 to {MAX_RANK}")
    matrices, size = _tensors(folder / WEIGHTS)
    return Adapter(
        *("peft", files, max(int(rank or 0) for rank in ranks), size),
        base=base,
        architecture="",
        matrices=matrices,
    )


def _tensors(path: Path) -> tuple[tuple[Matrix, ...], int]:
    """The matrices in a safetensors file, and the bytes of all."""
    with open_file(path) as file:
        size = checkpoint.header_size(file.read(8), str(path))
        header = file.read(size)
        data_bytes = os.fstat(file.fileno()).st_size - 8 - size
    total = checkpoint.header_bytes(header, str(path), max(0, data_bytes))
    return tuple(_matrices(checkpoint.read_mapping(header, str(path)))), total


def _matrices(header: Mapping[str, Any]) -> Iterator[Matrix]:
    for name, tensor in header.items():
        half = re.search(r"\.([A-Za-z0-9_]+)\.lora_([AB])(\.[a-z]+)?\.weight$", name)
        if half is None or len(tensor.get("shape", ())) != 2:
            continue
        layer = _LAYER.search(name)
        outputs, inputs = tensor["shape"]
        yield Matrix(half[1], half[2] == "A", outputs, inputs, int(layer[1]) if layer else None)


def _gguf(path: Path, files: tuple[tuple[Path, str], ...]) -> Adapter:
    with open_file(path) as file:
        header = read_header(file, str(path), os.fstat(file.fileno()).st_size)
    kind = (header.metadata.get("general.type"), header.metadata.get("adapter.type"))
    if kind != ("adapter", "lora"):
        raise ValueError(
            f"{path} is no LoRA adapter; make one by llama.cpp's convert_lora_to_gguf.py"
        )
    matrices = tuple(_gguf_matrices(header))
    ranks = [one.outputs if one.first else one.inputs for one in matrices]
    return Adapter(
        *("gguf", files, max(ranks, default=0), header.bytes),
        base=str(header.metadata.get("general.base_model.0.name") or ""),
        architecture=str(header.metadata.get("general.architecture") or ""),
        matrices=matrices,
    )


def _gguf_matrices(header: Header) -> Iterator[Matrix]:
    for tensor in header.tensors:
        half = re.search(r"\.?([a-z0-9_]+)\.weight\.lora_([ab])$", tensor.name)
        if half is None or len(tensor.sizes) != 2:
            continue
        block, (inputs, outputs) = _BLOCK.match(tensor.name), tensor.sizes
        yield Matrix(half[1], half[2] == "a", outputs, inputs, int(block[1]) if block else None)


def adapter_problem(adapter: Adapter, model: Model) -> str | None:
    """Why an adapter is not made for a model; None if it is, as far as its files tell."""
    if (adapter.format == "gguf") != (model.format == "gguf"):
        needed = "a .gguf adapter" if model.format == "gguf" else "a folder with PEFT's files"
        return f"the model's files are {model.format}: they need {needed}"
    if not adapter.matrices:
        return "it has no matrices of LoRA (…lora_A.weight); its files are those of another kind"
    if adapter.architecture and model.gguf and adapter.architecture != model.gguf.architecture:
        return f"it is for {adapter.architecture}, and the model is {model.gguf.architecture}"
    return _wrong_shape(adapter, model) or _wrong_base(adapter, model)


def _wrong_base(adapter: Adapter, model: Model) -> str | None:
    """That it names another model; a folder, or a copy under another owner, says nothing."""
    base = adapter.base.rstrip("/")
    if adapter.format == "gguf" or base.count("/") != 1 or base.startswith((".", "~")):
        return None
    if _plain(base) in {_plain(name) for name in (model.id, model.variant_of or "")}:
        return None
    return (
        f"it was trained on {base}, and the model is {model.id}; name its own, or correct "
        f"base_model_name_or_path in its {CONFIG}"
    )


def _plain(name: str) -> str:
    return _COPY.sub("", name.rpartition("/")[2]).lower()


def _wrong_shape(adapter: Adapter, model: Model) -> str | None:
    hidden, layers = model.hidden_size, len(model.layers)
    for one in adapter.matrices:
        if one.layer is not None and one.layer >= layers:
            return f"it is for layer {one.layer}, and the model has {layers}"
        rank = one.outputs if one.first else one.inputs
        if rank > adapter.rank:
            return f"{one.module} has rank {rank}, and its {CONFIG} says {adapter.rank}"
        read = one.inputs if one.first and one.module in _READERS else hidden
        written = one.outputs if not one.first and one.module in _WRITERS else hidden
        if (wrong := read if read != hidden else written) != hidden:
            return f"its {one.module} is for a hidden size of {wrong}, and the model has {hidden}"
    return None


def adapter_bytes(
    model: Model, rank: int, tensor_parallel: int, layers: range | None = None
) -> int:
    """Bytes on a GPU for one adapter of a rank on every matrix of some layers, all unless said.

    Source: vLLM 0.33 `lora/layers/` (create_lora_weights): for each matrix r × inputs and outputs
    × r numbers in 16 bits, whatever the adapter has; a matrix that is split by outputs keeps all of
    the first half on each GPU, one that is split by inputs all of the second. A fused matrix has a
    first half for each of its parts. SGLang 0.5.23 (`lora/mem_pool.py`) keeps the same of the
    adapters' own modules.
    """
    chosen = layers if layers is not None else range(len(model.layers))
    # Most layers are the same object.
    known: dict[int, float] = {}
    for index in chosen:
        layer = model.layers[index]
        if id(layer) not in known:
            known[id(layer)] = sum(_added(one, tensor_parallel) for one in layer.weights)
    return math.ceil(rank * NUMBER_BYTES * sum(known[id(model.layers[index])] for index in chosen))


def _added(weight: Weight, parts: int) -> float:
    """Numbers that a rank of one adds to a tensor on a GPU."""
    outputs, inputs = weight.outputs + weight.kv_outputs, weight.inputs
    if min(outputs, inputs) < 2 or weight.name.endswith("absorbed"):
        return 0
    fused = 3 if weight.kv_outputs else 2 if weight.name.endswith("gate_up_proj") else 1
    read = inputs / parts if weight.split == "inputs" else inputs
    written = outputs / parts if weight.split == "outputs" else outputs
    return max(1, weight.experts) * (fused * read + written)
