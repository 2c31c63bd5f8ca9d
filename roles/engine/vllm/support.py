"""Whether vLLM runs on a card at all, regardless of its memory."""

from roles.engine.params import EngineParams, gpu_memory
from roles.engine.vllm.memory import batch
from roles.hardware import Gpu
from roles.models import Model

# The wheel of vLLM 0.33 has code for 7.5 and newer, those for CUDA 12 for 7.0 and newer; bfloat16
# needs 8.0 (`platforms/cuda.py`).
ENGINE_CAPABILITY = 7.5
MIN_CAPABILITY_OF_ANY_BUILD = 7.0
BFLOAT16_CAPABILITY = 8.0
# Models whose numbers overflow in float16 (`config/model.py`, _FLOAT16_NOT_SUPPORTED_MODELS).
NO_HALF = ("gemma2", "gemma3", "plamo2", "glm4")


def planned_dtype(model: Model, dtype: str | None, gpu: Gpu) -> str | None:
    """`half` if the card has no bfloat16 and the service sets no dtype; else None."""
    return "half" if dtype in (None, "auto") and _lacks_bfloat16(model, gpu) else None


def _lacks_bfloat16(model: Model, gpu: Gpu) -> bool:
    capability = gpu_memory(gpu).compute_capability
    return model.dtype == "bfloat16" and capability is not None and capability < BFLOAT16_CAPABILITY


def unsupported(
    model: Model,
    params: EngineParams,
    dtype: str | None,
    gpu: Gpu,
    least: float = ENGINE_CAPABILITY,
) -> str | None:
    """Why an engine would not start on a card, and the remedy; None if it would.

    `least` is the minimum compute capability of the engine; `dtype` is the service's dtype, None to
    leave it to the plan.
    """
    capability = gpu_memory(gpu).compute_capability
    if capability is not None:
        has = f"{gpu.name} has compute capability {capability:.1f}"
        if capability < least:
            engine = "vLLM 0.33" if least >= ENGINE_CAPABILITY else "vLLM"
            return f"{has}, {engine} needs {least}; use a newer card"
        if _lacks_bfloat16(model, gpu) and model.model_type.startswith(NO_HALF):
            return (
                f"{has}, bfloat16 needs {BFLOAT16_CAPABILITY}, and {model.model_type} does not run "
                "in float16; use a newer card"
            )
        if capability < BFLOAT16_CAPABILITY and dtype == "bfloat16":
            return (
                f'{has}, bfloat16 needs {BFLOAT16_CAPABILITY}; set arguments: {{"dtype": "half"}}'
            )
    length = params.max_model_len or model.context_limit_tokens
    tokens, requests = batch(gpu_memory(gpu), params, length)
    if requests > tokens:
        return (
            f"max-num-seqs {requests} is more than the {tokens} tokens that a step has on "
            f'{gpu.name}; set arguments: {{"max-num-batched-tokens": {requests}}} or more'
        )
    return None
