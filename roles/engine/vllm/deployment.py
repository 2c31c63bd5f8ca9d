"""The deployment of vLLM: its requirements, installation and start."""

from roles.engine import packages_install
from roles.engine.deployment import (
    Ability,
    Installation,
    Placement,
    Served,
    Start,
    parser_abilities,
)
from roles.engine.needs import EngineNeeds
from roles.engine.vllm import needs, start
from roles.engine.vllm.settings import VllmSettings
from roles.host.paths import engine_folder
from roles.plan import Replica


class VllmDeployment:
    """vLLM from Python packages, in its own virtual environment."""

    build = VllmSettings
    # Source: vLLM 0.33 (entrypoints/serve/instrumentator/health.py): it listens once it has loaded.
    ready_path = "/health"

    def needs(self, build: VllmSettings) -> EngineNeeds:
        """The driver, cards, C library and Python that the wheel needs."""
        return needs.needs(build)

    def installation(self, build: VllmSettings) -> Installation:
        """Install with uv, from an index or a wheelhouse, with a lock if there is one."""
        return packages_install.installation(build, "vllm --version")

    def start(
        self, replica: Replica, served: Served, build: VllmSettings, placement: Placement
    ) -> Start:
        """Start `vllm serve` with a file of options."""
        return start.start(replica, served, build, placement)

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """Those of its parsers of tool calls and of reasoning."""
        found = parser_abilities(served)
        if served.arguments.get("enable-auto-tool-choice"):
            return found
        return tuple(one for one in found if one != "tool_call")

    def adapter_model(self, model: str, adapter: str) -> str:
        """The adapter's own name."""
        return adapter

    def all_reduce_python(self, build: VllmSettings) -> str | None:
        """The environment's own Python: its torch is the one that replicas reduce with."""
        return f"{engine_folder(build.version_name)}/bin/python"
