"""The deployment of llama.cpp: its requirements, installation and start."""

import re
import shlex

from roles.engine.deployment import (
    Ability,
    Busy,
    Installation,
    KeyFile,
    Phase,
    Placement,
    Served,
    Start,
    Watch,
    own_environment,
)
from roles.engine.llama_cpp.install import script
from roles.engine.llama_cpp.options import options_of
from roles.engine.llama_cpp.settings import LlamaCppSettings
from roles.engine.needs import EngineNeeds, OlderBuild, cuda_needs
from roles.host.paths import CACHE, engine_folder
from roles.plan import Replica

KEYS = "keys"
_OLDER = OlderBuild(5.0, "llama.cpp's archive for CUDA 12")
# The minor number and the point are optional. No \b: an underscore may follow.
_CUDA = re.compile(r"cu(?:da)?[-_]?(1[0-9])(?:\.([0-9]{1,2})|([0-9]))?(?![0-9])")
# llama-server closes its port and then waits for its clients without limit. So requests are drained
# before it is stopped.
STOP_S = 10

# Source: llama.cpp b11434 (server-context.cpp, common.cpp). It says nothing of how far it is.
PHASES = (
    Phase("fitting params to device memory", "fit to memory"),
    Phase("loading model '", "load"),
    Phase("warming up the model", "warm up"),
)

# Source: llama.cpp b11434 (server-context.cpp): calls of llama_decode, one a batch of a prompt or a
# token of each running request.
REQUESTS = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
WATCH = Watch("/metrics", ("llamacpp:n_decode_total",), REQUESTS, keyed=True)


class LlamaCppDeployment:
    """llama-server from an archive whose digest is in the inventory."""

    build = LlamaCppSettings
    # Source: llama.cpp b11434 (tools/server/README.md): 503 while the model loads.
    ready_path = "/health"

    def needs(self, build: LlamaCppSettings) -> EngineNeeds:
        """The requirements of upstream's builds; an archive without a CUDA version in its name
        counts as 12.8.

        Source: upstream's release.yml (architectures of each CUDA: all that CUDA knows).
        """
        cuda = _cuda(build) if build.device == "cuda" else None
        of_cuda = cuda_needs(cuda)
        return EngineNeeds(
            name=f"llama.cpp {build.version}",
            device=build.device,
            cuda=cuda,
            driver_branch=of_cuda.driver_branch,
            compute_capability=of_cuda.compute_capability,
            glibc=build.glibc,
            built_below=build.archive_glibc if build.archive and build.source else None,
            archives=tuple(one.source for one in (*build.archives, *build.sources)),
            # An estimate: kernels for many cards; the build for CPUs took 0.03 GiB.
            installed_gib=1 if build.device == "cpu" else 2,
            older_build=_OLDER if cuda else None,
        )

    def installation(self, build: LlamaCppSettings) -> Installation:
        """Unpack the archive into its versioned folder."""
        return Installation(build.version_name, build.system_packages, script(build))

    def start(
        self, replica: Replica, served: Served, build: LlamaCppSettings, placement: Placement
    ) -> Start:
        """Start llama-server with all layers on its GPUs; its keys are a credential."""
        words = [f"{engine_folder(build.version_name)}/llama-server"]
        for name, value in options_of(replica, served, placement.listen_address).items():
            words += [name] if value is None else [name, shlex.quote(value)]
        return Start(
            command=f'{" ".join(words)} --api-key-file "$CREDENTIALS_DIRECTORY/{KEYS}"',
            environment=_environment(replica, build, placement),
            secrets=build.secret_environment,
            credentials=(KEYS,),
            key_file=KeyFile(KEYS, "{}"),
            unit=("KillMode=control-group", f"TimeoutStopSec={STOP_S}"),
            busy=Busy("/metrics", REQUESTS),
            phases=PHASES,
            watch=WATCH,
        )

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """None that a setting names: it reads what it must recognise from the chat template."""
        return ()

    def adapter_model(self, model: str, adapter: str) -> str:
        """The adapter's own name, as any other."""
        return adapter

    def all_reduce_python(self, build: LlamaCppSettings) -> str | None:
        """None: its GPUs work in turn, without collectives."""
        return None


def _environment(replica: Replica, build: LlamaCppSettings, placement: Placement) -> dict[str, str]:
    return {
        **own_environment(replica, build, placement),
        "LLAMA_CACHE": f"{CACHE}/{replica.name}",
        # Shared libraries are in the program's folder.
        "LD_LIBRARY_PATH": engine_folder(build.version_name),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        **build.plain_environment,
    }


def _cuda(build: LlamaCppSettings) -> str:
    """The CUDA version that the archive is built for, by its name: cuda-13.1, cuda-13, cu128."""
    archive = (build.archive or "").rpartition("/")[2]
    named = _CUDA.search(archive)
    return f"{named[1]}.{named[2] or named[3] or 0}" if named else "12.8"
