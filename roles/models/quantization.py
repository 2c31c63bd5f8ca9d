"""The storage formats of a checkpoint: reads `quantization_config` of config.json as vLLM does.

Sources: vLLM 0.33 `model_executor/layers/quantization/` (what each method allocates).
"""

from collections.abc import Mapping
from typing import Any

from roles.models.config_keys import check_quantization
from roles.models.linear_formats import Formats
from roles.models.model import Format, Quantization

FP8_TENSOR = Format("fp8", 8, 0, 0, 4)
FP8_CHANNEL = Format("fp8-channel", 8, 1, 0, 4)
INT8_CHANNEL = Format("int8", 8, 1, 0, 4)
# Integers of which only the weights are quantised: activations keep 16 bits.
INT8_WEIGHTS = Format("int8-weights", 8, 1, 0, 4)
EXPERTS_INT8 = Format("experts-int8", 8, 1, 0, 4)
MXFP4 = Format("mxfp4", 4, 1, 32, 1)
MXFP8 = Format("mxfp8", 8, 1, 32, 1)
NVFP4 = Format("nvfp4", 4, 1, 16, 1)
# NF4: a float32 maximum for each 64 numbers.
NF4 = Format("nf4", 4, 1, 64, 4)

# Bits a weight of llama.cpp's types, scales included (ggml block sizes and bytes).
GGUF_BITS: Mapping[str, float] = {
    "f32": 32,
    "f16": 16,
    "bf16": 16,
    "q8_0": 8.5,
    "q6_k": 6.5625,
    "q5_k": 5.5,
    "q5_0": 5.5,
    "q5_1": 6,
    "q4_k": 4.5,
    "q4_0": 4.5,
    "q4_1": 5,
    "q3_k": 3.4375,
    "q2_k": 2.625,
    "iq4_xs": 4.25,
    "iq4_nl": 4.5,
    # The mixtures that files are named by, over a whole Llama-like model (llama.cpp's quantize).
    "q5_k_m": 5.69,
    "q5_k_s": 5.54,
    "q4_k_m": 4.85,
    "q4_k_s": 4.58,
    "q3_k_l": 4.27,
    "q3_k_m": 3.91,
    "q3_k_s": 3.5,
}
# vLLM's own names, and what people write.
METHODS = (
    "awq",
    "awq_marlin",
    "gptq",
    "gptq_marlin",
    "auto_round",
    "fp8",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "modelopt",
    "compressed-tensors",
    "bitsandbytes",
    "experts_int8",
    "int8",
    "gguf",
)
# Modules that published checkpoints of a method do not quantise, if only its name is known.
_USUALLY_IGNORED: Mapping[str, tuple[str, ...]] = {
    "fbgemm-fp8": ("self_attn", "shared_experts"),
    "nvfp4": ("linear_attn", "self_attn"),
}


def fp8_block(outputs: int, inputs: int) -> Format:
    """FP8 with a float32 scale for each block."""
    return Format("fp8-block", 8, outputs, inputs, 4)


def int4_group(group: int, *, zeros: bool, name: str = "int4", scale_bytes: int = 2) -> Format:
    """Int4 with a 16-bit scale, and optionally a 4-bit zero point, for each group of inputs."""
    return Format(name, 4, 1, 0 if group <= 0 else group, scale_bytes + 0.5 * zeros)


def read_quantization(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, requested: str | None
) -> Formats:
    """The formats of a checkpoint, or of the `requested` method for an unquantised one.

    ValueError for a method that vLLM does not have, and for an invalid value.
    """
    if hf_quant:
        values = hf_quant.get("quantization", hf_quant)
        check_quantization(values, "quantization of hf_quant_config.json: ")
        return _modelopt(values)
    if config:
        check_quantization(config, "quantization_config.")
        return _from_config(config)
    return _online(requested) if requested else Formats()


def _from_config(config: Mapping[str, Any]) -> Formats:
    method = str(config.get("quant_method") or config.get("quant_algo") or "").lower()
    if "quant_algo" in config and (
        method.startswith("modelopt") or not config.get("config_groups")
    ):
        return _modelopt(config)
    if method in ("compressed-tensors", "modelopt") or "config_groups" in config:
        return _groups(config)
    ignored = _ignored(config)
    bits = config.get("bits") or config.get("w_bit") or 4
    group = int(config.get("group_size") or config.get("q_group_size") or 128)
    match method:
        case "fp8":
            block = config.get("weight_block_size")
            linear = fp8_block(int(block[0]), int(block[1])) if block else FP8_TENSOR
            if config.get("expert_dtype") == "fp4":
                # DeepSeek V4 states outside its quantization_config that experts are FP4.
                groups = ((("re:.*\\.experts(\\.|$)",), MXFP4), (("Linear",), linear))
                return Formats(Quantization(method, linear, ignored), groups)
        case "fbgemm_fp8" | "ptpc_fp8":
            linear = FP8_CHANNEL
        case "awq" | "awq_marlin":
            linear = int4_group(group, zeros=True, name="awq")
        case "gptq" | "gptq_marlin" | "auto_round" | "auto-round" | "intel/auto-round":
            linear = _gptq(bits, group, bool(config.get("sym", True)))
        case "mxfp4":
            kept = Quantization("mxfp4", MXFP4, ignored, experts_only=True)
            return Formats(kept, (((("Linear",)), MXFP4),))
        case "bitsandbytes":
            linear = FP8_TENSOR if config.get("load_in_8bit") else NF4
        case _:
            return _online(method)
    return _uniform(method, linear, ignored)


def _gptq(bits: int, group: int, symmetric: bool) -> Format:
    if bits == 8:
        return Format("gptq-int8", 8, 1, 0 if group <= 0 else group, 2)
    return int4_group(group, zeros=not symmetric, name="gptq")


def _uniform(method: str, linear: Format, ignored: tuple[str, ...] = (), **more: Any) -> Formats:
    return Formats(Quantization(method, linear, ignored, **more), ((("Linear",), linear),))


def _ignored(config: Mapping[str, Any]) -> tuple[str, ...]:
    for key in ("ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers"):
        if config.get(key):
            return tuple(str(name) for name in config[key])
    return ()


def _online(method: str) -> Formats:
    """The formats of an unquantised checkpoint that vLLM quantises, or of a method known by name
    only."""
    name = method.lower().replace("_", "-").split("/")[-1]
    kind = name.replace("-marlin", "").split(" ")[0]
    if kind.startswith("gguf") or kind.startswith("q") or kind.startswith("iq"):
        return _gguf(method)
    linear = {
        "fp8": FP8_TENSOR,
        "fp8-dynamic": FP8_CHANNEL,
        "fp8-block": fp8_block(128, 128),
        "fbgemm-fp8": FP8_CHANNEL,
        "int8": INT8_CHANNEL,
        "w8a8": INT8_CHANNEL,
        "w4a16": int4_group(128, zeros=False),
        "int4": int4_group(128, zeros=False),
        "awq": int4_group(128, zeros=True, name="awq"),
        "awq-int4": int4_group(128, zeros=True, name="awq"),
        "gptq": int4_group(128, zeros=False, name="gptq"),
        "auto-round": int4_group(128, zeros=False, name="gptq"),
        "compressed-tensors": FP8_CHANNEL,
        "bitsandbytes": NF4,
        "mxfp4": MXFP4,
        "mxfp8": MXFP8,
        "nvfp4": NVFP4,
        "modelopt": FP8_TENSOR,
        "modelopt-fp4": NVFP4,
        "experts-int8": EXPERTS_INT8,
    }.get(kind)
    if linear is None:
        raise ValueError(
            f"quantization: unknown quantisation {method[:60]!r}; use one of {', '.join(METHODS)}"
        )
    ignored = _USUALLY_IGNORED.get(kind, ())
    return _uniform(kind, linear, ignored, experts_only=kind in ("mxfp4", "experts-int8"))


def _gguf(method: str) -> Formats:
    kind = method.lower().replace("gguf", "").strip(" -_") or "q4_k_m"
    bits = GGUF_BITS.get(kind)
    if bits is None:
        raise ValueError(
            f"quantization: unknown GGUF type {kind[:60]!r}; use one of {', '.join(GGUF_BITS)}"
        )
    format = Format(f"gguf-{kind}", bits)
    # llama.cpp quantises the embeddings too.
    made = _uniform("gguf", format)
    return Formats(made.quantization, made.groups, head=format)


def _modelopt(config: Mapping[str, Any]) -> Formats:
    """NVIDIA ModelOpt's hf_quant_config.json."""
    ignored = _ignored(config)
    kv = _kv_dtype(config.get("kv_cache_quant_algo"))
    layers = config.get("quantized_layers")
    if isinstance(layers, Mapping) and layers:
        groups = tuple(
            ((str(name),), _algorithm(str(layer.get("quant_algo"))))
            for name, layer in layers.items()
        )
        kept = Quantization("modelopt", groups[0][1], ignored, kv_cache_dtype=kv)
        return Formats(kept, groups)
    linear = _algorithm(str(config.get("quant_algo")))
    return _uniform("modelopt", linear, ignored, kv_cache_dtype=kv)


def _algorithm(name: str) -> Format:
    upper = name.upper()
    if "NVFP4" in upper:
        return NVFP4
    if "MXFP8" in upper:
        return MXFP8
    if "MXFP4" in upper:
        return MXFP4
    if "PER_CHANNEL" in upper or "PB_WO" in upper:
        return FP8_CHANNEL
    if "FP8" in upper:
        return FP8_TENSOR
    if "INT8" in upper or "W8A8" in upper:
        return INT8_CHANNEL
    if "AWQ" in upper or "INT4" in upper:
        return int4_group(128, zeros=False)
    raise ValueError(
        f"quantization: unknown quant_algo {name[:60]!r}; use FP8, NVFP4, MXFP4, INT8 or INT4"
    )


def _kv_dtype(algorithm: Any) -> str | None:
    if not algorithm:
        return None
    return "nvfp4" if "FP4" in str(algorithm).upper() else "fp8"


def _groups(config: Mapping[str, Any]) -> Formats:
    """compressed-tensors: groups of targets, each with the scheme of its weights."""
    groups = config.get("config_groups") or {}
    found = []
    for group in groups.values():
        weights = group.get("weights") or {}
        targets = tuple(str(target) for target in group.get("targets") or ("Linear",))
        found.append((targets, _scheme(weights, str(group.get("format") or config.get("format")))))
    method = str(config.get("quant_method", "compressed-tensors"))
    if not found:
        # A shortened config only has the format's name.
        found = [(("Linear",), _named_format(str(config.get("format"))))]
    scheme = config.get("kv_cache_scheme")
    kv = "fp8" if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 else None
    kept = Quantization(method, found[0][1], _ignored(config), kv_cache_dtype=kv)
    return Formats(kept, tuple(found))


def _named_format(name: str) -> Format:
    if "nvfp4" in name:
        return NVFP4
    if "pack-quantized" in name:
        return int4_group(128, zeros=False)
    if "int-quantized" in name:
        return INT8_CHANNEL
    return fp8_block(128, 128) if "block" in name else FP8_CHANNEL


def _scheme(weights: Mapping[str, Any], format: str) -> Format:
    bits = int(weights.get("num_bits") or 8)
    strategy = str(weights.get("strategy") or "")
    block = weights.get("block_structure")
    group = int(weights.get("group_size") or 0)
    floats = str(weights.get("type")) == "float"
    if bits == 4 and floats:
        return MXFP4 if "mxfp4" in format else NVFP4
    if bits == 4:
        return int4_group(group, zeros=not weights.get("symmetric", True))
    if block and strategy == "block":
        return fp8_block(int(block[0]), int(block[1]))
    if not floats and "pack-quantized" in format:
        return INT8_WEIGHTS
    if strategy in ("channel", "group") or not floats:
        kind = FP8_CHANNEL if floats else INT8_CHANNEL
        return MXFP8 if group == 32 and floats else kind
    return FP8_TENSOR
