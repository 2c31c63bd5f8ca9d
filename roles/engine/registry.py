"""Which engines there are, by the name that an inventory gives them."""

from collections.abc import Mapping

from roles.engine.build import Build
from roles.engine.deployment import Deployment
from roles.engine.llama_cpp.deployment import LlamaCppDeployment
from roles.engine.needs import EngineNeeds
from roles.engine.vllm.deployment import VllmDeployment

DEPLOYMENTS: Mapping[str, Deployment] = {
    one.build.kind: one for one in (VllmDeployment(), LlamaCppDeployment())
}


def deployment(build: Build) -> Deployment:
    """The deploying half of the engine that a build is of."""
    return DEPLOYMENTS[build.kind]


def engine_needs(build: Build) -> EngineNeeds:
    """What a build needs of a host."""
    return deployment(build).needs(build)
