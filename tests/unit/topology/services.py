"""Services that differ in their engine, and so in the files of their model."""

from typing import Any

from roles.topology import ServiceSettings
from tests.gguf_models import gguf_model

ON_GGUF = ("llama_cpp", "ollama")


def chat(engine: str, named: str, gguf: str, **more: Any) -> ServiceSettings:
    """A service for chats: of a model that the catalog has by this name, or of a GGUF file where
    its engine loads such."""
    is_gguf = engine in ON_GGUF
    own: dict[str, Any] = {
        "name": "chat",
        "engine": engine,
        "model": gguf_model(gguf) if is_gguf else named,
        "weights": "/srv/m.gguf" if is_gguf else "/srv/qwen",
        "max_model_len": 4096,
        "recipe": False,
    }
    return ServiceSettings.model_validate(own | more)
