"""Locks: exact packages with hashes, in pip's format. Pure, except that it reads shipped files."""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

from roles.engine.needs import Device

_COMMENT = re.compile(r"(^|\s)#.*")
# Variables of uv that change nothing of what is chosen.
_KEPT = ("UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_OFFLINE")
_HASH = re.compile(r"--hash=sha(256|384|512):[0-9a-f]{64,128}(?![0-9a-f])")


# What a torch for CUDA brings, as no other does (by its packages on the public index).
_OF_CUDA = re.compile(r"nvidia-(cublas|cudnn|cuda-runtime|nccl)|cuda-toolkit")
# Indexes with builds for other devices: torch for CPUs, and vLLM with its torch for ROCm.
INDEXES: Mapping[Device, tuple[str, ...]] = {
    "cuda": (),
    "rocm": ("https://wheels.vllm.ai/rocm",),
    "cpu": ("https://download.pytorch.org/whl/cpu",),
}


@cache
def shipped(folder: Path, requirement: str, uv: str, device: Device = "cuda") -> str:
    """The lock in a folder for a requirement, an installer and a device; "" if there is none."""
    suffix = "" if device == "cuda" else f"-{device}"
    file = folder / f"{requirement.replace('==', '-')}{suffix}.txt"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return "" if problem_of(text, uv) else text


@lru_cache(maxsize=16)
def entries(text: str) -> Mapping[str, str]:
    """The lock's entry of each package, by its requirement ("uv==0.13.8"), without comments."""
    # Most lines of a lock are hashes without comments.
    lines = (_COMMENT.sub("", line) if "#" in line else line for line in text.splitlines())
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return {entry.split()[0]: " ".join(entry.split()) for entry in whole if entry.strip()}


def problem_of(text: str, uv: str) -> str:
    """What a lock lacks to determine every installed byte; "" if nothing."""
    found = entries(text)
    bare = [name for name, entry in found.items() if not _HASH.search(entry)]
    if bare:
        return f"{len(bare)} of its {len(found)} packages have no hash ({', '.join(bare[:3])})"
    if uv not in found:
        return f"it has no {uv}, which installs the others"
    return ""


def device_problem(text: str, device: Device) -> str:
    """That a lock for another device has packages of CUDA's; "" if it has none."""
    if device == "cuda":
        return ""
    found = [name for name in entries(text) if _OF_CUDA.match(name)]
    if not found:
        return ""
    return f"it has {found[0]}, so its torch is the one for CUDA, and device is {device}"


def lock_remedy(requirement: str, uv: str, device: Device = "cuda", beside: str = "") -> str:
    """The command that creates the lock of a requirement, and of another one beside it."""
    option = "" if device == "cuda" else f" --device {device}"
    option += f" --with {beside}" if beside else ""
    return f"python -m roles.engine lock {requirement} --uv {uv}{option} > FILE"


def lock_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for the command: without those by which uv would take packages from elsewhere.

    An index or folder of this machine's may have another build under the same version, such as
    torch for CPUs: the lock would name its hashes, and hosts would refuse or miss the real one.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("UV_") or name in _KEPT
    }


def lock_command(
    uv: str, python: str, indexes: Sequence[str], find_links: str | None, remade_by: str
) -> list[str]:
    """The command that prints a lock for the requirements on its standard input.

    The lock covers every platform and every Python from `python` on. `indexes`: the default one
    first, unless that is the public one.
    """
    command = [uv, "pip", "compile", "--no-config", "--quiet", "--no-annotate", "--universal"]
    command += ["--generate-hashes", "--python-version", python]
    command += ["--custom-compile-command", remade_by]
    if find_links:
        command += ["--no-index", "--find-links", find_links]
    for option, url in zip(("--default-index", *["--index"] * len(indexes)), indexes, strict=False):
        command += [option, url]
    return [*command, "-"]
