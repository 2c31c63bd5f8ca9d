"""The deployment of Ollama: its requirements, installation and start."""

import hashlib
import json
from pathlib import Path
from typing import Any

from roles.engine.archive import archive_script, unpacked
from roles.engine.deployment import (
    VISIBLE_DEVICES,
    Ability,
    Installation,
    Phase,
    Placement,
    Served,
    Start,
    Watch,
    own_environment,
)
from roles.engine.gguf.context import MICRO_BATCH
from roles.engine.needs import EngineNeeds
from roles.engine.ollama.names import parse
from roles.engine.ollama.settings import SHARED, OllamaSettings, source_folder
from roles.host.paths import engine_folder
from roles.plan import Replica

PROGRAM, TASK = "serve.py", "model.json"
_TEXT = Path(__file__).with_name(PROGRAM).read_text(encoding="utf-8")
# All layers: a number beyond any model's.
ALL_LAYERS = 999

# Source: what serve.py prints, and Ollama 0.33 (server/images.go, llm/llama_server.go).
PHASES = (
    Phase("wait for other replicas that fetch a model", "wait for another replica's fetch"),
    Phase(r"read the file ([0-9]{1,3})%", "read the model's file {}%"),
    Phase("copy the file", "copy the model's file"),
    Phase("pulling manifest", "ask the registry"),
    Phase(r"pulling [0-9a-f]{12} ([0-9]{1,3})%", "fetch the model {}%"),
    Phase("verifying sha256 digest", "check what was fetched"),
    Phase("parsing GGUF|creating new layer|writing manifest", "make the model"),
    Phase("load the model", "load"),
    Phase("the model is loaded", "first token"),
)


# It has no metrics. Its engine, a llama-server at a port of its own, answers between two steps.
WATCH = Watch("/slots", (), (), slots=True)


class OllamaDeployment:
    """Ollama from an archive whose digest is in the inventory."""

    build = OllamaSettings
    # It listens before its model is loaded, and has nothing that tells.
    ready_path = "/api/version"

    def needs(self, build: OllamaSettings) -> EngineNeeds:
        """The requirements of upstream's archive.

        Source: docs/gpu.mdx and Dockerfile of 0.33 (built on AlmaLinux 8).
        """
        cuda = build.device == "cuda"
        return EngineNeeds(
            name=f"Ollama {build.version}",
            device=build.device,
            cuda="12.4" if cuda else None,
            driver_branch=550 if cuda else None,
            compute_capability=5.0 if cuda else None,
            glibc=(2, 28),
            archives=tuple(one.source for one in build.archives),
            # An estimate: libraries of two versions of CUDA, or of ROCm.
            installed_gib=8,
        )

    def installation(self, build: OllamaSettings) -> Installation:
        """Unpack the archives into the versioned folder."""
        script = archive_script(
            build.version_name,
            unpacked(build.version_name, build.archives),
            "bin/ollama",
            [
                # It asks no server that may run here for its version.
                'said=$(HOME=$stage OLLAMA_HOST=127.0.0.1:1 timeout 60 "$new/bin/ollama" '
                '--version 2>&1) || true; echo "$said" >&2',
                # 0.33.1 is neither 0.33.10 nor 0.33.1-rc1.
                f'case "$said " in *"client version is {build.version}"[!0-9A-Za-z.+-]*) ;; *) '
                f"fail 'the archive does not hold Ollama {build.version}, or it does not start "
                "here' ;; esac",
            ],
        )
        return Installation(build.version_name, build.system_packages, script)

    def start(
        self, replica: Replica, served: Served, build: OllamaSettings, placement: Placement
    ) -> Start:
        """Start Ollama by a program that makes and loads its model; it takes no key."""
        task = task_of(replica, served, build, placement)
        return Start(
            command=f"python3 {PROGRAM}",
            environment=environment_of(replica, served, build, placement, task),
            files={PROGRAM: _TEXT, TASK: json.dumps(task, indent=1) + "\n"},
            secrets=build.secret_environment,
            unit=(
                "# Ollama cuts requests off when it is stopped: they are waited for before.",
                f"ExecStop=/usr/bin/python3 {PROGRAM} drain",
                "KillMode=control-group",
                f"TimeoutStopSec={placement.drain_timeout_s + 30}",
            ),
            phases=PHASES,
            watch=WATCH,
            listens_first=True,
        )

    def abilities(self, served: Served) -> tuple[Ability, ...]:
        """None that a setting names: it reads what it must recognise from the model's template."""
        return ()

    def adapter_model(self, model: str, adapter: str) -> str:
        """The adapter's own name."""
        return adapter

    def all_reduce_python(self, build: OllamaSettings) -> str | None:
        """None: its GPUs work in turn, without collectives."""
        return None


def task_of(
    replica: Replica, served: Served, build: OllamaSettings, placement: Placement
) -> dict[str, Any]:
    """The task of serve.py."""
    file = served.weights if served.weights.startswith("/") else ""
    pull = None if file else parse(served.weights)
    on_gpus = build.device != "cpu"
    return {
        "program": f"{engine_folder(build.version_name)}/bin/ollama",
        "model": served.model,
        "file": file,
        "pull": "" if file else served.weights,
        "manifest": parse(served.model).file,
        "source_folder": source_folder(served.weights),
        "insecure": pull is not None and pull.host in build.allow_http_from,
        "same_name": pull is not None and pull.same(parse(served.model)),
        "parameters": {
            "num_ctx": replica.max_model_len,
            # Otherwise Ollama takes more of the memory that it finds free.
            "num_batch": served.arguments.get("ubatch-size", MICRO_BATCH),
            "num_gpu": ALL_LAYERS if on_gpus else 0,
        },
        "on_gpus": on_gpus,
        "embeds": served.task == "embed",
        "private_port": placement.internal_port,
        "fetch_timeout_s": build.fetch_timeout_s,
        "drain_timeout_s": placement.drain_timeout_s,
    }


def environment_of(
    replica: Replica,
    served: Served,
    build: OllamaSettings,
    placement: Placement,
    task: dict[str, Any],
) -> dict[str, str]:
    """The environment of a replica; what llama-server takes is handed on to it by Ollama."""
    own = own_environment(replica, build, placement)
    if build.device == "rocm":
        # Ollama hands its cards to llama-server by this one.
        own["ROCR_VISIBLE_DEVICES"] = own.pop(VISIBLE_DEVICES["rocm"])
    address = placement.listen_address
    host = f"[{address}]" if ":" in address else address
    split = ",".join(f"{part:g}" for part in replica.shape.tensor_split)
    return {
        **own,
        "OLLAMA_HOST": f"{host}:{replica.port}",
        "OLLAMA_MODELS": f"{SHARED}/{_digest(task)}",
        "OLLAMA_CONTEXT_LENGTH": str(replica.max_model_len),
        "OLLAMA_NUM_PARALLEL": str(served.min_concurrency),
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_LOAD_TIMEOUT": f"{build.load_timeout_s}s",
        "OLLAMA_MAX_QUEUE": str(build.max_queue),
        "OLLAMA_SCHED_SPREAD": "1" if len(replica.gpus) > 1 else "0",
        # The plan counts with it.
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": str(served.arguments.get("cache-type-k", "f16")),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
        # A replica starts as planned or not at all.
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_ENDPOINT_SLOTS": "1",
        **({"LLAMA_ARG_TENSOR_SPLIT": split} if split else {}),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        **build.plain_environment,
    }


def _digest(task: dict[str, Any]) -> str:
    """A short name for the model that is made: replicas that differ in it share no name."""
    made = {name: task[name] for name in ("model", "file", "pull", "parameters")}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
