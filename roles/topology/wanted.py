"""What a planner needs to know of a service, apart from its name and ports."""

from dataclasses import dataclass

from roles.engine.vllm.memory import Asked
from roles.engine.vllm.support import ENGINE_CAPABILITY
from roles.models import Model
from roles.topology.candidates import Load
from roles.topology.choice import Objective


@dataclass(frozen=True)
class Wanted:
    """A model, what each replica must hold, and what a shape is chosen for under which load.

    `load` is this host's part, None where none is stated; `price_per_month` is the host's;
    `least_capability` is the compute capability that the engine needs, that of vLLM 0.33 unless
    said; `dtype` is what the engine is told to compute in, None or "auto" where it is left to it.
    """

    model: Model
    asked: Asked
    objective: Objective
    load: Load | None
    single_endpoint: bool = False
    price_per_month: float | None = None
    dtype: str | None = None
    least_capability: float = ENGINE_CAPABILITY
