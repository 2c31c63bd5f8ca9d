"""The deployment of SGLang: its requirements, installation and start."""

from roles.engine.deployment import (
    Ability,
    Installation,
    Placement,
    Served,
    Start,
    parser_abilities,
)
from roles.engine.needs import EngineNeeds, OlderBuild, cuda_needs
from roles.engine.packages_install import installation
from roles.engine.sglang import start
from roles.engine.sglang.kernels import ENGINE_CAPABILITY
from roles.engine.sglang.settings import SglangSettings
from roles.host.paths import engine_folder
from roles.plan import Replica

# By wheel metadata 0.5.19 is the last for CUDA 12.
_CUDA_13 = (0, 5, 20)
_OLDER = OlderBuild(ENGINE_CAPABILITY, "SGLang 0.5.19, the last for CUDA 12")
_FIRST_START = "python -c 'import sglang; print(sglang.__version__)'"
# It compiles kernels at run time; a host need not have a compiler of CUDA's, its packages do.
LINK_CUDA = (
    'nvcc=$(find "$new/lib" -path "*/nvidia/cu1*/bin/nvcc" | head -n 1); '
    '[ -z "$nvcc" ] || ln -sfn "${nvcc%/bin/nvcc}" "$new/cuda"'
)
# Estimates: torch, CUDA's libraries and kernels; the build for CPUs took 2.4 GiB.
_INSTALLED_GIB = {"cuda": 14, "rocm": 24, "cpu": 3}


class SglangDeployment:
    """SGLang from Python packages, in its own virtual environment."""

    build = SglangSettings
    # Source: SGLang 0.5.23 (entrypoints/http_server.py): 503 until its first request is answered.
    ready_path = "/health"

    def needs(self, build: SglangSettings) -> EngineNeeds:
        """The driver, cards, C library and Python that the wheels need."""
        built_for = build.cuda_of_wheels or ("13.0" if build.numbers >= _CUDA_13 else "12.9")
        cuda = built_for if build.device == "cuda" else None
        of_cuda = cuda_needs(cuda, ENGINE_CAPABILITY)
        package, _, version = build.requirement.partition("==")
        return EngineNeeds(
            name=f"{package.partition('[')[0]} {version}",
            device=build.device,
            cuda=cuda,
            driver_branch=of_cuda.driver_branch,
            compute_capability=of_cuda.compute_capability,
            glibc=(2, 34),
            python=build.least_python,
            package_indexes=(build.package_index,),
            installed_gib=_INSTALLED_GIB[build.device],
            older_build=_OLDER if cuda and build.numbers >= _CUDA_13 else None,
        )

    def installation(self, build: SglangSettings) -> Installation:
        """Install with uv, from an index or a wheelhouse, with a lock if there is one."""
        after = (LINK_CUDA,) if build.device == "cuda" else ()
        return installation(build, _FIRST_START, after)

    def start(
        self, replica: Replica, served: Served, build: SglangSettings, placement: Placement
    ) -> Start:
        """Start `sglang.launch_server` with a file of options."""
        return start.start(replica, served, build, placement)

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """Those of its parsers of tool calls and of reasoning."""
        return parser_abilities(served)

    def adapter_model(self, model: str, adapter: str) -> str:
        """Both, as `MODEL:ADAPTER`."""
        return f"{model}:{adapter}"

    def all_reduce_python(self, build: SglangSettings) -> str | None:
        """The environment's own Python: its torch is the one that replicas reduce with."""
        return f"{engine_folder(build.version_name)}/bin/python"
