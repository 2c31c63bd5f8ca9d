"""The engine on the hosts: vLLM in versioned folders with a `current` link."""

from roles.engine.settings import EngineSettings as EngineSettings
