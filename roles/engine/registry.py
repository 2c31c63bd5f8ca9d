"""The registry of engines, by their kind in inventories."""

from collections.abc import Mapping

from roles.engine.build import Build
from roles.engine.deployment import Deployment
from roles.engine.llama_cpp.deployment import LlamaCppDeployment
from roles.engine.needs import EngineNeeds
from roles.engine.ollama.deployment import OllamaDeployment
from roles.engine.sglang.deployment import SglangDeployment
from roles.engine.vllm.deployment import VllmDeployment

_ALL = (VllmDeployment(), LlamaCppDeployment(), SglangDeployment(), OllamaDeployment())
DEPLOYMENTS: Mapping[str, Deployment] = {one.build.kind: one for one in _ALL}


def deployment(build: Build) -> Deployment:
    """The deployment interface of a build's engine."""
    return DEPLOYMENTS[build.kind]


def engine_needs(build: Build) -> EngineNeeds:
    """The requirements of a build."""
    return deployment(build).needs(build)
