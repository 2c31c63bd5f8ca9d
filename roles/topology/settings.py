"""The settings of a service: its model, request length, concurrency and objective."""

from typing import Annotated, Any, Self

from pydantic import (
    AllowInfNan,
    BeforeValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from roles.engine.engine import engine, options_of_others
from roles.engine.params import EngineParams, Loras
from roles.host import LocalFile, Several, StrictSettings
from roles.models import (
    Adapter,
    Count,
    Model,
    Recipe,
    adapter_problem,
    is_known,
    read_adapter,
    recipe_of,
    with_whole_encoder,
)
from roles.plan import Executor, Load, Task
from roles.topology.choice import Objective, ObjectiveKind
from roles.topology.engines import EngineChoice, chosen_engine
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
# A service that sets one of these decides all of them.
_TOOLS = frozenset(
    (
        *("tool-call-parser", "enable-auto-tool-choice"),
        *("disable-auto-tool-choice", "no-enable-auto-tool-choice"),
    )
)


# The settings that decide what runs where; the model and its replicas' own fields say themselves.
_PLANNED = {
    *("min_concurrency", "gpu_memory_utilization", "concurrency", "input_tokens"),
    *("output_tokens", "objective", "ttft_limit_ms", "itl_limit_ms", "single_endpoint", "share"),
    *("max_model_len", "first_port", "arguments", "kv_cache_dtype", "task"),
    *("kv_cache_memory_bytes", "recipe", "weights"),
    "executor",
}


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


class ServiceSettings(StrictSettings):
    """A model served under a name, with its requirements."""

    _engine_reason: str = PrivateAttr(default="")

    name: Name = Field(description="name of the service; replicas are called NAME-0, NAME-1 …")
    model: NamedModel = Field(
        description="a model of the catalog by name, a file (.json) that `python -m roles.models "
        "read` made, or a mapping: its id, config and weights_bytes, or its sizes; clients ask "
        "for it by its id"
    )
    engine: EngineChoice | None = Field(
        default=None,
        description="what serves it: vllm unless the model is a GGUF file, which llama_cpp does; "
        "with auto the plan chooses by the model's files, and by its estimate among those in "
        "`engines`",
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

    @field_validator("max_model_len")
    @classmethod
    def _fits_the_model_context(cls, value: int, info: Any) -> int:
        model = info.data.get("model")
        if model and value > model.context_limit_tokens:
            raise ValueError(
                f"{value} is more than {model.name} can do; "
                f"set at most {model.context_limit_tokens}"
            )
        return value

    @model_validator(mode="after")
    def _hosts_can_be_joined(self) -> "ServiceSettings":
        own = engine(self.kind)
        if self.members and not own.spans_hosts:
            raise ValueError(f"members: {own.name} serves on one host alone; leave it out")
        if self.members and self.single_endpoint:
            raise ValueError(
                "members: a single_endpoint is chosen by the plan; leave one of them out"
            )
        if self.executor == "ray" and not own.spans_with_ray:
            raise ValueError(f"executor: {own.name} does without Ray; leave it out")
        names = [name for group in self.members for name in group.hosts]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                raise ValueError(f"members: {name} is in {names.count(name)} groups; one is enough")
        return self

    @model_validator(mode="after")
    def _adapters_are_of_the_model(self) -> "ServiceSettings":
        if self.adapters and self.task != "generate":
            raise ValueError(f"adapters: are served with task generate, not {self.task}")
        if self.model.name in self.adapters:
            raise ValueError(f"adapters.{self.model.name}: is the model's own name; give another")
        for name, path in self.adapters.items():
            try:
                problem = adapter_problem(read_adapter(path), self.model)
            except ValueError as error:
                problem = str(error)
            if problem:
                raise ValueError(f"adapters.{name}: {problem}")
        try:
            engine(self.kind).check_adapters(tuple(self.lora_adapters.values()), self.arguments)
        except ValueError as error:
            raise ValueError(f"adapters: {error}") from None
        return self

    @model_validator(mode="after")
    def _speculation_is_possible(self) -> "ServiceSettings":
        if self.speculative and self.task != "generate":
            raise ValueError(f"speculative: there is nothing to draft with task {self.task}")
        try:
            self._speculative_arguments  # noqa: B018
        except ValueError as error:
            raise ValueError(f"speculative.{error}") from None
        return self

    @model_validator(mode="after")
    def _task_is_possible(self) -> "ServiceSettings":
        try:
            self._task_arguments  # noqa: B018
        except ValueError as error:
            raise ValueError(f"task: {error}") from None
        for name in ("output_tokens", "itl_limit_ms") if self.task != "generate" else ():
            if name in self.model_fields_set:
                raise ValueError(f"{name}: nothing is generated by task {self.task}; leave it out")
        if self.embedding_size is not None and self.task != "embed":
            raise ValueError(f"embedding_size: there are no vectors with task {self.task}")
        return self

    @model_validator(mode="after")
    def _request_fits(self) -> "ServiceSettings":
        needs_load = ("objective", "ttft_limit_ms", "itl_limit_ms", "input_tokens", "output_tokens")
        given = [name for name in needs_load if name in self.model_fields_set]
        if self.concurrency is None and given:
            raise ValueError(
                f"{given[0]} says nothing without a load; set concurrency, the requests expected "
                "at "
                "once over the whole fleet"
            )
        most = self.engine_params.max_num_seqs
        if "min_concurrency" in self.model_fields_set and (most or self.min_concurrency) < (
            self.min_concurrency
        ):
            raise ValueError(
                f"min_concurrency: {self.min_concurrency} requests are to run at once, and "
                f"max-num-seqs in arguments allows {most}; make them agree"
            )
        total_tokens = (self.input_tokens or 0) + (self.output_tokens or 0)
        if total_tokens > self.max_model_len:
            raise ValueError(
                f"input_tokens and output_tokens are {total_tokens} together, more than "
                "max_model_len "
                f"{self.max_model_len}; lower them or raise it"
            )
        return self

    @field_validator("kv_cache_dtype")
    @classmethod
    def _engine_has_cache_dtype(cls, value: str | None, info: Any) -> str | None:
        if (model := info.data.get("model")) and value is not None:
            own = engine(chosen_engine(info.data.get("engine"), model).kind)
            own.kv_cache_arguments(value)
        return value

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, value: dict[str, OptionValue], info: Any) -> dict[str, OptionValue]:
        if model := info.data.get("model"):
            own = engine(chosen_engine(info.data.get("engine"), model).kind)
            own.check_arguments(value, model)
            for name, other in options_of_others(own.kind, value).items():
                raise ValueError(
                    f"{name} is an option of {other}, and {own.name} has none of that name; leave "
                    "it out, or change engine"
                )
            dtype = info.data.get("kv_cache_dtype")
            for name, planned in (own.kv_cache_arguments(dtype) if dtype else {}).items():
                if value.get(name) not in (None, "auto", planned):
                    raise ValueError(
                        f"{name} contradicts kv_cache_dtype {dtype}, by which it is {planned}; "
                        "leave one of them out"
                    )
        return value

    @field_validator("kv_cache_memory_bytes")
    @classmethod
    def _check_cache_setting(cls, value: int | None, info: Any) -> int | None:
        if (model := info.data.get("model")) and value is not None:
            own = engine(chosen_engine(info.data.get("engine"), model).kind)
            if not own.fills_memory:
                raise ValueError(
                    f"{own.name} takes KV cache for min_concurrency requests of max_model_len "
                    "tokens; set these instead"
                )
        return value

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: str | None, info: Any) -> str | None:
        model = info.data.get("model")
        if model and (
            problem := engine(chosen_engine(info.data.get("engine"), model).kind).weights_problem(
                value
            )
        ):
            raise ValueError(problem)
        return value

    def with_engine(self, kind: str, reason: str = "") -> Self:
        """The service with a kind of engine, which the plan chose for a reason."""
        own = self.model_copy(update={"engine": kind})
        own._engine_reason = reason
        return own

    @property
    def engine_reason(self) -> str:
        """Why the plan chose the engine; "" where the service names it."""
        return self._engine_reason or chosen_engine(self.engine, self.model).reason

    @property
    def lora_adapters(self) -> dict[str, Adapter]:
        """The adapters by name, as their files are now."""
        return {name: read_adapter(path) for name, path in self.adapters.items()}

    @property
    def _loras(self) -> Loras | None:
        found = tuple(self.lora_adapters.values())
        if not found:
            return None
        return Loras(len(found), max(one.rank for one in found), sum(one.bytes for one in found))

    @property
    def kind(self) -> str:
        """The kind of engine that serves the model."""
        return chosen_engine(self.engine, self.model).kind

    @property
    def engine_params(self) -> EngineParams:
        """The service's parameters that affect an engine's memory."""
        # None is the engine's own default: engines differ.
        is_set = "gpu_memory_utilization" in self.model_fields_set
        params = EngineParams(
            utilization=self.gpu_memory_utilization if is_set else None,
            max_model_len=self.max_model_len,
            min_concurrency=self.min_concurrency,
            task=self.task,
            loras=self._loras,
            speculation=self.speculative.speculation if self.speculative else None,
        )
        return engine(self.kind).with_arguments(params, self._own_arguments)

    @property
    def planned_settings(self) -> tuple[tuple[str, str], ...]:
        """What is set of all that a plan follows from, in words, by its place in the service."""
        given = self.model_dump(include=_PLANNED, exclude_unset=True)
        options = given.pop("arguments", {})
        given |= {f"arguments.{name}": value for name, value in options.items()}
        given |= {f"adapters.{name}": one.digest for name, one in self.lora_adapters.items()}
        if self.speculative:
            given["speculative"] = self.speculative.words
        return tuple((name, str(value)) for name, value in given.items() if value is not None)

    @property
    def planned_model(self) -> Model:
        """The model as the service's options have it split."""
        if self.arguments.get("mm-encoder-tp-mode") == "data":
            return with_whole_encoder(self.model)
        return self.model

    @property
    def model_recipe(self) -> Recipe | None:
        """The recipe of the model for this engine; None without one, or if it is set aside."""
        # What recipes set is for chats.
        wanted = self.recipe and self.task == "generate"
        if not wanted or not engine(self.kind).has_recipes:
            return None
        return recipe_of(self.model.id, self.model.variant_of)

    @property
    def all_arguments(self) -> dict[str, OptionValue]:
        """The options of the engine: the service's, and those of the recipe that it does not
        set."""
        own = self._own_arguments
        recipe = dict(self.model_recipe.arguments) if self.model_recipe else {}
        if _TOOLS & own.keys():
            recipe = {name: value for name, value in recipe.items() if name not in _TOOLS}
        return recipe | own

    @property
    def _own_arguments(self) -> dict[str, OptionValue]:
        """The service's options, and those that its other settings stand for."""
        planned = self._task_arguments | self._speculative_arguments
        return self.arguments | self._cache_arguments | planned

    @property
    def _task_arguments(self) -> dict[str, OptionValue]:
        """The engine's options for the task."""
        own = engine(self.kind)
        return dict(own.task_arguments(self.task, self.model, self.max_model_len, self.arguments))

    @property
    def _speculative_arguments(self) -> dict[str, OptionValue]:
        """The engine's options for speculative decoding."""
        if self.speculative is None:
            return {}
        own, wanted = engine(self.kind), self.speculative.speculation
        return dict(own.speculative_arguments(wanted, self.model, self.arguments))

    @property
    def _cache_arguments(self) -> dict[str, OptionValue]:
        """The engine's options by which the KV cache has the declared type."""
        dtype = self.kv_cache_dtype
        return dict(engine(self.kind).kv_cache_arguments(dtype)) if dtype else {}

    @property
    def recipe_notes(self) -> tuple[str, ...]:
        """What the recipe sets, on which GPUs it was verified, and where it stands."""
        recipe = self.model_recipe
        if recipe is None:
            return ()
        taken = [name for name in recipe.arguments if name not in self.arguments]
        options = ", ".join(f"{name} {recipe.arguments[name]}" for name in taken)
        parts = (
            f"sets {options}" if options else "sets no option",
            f"is for {recipe.least}" if recipe.least_version else "",
            f"was verified on {', '.join(recipe.verified)}" if recipe.verified else "",
        )
        return (f"{recipe} {'; '.join(part for part in parts if part)}",)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the plan leaves out of its estimate."""
        if self.speculative is None or self.concurrency is None:
            return ()
        return ("the estimate is without speculative decoding: what it gains depends on the texts",)

    @property
    def load(self) -> Load | None:
        """The expected load; None without a stated concurrency."""
        if self.concurrency is None:
            return None
        room = self.max_model_len
        if self.task != "generate":
            # Its one step is that of the first token.
            return Load(self.concurrency, self.input_tokens or max(1, min(1024, room - 1)), 1)
        output = self.output_tokens or min(256, max(1, (room - (self.input_tokens or 0)) // 4))
        return Load(self.concurrency, self.input_tokens or min(1024, max(1, room - output)), output)

    @property
    def shape_objective(self) -> Objective:
        """The objective for the choice of a shape."""
        return Objective(self.objective, self.ttft_limit_ms, self.itl_limit_ms)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an engine may not find on a host, in words."""
        if self.weights is not None or self.model.revision is not None or is_known(self.model.id):
            return ()
        return (
            f"hosts will look for {self.model.id} on the hub: if it is not there, set "
            "services[].weights to its folder on the hosts",
        )

    @property
    def dtype(self) -> str | None:
        """The dtype that the service sets; None if it sets none."""
        value = self.arguments.get("dtype")
        return None if value is None else str(value)
