"""Whether vLLM 0.33 runs on a card at all, whatever its memory."""

from roles.hardware import Gpu, find_card
from roles.topology.memory import batch
from roles.topology.settings import ServiceSettings

# The wheel has code for 7.5 and newer; bfloat16 needs 8.0 (`platforms/cuda.py`).
ENGINE_CAPABILITY = 7.5
BFLOAT16_CAPABILITY = 8.0


def unsupported(service: ServiceSettings, gpu: Gpu) -> str | None:
    """Why an engine of the service would not start on a card, and what to do; None if it would."""
    card = find_card(gpu.name)
    if card is not None:
        has = f"{gpu.name} has compute capability {card.compute_capability:.1f}"
        if card.compute_capability < ENGINE_CAPABILITY:
            return f"{has}, vLLM 0.33 needs {ENGINE_CAPABILITY}; use a newer card"
        if card.compute_capability < BFLOAT16_CAPABILITY and not service.half_precision:
            return (
                f'{has}, bfloat16 needs {BFLOAT16_CAPABILITY}; set arguments: {{"dtype": "half"}}'
            )
    tokens, requests = batch(gpu, service.asked)
    if requests > tokens:
        return (
            f"max-num-seqs {requests} is more than the {tokens} tokens that a step has on "
            f'{gpu.name}; set arguments: {{"max-num-batched-tokens": {requests}}} or more'
        )
    return None
