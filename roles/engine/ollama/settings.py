"""The settings of Ollama: the build and its archives."""

import hashlib
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from roles.engine.archive import Archive, Digest, given_archives, packages_of, version_folder
from roles.engine.build import PLANNED, Build, Source
from roles.engine.ollama.names import parse
from roles.host import Several
from roles.host.paths import CACHE

RegistryHost = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+(:[0-9]{1,5})?$")]
SHARED = f"{CACHE}/ollama"
"""Where the models of all replicas of a host are."""


def source_folder(source: str) -> str:
    """The folder of links to what is kept of a file or of a model of a registry."""
    return f"{SHARED}/sources/{hashlib.sha256(source.encode()).hexdigest()[:12]}"


_MEMORY = "the plan: max_model_len, min_concurrency and kv_cache_dtype"
_PLANNED = PLANNED | {
    "OLLAMA_HOST": "the host's ports",
    "OLLAMA_MODELS": "launch",
    "OLLAMA_CONTEXT_LENGTH": _MEMORY,
    "OLLAMA_NUM_PARALLEL": _MEMORY,
    "OLLAMA_KV_CACHE_TYPE": _MEMORY,
    "OLLAMA_FLASH_ATTENTION": _MEMORY,
    "OLLAMA_MAX_LOADED_MODELS": "the plan: a replica serves one model",
    "OLLAMA_KEEP_ALIVE": "the plan: a replica's model stays loaded",
    "OLLAMA_SCHED_SPREAD": "the plan's shape",
    "OLLAMA_GPU_OVERHEAD": "the plan",
    "OLLAMA_LOAD_TIMEOUT": "engines.ollama.load_timeout_s",
    "OLLAMA_MAX_QUEUE": "engines.ollama.max_queue",
    "OLLAMA_NO_CLOUD": "launch: nothing leaves the host",
    "OLLAMA_NOPRUNE": "launch: replicas share their files",
    **{
        f"LLAMA_ARG_{name}": "the plan"
        for name in (
            *("FIT", "FIT_TARGET", "FIT_CTX", "N_GPU_LAYERS", "SPLIT_MODE", "TENSOR_SPLIT"),
            *("MAIN_GPU", "CTX_SIZE", "N_PARALLEL", "KV_UNIFIED", "ENDPOINT_SLOTS"),
            *("CACHE_TYPE_K", "CACHE_TYPE_V", "FLASH_ATTN", "BATCH", "UBATCH"),
        )
    },
}


class OllamaSettings(Build):
    """Which Ollama hosts run, on what device, and the archives that it comes in."""

    kind: ClassVar[str] = "ollama"
    asks_for_key: ClassVar[bool] = False

    version: Annotated[
        str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-rc[0-9]+)?$", max_length=30)
    ] = Field(default="0.33.0", description="the version, which the archive must hold")
    archive: Source | None = Field(
        default=None,
        description="URL without credentials, or path on the hosts, of ollama-linux-amd64.tar.zst "
        "or .tgz; the official install script is not run, as it changes drivers and users, too",
    )
    sha256: Digest | None = Field(
        default=None, description="the archive's SHA-256; nothing else is installed"
    )
    rocm_archive: Source | None = Field(
        default=None, description="the archive that upstream adds for AMD GPUs, …-rocm.tar.zst"
    )
    rocm_sha256: Digest | None = Field(default=None, description="its SHA-256")
    allow_http_from: Several[RegistryHost] = Field(
        default=(), description="registries, by HOST or HOST:PORT, that are asked by plain http"
    )
    load_timeout_s: Annotated[int, Field(ge=10, le=86_400)] = Field(
        default=600, description="how long the load of the model may stand still"
    )
    fetch_timeout_s: Annotated[int, Field(ge=10, le=86_400)] = Field(
        default=7200,
        description="how long fetching the model, or copying its file, may take, and then its load",
    )
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=512, description="requests that wait for the model; further ones get 503"
    )

    @model_validator(mode="after")
    def _archives_are_whole(self) -> Self:
        # ValueError for one of which only half is given.
        _ = self.archives
        if self.rocm_archive and self.device != "rocm":
            raise ValueError("rocm_archive is for device: rocm; leave it out, or set the device")
        if self.hub_token_file is not None:
            raise ValueError("hub_token_file: Ollama's registries take none; leave it out")
        return self

    @classmethod
    def planned(cls) -> dict[str, str]:
        """Environment variables that an inventory may not set, and what decides them."""
        return _PLANNED

    @property
    def missing(self) -> tuple[str, str] | None:
        """An archive that the inventory does not name."""
        if self.archive is None:
            return "archive", "is missing; give ollama-linux-amd64.tar.zst, and its sha256"
        if self.device == "rocm" and self.rocm_archive is None:
            return (
                "rocm_archive",
                "is missing; give the archive …-rocm.tar.zst, and its sha256",
            )
        return None

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The archives, in the order in which they are unpacked."""
        return given_archives(
            archive=(self.archive, self.sha256),
            rocm_archive=(self.rocm_archive, self.rocm_sha256),
        )

    @property
    def version_name(self) -> str:
        """The folder name of this build: its version, and a digest of its sources."""
        digests = (one.sha256 for one in self.archives)
        return version_folder(self.kind, self.version, self.device, digests)

    @property
    def system_packages(self) -> tuple[str, ...]:
        """The distribution's packages that hosts need before the engine is installed."""
        needed = packages_of(self.archives) if self.packages is None else self.packages
        return (*needed, "nftables", "iproute2")

    def hub_folder(self, source: str) -> str:
        """Where the files of a model of a registry are, and no others'."""
        return source_folder(source)

    def copy_folder(self, source: str) -> str:
        """Where Ollama copies a GGUF file to."""
        return source_folder(source)

    def hub_page(self, source: str) -> tuple[str | None, str]:
        """The registry that has a model, and the path of its manifest there."""
        name = parse(source)
        scheme = "http" if name.host in self.allow_http_from else "https"
        return f"{scheme}://{name.host}", name.page
