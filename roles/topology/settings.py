"""What an inventory may say about a service: what is served, how long, to how many at once."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, field_validator

from roles.models import Model, find

Argument = bool | int | float | str
# Wherever these go (a unit's name, a path, an argument), they need no quotes.
Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", max_length=64)
]
Weights = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9/][A-Za-z0-9._/@+-]*$")]


class ServiceSettings(BaseModel):
    """A model served under a name, with its needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="name of the service; replicas are called NAME-0, NAME-1 …")
    model: Annotated[Model, "text or mapping"] = Field(
        description="a model of the catalog by name, or its sizes as a mapping; also the name "
        "that clients ask for"
    )
    max_model_len: PositiveInt = Field(
        description="longest request in tokens, prompt and answer together"
    )
    min_concurrency: PositiveInt = Field(
        default=8, description="requests of that length for which a replica must have KV cache"
    )
    gpu_memory_utilization: float = Field(
        default=0.92, gt=0, le=0.98, description="share of a GPU's memory that an engine may take"
    )
    weights: Weights | None = Field(
        default=None,
        description="where engines load the weights from: a folder on the hosts or a name on the "
        "model hub; the model's name unless said",
    )
    first_port: int = Field(
        default=8001,
        ge=1024,
        le=65000,
        description="port of a host's first replica; the next take the next",
    )
    kv_cache_memory_bytes: PositiveInt | None = Field(
        default=None, description="KV cache of each GPU in bytes instead of what vLLM measures"
    )
    arguments: dict[str, Argument] = Field(
        default={}, description="more options of `vllm serve`, without the leading dashes"
    )

    @field_validator("model", mode="before")
    @classmethod
    def _from_catalog(cls, value: Any) -> Any:
        return find(value) if isinstance(value, str) else value

    @field_validator("max_model_len")
    @classmethod
    def _within_the_model(cls, value: int, info: Any) -> int:
        model = info.data.get("model")
        if model and value > model.context_limit_tokens:
            raise ValueError(
                f"{value} is more than {model.name} can do; "
                f"set at most {model.context_limit_tokens}"
            )
        return value

    @field_validator("arguments")
    @classmethod
    def _known_by_name_only(cls, value: dict[str, Argument]) -> dict[str, Argument]:
        for key, argument in value.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
                raise ValueError(f"{key!r} is no option; write it as in `max-num-seqs`")
            if key in PLANNED:
                raise ValueError(f"`{key}` follows from the plan; {PLANNED[key]}")
            if isinstance(argument, str) and not argument.isprintable():
                raise ValueError(f"{key}: control characters and newlines are not allowed")
        return value


PLANNED = {
    "model": "set services[].weights",
    "served-model-name": "set services[].model",
    "host": "it is the host's address",
    "port": "set services[].first_port or the host's ports",
    "api-key": "set balancer.engine_key_file",
    "tensor-parallel-size": "leave it to the plan",
    "pipeline-parallel-size": "leave it to the plan",
    "max-model-len": "set services[].max_model_len",
    "gpu-memory-utilization": "set services[].gpu_memory_utilization",
    "kv-cache-memory-bytes": "set services[].kv_cache_memory_bytes",
    "config": "set services[].arguments",
}
