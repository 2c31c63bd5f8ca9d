"""What an inventory may say of a service: its fields, with their types and bounds."""

from typing import Annotated, Any

from pydantic import (
    AllowInfNan,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from roles.host import LocalFile, Several, StrictSettings
from roles.models import Count
from roles.plan import Executor, Task
from roles.topology.choice import ObjectiveKind
from roles.topology.engines import EngineChoice
from roles.topology.sources import NamedModel, Weights
from roles.topology.speculative import SpeculativeSettings

# Such names need no quotes in unit names, paths and arguments.
Name = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", max_length=64)
]


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"{value!r:.60} is no option's value; write true, false, a number or text")
    return value


AdapterName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=64)
]
OptionName = Annotated[str, StringConstraints(max_length=128)]
# Infinite numbers are refused later, with the option's name.
_Number = Annotated[float, AllowInfNan()]
OptionValue = Annotated[bool | int | _Number | str, BeforeValidator(_check_scalar)]
# The largest GPUs have 288 GiB; less than 1 MiB holds no request.
CacheBytes = Annotated[int, Field(ge=2**20, lt=2**40)]
KvCacheDtype = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$", max_length=40)]
# Engines handle some thousands of concurrent requests.
Requests = Annotated[int, Field(ge=1, le=100_000)]


# Default number of requests of maximum length that a replica must hold.
DEFAULT_MIN_CONCURRENCY = 8
# A fault of any host of a cluster stops its replica, so clusters stay small.
MAX_HOSTS = 16
HostName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class GroupSettings(StrictSettings):
    """Hosts that run one replica together."""

    hosts: Several[HostName] = Field(
        min_length=2,
        max_length=MAX_HOSTS,
        description="their names, the host that answers first",
    )
    tensor_parallel_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="over how many GPUs each layer is split; those of one host unless said, and "
        "the pipeline goes over the hosts",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, data: Any) -> Any:
        return {"hosts": data} if isinstance(data, list | tuple) else data

    @field_validator("hosts")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in dict.fromkeys(value) if value.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is there twice; name each host once")
        return value


class ServiceFields(StrictSettings):
    """The fields of a service; `ServiceSettings` checks that they go together."""

    name: Name = Field(description="name of the service; replicas are called NAME-0, NAME-1 …")
    model: NamedModel = Field(
        description="a model of the catalog by name, a file (.json) that `python -m roles.models "
        "read` made, or a mapping: its id, config and weights_bytes, or its sizes; clients ask "
        "for it by its id"
    )
    engine: EngineChoice | None = Field(
        default=None,
        description="what serves it: vllm unless the model is a GGUF file, which llama_cpp does; "
        "with auto the plan chooses by the model's files, and for each kind of card by its "
        "estimate among those in `engines`",
    )
    task: Task = Field(
        default="generate",
        description="what its replicas do: generate answers, embed texts (/v1/embeddings), or "
        "rerank documents for a question (/v1/rerank)",
    )
    embedding_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="length of a vector, where it is not the model's hidden size; validation "
        "compares",
    )
    max_model_len: Count = Field(
        description="longest request in tokens, prompt and answer together"
    )
    min_concurrency: Requests = Field(
        default=DEFAULT_MIN_CONCURRENCY,
        description="requests of that length for which a replica must have KV cache",
    )
    gpu_memory_utilization: float = Field(
        default=0.92,
        gt=0,
        le=0.98,
        description="share of a GPU's memory that an engine may take",
    )
    concurrency: Annotated[float, Field(ge=0.01, le=1_000_000)] | None = Field(
        default=None,
        description="requests expected at once, over the whole fleet, each host taking its part; "
        "without it the most replicas are planned that fit by the engine's defaults",
    )
    input_tokens: Count | None = Field(
        default=None, description="tokens of a usual prompt; 1024, or what max_model_len leaves"
    )
    output_tokens: Count | None = Field(
        default=None, description="tokens of a usual answer; 256, or what max_model_len leaves"
    )
    objective: ObjectiveKind = Field(
        default="throughput",
        description="what the shape is chosen for at the stated concurrency",
    )
    ttft_limit_ms: Annotated[float, Field(ge=1, le=3_600_000)] | None = Field(
        # A light's way to the next host and back takes one; nobody waits an hour.
        default=None,
        description="limit of the time to first token",
    )
    itl_limit_ms: Annotated[float, Field(ge=0.1, le=60_000)] | None = Field(
        # No GPU reads its weights in less; nobody waits a minute for a token.
        default=None,
        description="limit of the time between tokens",
    )
    single_endpoint: bool = Field(
        default=False, description="one replica in all, as large as it goes, and no balancer"
    )
    share: Annotated[float, Field(ge=0.01, le=1)] | None = Field(
        default=None,
        description="part of each host's GPUs that the service gets beside others; an equal part "
        "of what the others leave unless said",
    )
    members: Several[GroupSettings] = Field(
        default=(),
        max_length=64,
        description="hosts that run one replica together, a list of names for each replica, or "
        "its settings, see below; the plan puts hosts together only where none holds the model "
        "alone",
    )
    executor: Executor = Field(
        default="engine",
        description="what joins the hosts of a replica: the engine's own multi-node mode, or ray "
        "(vLLM alone)",
    )
    weights: Weights | None = Field(
        default=None,
        description="where engines load the weights from: a folder on the hosts or a name on the "
        "model hub, for llama_cpp a .gguf file on the hosts, for ollama that or a model of a "
        "registry; the model's name unless said",
    )
    first_port: int = Field(
        default=8001,
        ge=1024,
        le=65000,
        description="port of a host's first replica; the next take the next",
    )
    kv_cache_memory_bytes: CacheBytes | None = Field(
        default=None,
        description="KV cache of each GPU in bytes instead of what the engine measures",
    )
    kv_cache_dtype: KvCacheDtype | None = Field(
        default=None,
        description="type of the KV cache, by the engine's name for it (vllm: fp8 …; llama_cpp and "
        "ollama: q8_0 …); the engine's own unless said",
    )
    adapters: Annotated[dict[AdapterName, LocalFile], Field(max_length=16)] = Field(
        default={},
        description="LoRA adapters by the names that clients ask for: a folder here with PEFT's "
        "files, or for llama_cpp a .gguf file; copied to the hosts",
    )
    speculative: SpeculativeSettings | None = Field(
        default=None,
        description="speculative decoding: tokens are drafted, and checked several at a time, see "
        "below",
    )
    arguments: dict[OptionName, OptionValue] = Field(
        default={},
        description="more options of the engine's own server, without the leading dashes",
    )

    recipe: bool = Field(
        default=True,
        description="set what vLLM's recipe for the model names and `arguments` do not: the "
        "parsers of tool calls and of reasoning; refuse a vLLM that is older than the recipe",
    )
