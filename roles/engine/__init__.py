"""The engines: the interface that each implements, and the registry. Pure code only."""

from roles.engine.adapters import path_of as path_of
from roles.engine.build import HUB as HUB
from roles.engine.build import Build as Build
from roles.engine.deployment import VISIBLE_DEVICES as VISIBLE_DEVICES
from roles.engine.deployment import Ability as Ability
from roles.engine.deployment import Deployment as Deployment
from roles.engine.deployment import Group as Group
from roles.engine.deployment import Installation as Installation
from roles.engine.deployment import Phase as Phase
from roles.engine.deployment import Placement as Placement
from roles.engine.deployment import Served as Served
from roles.engine.deployment import ServedAdapter as ServedAdapter
from roles.engine.deployment import Start as Start
from roles.engine.deployment import Watch as Watch
from roles.engine.llama_cpp.settings import LlamaCppSettings as LlamaCppSettings
from roles.engine.needs import EngineNeeds as EngineNeeds
from roles.engine.needs import PackageIndex as PackageIndex
from roles.engine.needs import strictest as strictest
from roles.engine.ollama.settings import OllamaSettings as OllamaSettings
from roles.engine.registry import DEPLOYMENTS as DEPLOYMENTS
from roles.engine.registry import deployment as deployment
from roles.engine.registry import engine_needs as engine_needs
from roles.engine.sglang.settings import SglangSettings as SglangSettings
from roles.engine.state import Installed as Installed
from roles.engine.state import parse_installed as parse_installed
from roles.engine.state import part as part
from roles.engine.vllm.settings import VllmSettings as VllmSettings

ENGINE_SETTINGS = {kind: one.build for kind, one in DEPLOYMENTS.items()}
"""The settings class of a build, by the kind of its engine."""
