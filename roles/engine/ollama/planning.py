"""The planning of Ollama: the memory of the llama-server that it starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from roles.engine.gguf.context import memory_options
from roles.engine.gguf.planning import GgufPlanning
from roles.engine.ollama.names import parse
from roles.engine.params import Argument, EngineParams, GpuMemory, Speculation
from roles.engine.refusal import Instead, Refusal
from roles.models import Adapter, Model
from roles.plan import Task

# Ollama gives these one request at a time, whatever it is told (server/sched.go).
SINGLE = frozenset(
    (
        *("mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2"),
        *("lfm2moe", "nemotron_h", "nemotron_h_moe", "nemotron_h_omni"),
    )
)


@dataclass(frozen=True)
class Ollama(GgufPlanning):
    """Ollama: it starts one llama-server for its model, with what the plan says of memory."""

    kind: str = "ollama"
    name: str = "Ollama"
    # Source: docs/faq.mdx and docs/gpu.mdx of 0.33.
    kv_cache_dtypes: tuple[str, ...] = ("f16", "q8_0", "q4_0")
    min_capability: float = 5.0
    min_capability_of_any_build: float = 5.0

    def kernel_problem(self, model: Model, params: EngineParams, gpu: GpuMemory) -> Refusal | None:
        """That the model is no GGUF file, has a name that Ollama refuses, or takes one request at
        a time."""
        if problem := super().kernel_problem(model, params, gpu):
            return problem
        try:
            parse(model.name)
        except ValueError as error:
            asked = f"clients ask Ollama for the model by its id: {error}"
            return Refusal(asked, Instead("change id in its file"))
        kind = model.gguf.architecture if model.gguf else ""
        if kind in SINGLE and params.min_concurrency > 1:
            return Refusal(
                f"Ollama works on one request of a {kind} model at a time",
                Instead("set min_concurrency 1, or engine llama_cpp"),
            )
        if params.task == "embed" and params.min_concurrency > 1:
            return Refusal(
                "Ollama works on one embedding at a time",
                Instead("set min_concurrency 1, or engine llama_cpp"),
            )
        return None

    def smaller_cache(
        self, gpu: GpuMemory, params: EngineParams
    ) -> tuple[str, EngineParams] | None:
        """A KV cache of 8 bits, unless the service sets its type."""
        if dict(params.options):
            return None
        smaller = self.kv_cache_arguments("q8_0")
        return "q8_0", replace(params, options=memory_options(smaller))

    def weights_problem(self, weights: str | None) -> str | None:
        """The weights must be a GGUF file on the hosts, or a model of a registry."""
        remedy = "set a GGUF file's path on the hosts, /…/NAME.gguf, or a model of a registry"
        if weights is None:
            return f"is missing; {remedy}, as in llama3.2:3b"
        if weights.startswith("/"):
            return None if weights.endswith(".gguf") else f"{weights!r} is no GGUF file; {remedy}"
        try:
            parse(weights)
        except ValueError as error:
            return f"{error}; {remedy}"
        return None

    def task_arguments(
        self, task: Task, model: Model, length: int, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """The steps of an embedding model: Ollama itself starts it as one, by its file."""
        if task == "rerank":
            raise ValueError("Ollama ranks no documents; set engine llama_cpp")
        if task == "embed" and model.generates:
            raise ValueError(
                f"Ollama gives embeddings of files that say how (pooling_type), and {model.name} "
                "does not; set engine llama_cpp"
            )
        found = super().task_arguments(task, model, length, arguments)
        return dict(memory_options(found))

    def check_arguments(self, arguments: Mapping[str, Argument], model: Model) -> None:
        """ValueError for any option: Ollama takes none."""
        if arguments:
            raise ValueError(
                f"{next(iter(arguments))}: Ollama takes no options; what it can be told follows "
                "from max_model_len, min_concurrency and kv_cache_dtype, or stands in "
                "engines.ollama.environment (OLLAMA_…); for options of llama-server set engine "
                "llama_cpp"
            )

    def check_adapters(
        self, adapters: Sequence[Adapter], arguments: Mapping[str, Argument]
    ) -> None:
        """ValueError for any."""
        if adapters:
            raise ValueError("are not served by Ollama here; set engine llama_cpp")

    def speculative_arguments(
        self, speculation: Speculation, model: Model, arguments: Mapping[str, Argument]
    ) -> Mapping[str, Argument]:
        """ValueError: Ollama has none."""
        raise ValueError("Ollama does not draft tokens; set engine llama_cpp, or leave it out")

    def knows(self, option: str) -> bool:
        """Never: it has no options."""
        return False


OLLAMA = Ollama()
