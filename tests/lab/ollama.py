"""Stand-ins for Ollama's archive and for a registry of models.

No package index has Ollama's program: `standins/ollama` has its documented API, and starts a real
llama-server as Ollama does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

from . import gguf, llama
from .paths import CONTROL_ADDRESS, HERE, HTTP_PORT, WWW, cached

VERSION = "0.33.0"
STAND_IN = HERE / "standins/ollama"
ARCHIVE = "ollama-linux-amd64.tgz"
REGISTRY = f"{CONTROL_ADDRESS}:{HTTP_PORT}"
MODEL = f"{REGISTRY}/library/tiny:latest"
"""The tiny model on the lab's registry."""
URL = f"http://{REGISTRY}/ollama/{ARCHIVE}"


def archive() -> Path:
    """The archive of the stand-in and the lab's llama-server, made once for each of both."""
    server = llama.llama() / "llama-server"
    recipe = repr((STAND_IN.read_text(), str(server)))
    return cached("ollama", recipe, lambda partial: pack(partial, server)) / ARCHIVE


def archive_sha256() -> str:
    """The checksum of the archive."""
    return hashlib.sha256(archive().read_bytes()).hexdigest()


def pack(folder: Path, server: Path) -> None:
    """Write ARCHIVE, laid out as upstream's, with a llama-server for CPUs."""
    with tarfile.open(folder / ARCHIVE, "w:gz", compresslevel=1) as tar:
        for name, path in {"bin/ollama": STAND_IN, "lib/ollama/llama-server": server}.items():
            member = tar.gettarinfo(path, name)
            member.mode = 0o755
            with path.open("rb") as file:
                tar.addfile(member, file)


def publish(folder: Path, model: Path, name: str = "library/tiny", tag: str = "latest") -> None:
    """Lay a GGUF file out below a folder of a file server as a registry answers for it."""
    root = folder / "v2" / name
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "manifests").mkdir(exist_ok=True)
    shutil.copyfile(model, root / "blobs" / f"sha256:{digest}")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest = {"schemaVersion": 2, "layers": [layer | {"size": model.stat().st_size}]}
    (root / "manifests" / tag).write_text(json.dumps(manifest))


def serve() -> None:
    """Show hosts the archive and the registry, at the lab's file server."""
    (WWW / "ollama").mkdir(exist_ok=True)
    shutil.copyfile(archive(), WWW / "ollama" / ARCHIVE)
    publish(WWW, gguf.gguf() / gguf.TINY)
