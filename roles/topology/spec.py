"""A service as the planner sees it, without its name and ports."""

from dataclasses import dataclass

from roles.engine.engine import DEFAULT_KIND
from roles.engine.params import Argument, EngineParams
from roles.models import Model
from roles.plan import Load
from roles.topology.choice import Objective


@dataclass(frozen=True)
class ServiceSpec:
    """A service on one host: its model, its engine's parameters, the objective and the load.

    `load` is this host's part, None if none is stated. `price_per_month` is the host's. `engine` is
    the kind of engine; `least_capability` is the minimum compute capability of its build, None for
    the newest build's. `dtype` is the engine's dtype; None or "auto" leaves it to the engine.
    `arguments` are the service's options of its engine, sorted. Without `advise` no remedies are
    looked for where the model does not fit, and no word is lost on usual advice.
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
    advise: bool = True
    arguments: tuple[tuple[str, Argument], ...] = ()
