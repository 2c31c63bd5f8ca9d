"""The engine on the hosts: vLLM in versioned folders with a `current` link."""

from roles.engine.needs import EngineNeeds as EngineNeeds
from roles.engine.needs import engine_needs as engine_needs
from roles.engine.settings import EngineSettings as EngineSettings
