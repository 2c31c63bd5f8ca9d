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
    own_environment,
)
from roles.engine.install import COMPLETE, report_phase
from roles.engine.llama_cpp.options import options_of
from roles.engine.llama_cpp.settings import LlamaCppSettings
from roles.engine.needs import EngineNeeds, OlderBuild, cuda_needs
from roles.host.paths import CACHE, ENGINES, engine_folder
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
            glibc=(2, 34),
            archives=(build.archive,) if build.archive else (),
            # An estimate: kernels for many cards; the build for CPUs took 0.03 GiB.
            installed_gib=1 if build.device == "cpu" else 2,
            older_build=_OLDER if cuda else None,
        )

    def installation(self, build: LlamaCppSettings) -> Installation:
        """Unpack the archive into its versioned folder."""
        return Installation(build.version_name, build.system_packages, _script(build))

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
            busy=Busy("/metrics", ("llamacpp:requests_processing", "llamacpp:requests_deferred")),
            phases=PHASES,
        )

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """None that a setting names: it reads what it must recognise from the chat template."""
        return ()

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


def _script(build: LlamaCppSettings) -> str:
    """Fetch the archive, check its digest, unpack it; the folder is valid once its last file
    exists."""
    new, archive = f"{ENGINES}/{build.version_name}", shlex.quote(build.archive or "")
    fetch = (
        # netrc holds the credentials that a URL must not hold.
        'curl -fsSL --netrc-optional --retry 3 --max-time 1800 -o "$stage/archive" ' + archive
        if (build.archive or "").startswith("http")
        else f'cp {archive} "$stage/archive"'
    )
    return "\n".join(
        [
            "set -eu",
            f"new={new}",
            # Two concurrent deploys would remove each other's files.
            f"mkdir -p {ENGINES}; exec 9>{ENGINES}/.lock",
            "flock -n 9 || { echo 'another deploy installs an engine on this host; wait for it and "
            "run again' >&2; exit 1; }",
            "stage=$(mktemp -d -p " + ENGINES + " .stage-XXXXXX); trap 'rm -rf \"$stage\"' EXIT",
            report_phase(build.version_name, "download"),
            f"{fetch} >&2",
            report_phase(build.version_name, "unpack"),
            f'echo "{build.sha256}  $stage/archive" | sha256sum -c --quiet - >&2 || '
            "{ echo 'the archive is not the one that sha256 names; nothing was installed' >&2; "
            "exit 1; }",
            'mkdir "$stage/unpacked"',
            'tar -xzf "$stage/archive" -C "$stage/unpacked" --no-same-owner --no-same-permissions',
            'server=$(find "$stage/unpacked" -type f -name llama-server | head -n 1)',
            '[ -n "$server" ] || { echo "the archive holds no llama-server" >&2; exit 1; }',
            'rm -rf "$new"; mv "$(dirname "$server")" "$new"; chmod -R u+rwX,go+rX,go-w "$new"',
            'chmod 755 "$new/llama-server"',
            report_phase(build.version_name, "first start"),
            'LD_LIBRARY_PATH="$new" timeout 60 "$new/llama-server" --version >&2',
            f'touch "$new/{COMPLETE}"',
        ]
    )


def _cuda(build: LlamaCppSettings) -> str:
    """The CUDA version that the archive is built for, by its name: cuda-13.1, cuda-13, cu128."""
    archive = (build.archive or "").rpartition("/")[2]
    named = _CUDA.search(archive)
    return f"{named[1]}.{named[2] or named[3] or 0}" if named else "12.8"
