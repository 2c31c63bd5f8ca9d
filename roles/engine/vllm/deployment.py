"""vLLM's deploying half: what it needs, how it is installed, how a replica starts."""

from roles.engine.deployment import Installation, Placement, Served, Start
from roles.engine.needs import EngineNeeds
from roles.engine.vllm import install, needs, start
from roles.engine.vllm.settings import VllmSettings
from roles.host.paths import engine_folder
from roles.plan import Replica


class VllmDeployment:
    """vLLM from Python packages, in a virtual environment of its own."""

    build = VllmSettings

    def needs(self, build: VllmSettings) -> EngineNeeds:
        """Driver, cards, C library and Python that the wheel is made for."""
        return needs.needs(build)

    def installation(self, build: VllmSettings) -> Installation:
        """By uv, from an index or a wheelhouse, with a lock where one is given."""
        return install.installation(build)

    def start(
        self, replica: Replica, served: Served, build: VllmSettings, placement: Placement
    ) -> Start:
        """`vllm serve` with a file of options."""
        return start.start(replica, served, build, placement)

    def all_reduce_python(self, build: VllmSettings) -> str | None:
        """The environment's own Python: its torch is the one that replicas reduce with."""
        return f"{engine_folder(build.version_name)}/bin/python"
