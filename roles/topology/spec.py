"""What a planner needs to know of a service, apart from its name and ports."""

from dataclasses import dataclass

from roles.engine.engine import DEFAULT_KIND
from roles.engine.params import EngineParams
from roles.models import Model
from roles.topology.candidates import Load
from roles.topology.choice import Objective


@dataclass(frozen=True)
class ServiceSpec:
    """A model, what each replica must hold, and what a shape is chosen for under which load.

    `load` is this host's part, None where none is stated; `price_per_month` is the host's;
    `engine` is the kind of the engine that serves it, and `least_capability` the compute capability
    that its build needs, that of the newest build unless said; `dtype` is what the engine is told
    to compute in, None or "auto" where it is left to it.
    """

    model: Model
    params: EngineParams
    objective: Objective
    load: Load | None
    single_endpoint: bool = False
    price_per_month: float | None = None
    dtype: str | None = None
    least_capability: float | None = None
    engine: str = DEFAULT_KIND
