"""What an inventory may say about a service: what is served, how long, to how many at once."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from roles.models import Bytes, Count, Model, find
from roles.topology.arguments import KV_ELEMENT_BYTES, Argument, check_arguments
from roles.topology.memory import Asked, kv_needed_tokens

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
    max_model_len: Count = Field(
        description="longest request in tokens, prompt and answer together"
    )
    min_concurrency: Count = Field(
        default=8, description="requests of that length for which a replica must have KV cache"
    )
    gpu_memory_utilization: float = Field(
        default=0.92,
        gt=0,
        le=0.98,
        strict=True,
        description="share of a GPU's memory that an engine may take",
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
        strict=True,
        description="port of a host's first replica; the next take the next",
    )
    kv_cache_memory_bytes: Bytes | None = Field(
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
    def _possible(cls, value: dict[str, Argument]) -> dict[str, Argument]:
        check_arguments(value)
        return value

    @property
    def asked(self) -> Asked:
        """What the service asks of an engine, as far as it takes memory."""
        tokens = self.arguments.get("max-num-batched-tokens")
        requests = self.arguments.get("max-num-seqs")
        return Asked(
            utilization=self.gpu_memory_utilization,
            kv_tokens=kv_needed_tokens(self.max_model_len, self.min_concurrency),
            step_tokens=int(tokens) if tokens else None,
            requests=int(requests) if requests else None,
            eager=bool(self.arguments.get("enforce-eager")),
            kv_element_bytes=KV_ELEMENT_BYTES[str(self.arguments.get("kv-cache-dtype", "auto"))],
        )

    @property
    def half_precision(self) -> bool:
        """Whether the engine is told to compute in float16, not in bfloat16."""
        return self.arguments.get("dtype") in ("half", "float16")
