"""LoRA adapters on hosts: what engines share about them. Pure."""

import shlex
from collections.abc import Collection, Iterable, Mapping

from roles.engine.params import Argument
from roles.host.paths import ADAPTERS
from roles.models import Adapter

# What vLLM takes as `--max-lora-rank`.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def check_options(arguments: Mapping[str, Argument], names: Collection[str]) -> None:
    """ValueError for an option that says of adapters what the setting says."""
    for name in arguments:
        if name in names:
            raise ValueError(f"{name} in arguments contradicts adapters; leave one of them out")


def next_rank(rank: int) -> int:
    """The least of vLLM's ranks that holds a rank."""
    return next(one for one in RANKS if one >= rank)


def path_of(adapter: Adapter) -> str:
    """An adapter's path on hosts: its folder, or its one file."""
    folder = f"{ADAPTERS}/{adapter.digest}"
    return f"{folder}/{adapter.files[0][0].name}" if adapter.format == "gguf" else folder


def missing_adapters(wanted: Iterable[Adapter], there: Collection[str]) -> tuple[Adapter, ...]:
    """The adapters that a host lacks, each once; `there` are the digests of those it has."""
    found = {adapter.digest: adapter for adapter in wanted}
    return tuple(adapter for digest, adapter in found.items() if digest not in there)


def incoming(adapter: Adapter) -> str:
    """Where an adapter's files are until they are checked."""
    return f"{ADAPTERS}/.new-{adapter.digest}"


def begin_script(adapter: Adapter) -> str:
    """Make an empty folder for the files."""
    new = incoming(adapter)
    return f"umask 022; rm -rf {new} && mkdir -p {new}"


def end_script(adapter: Adapter) -> str:
    """Check the files that came, and put them in their place all at once."""
    lines = "".join(f"{digest}  {path.name}\n" for path, digest in adapter.files)
    new, place = incoming(adapter), f"{ADAPTERS}/{adapter.digest}"
    return (
        f"cd {new} && printf %s {shlex.quote(lines)} | sha256sum --check --strict >&2 && "
        f"chown -R root:root . && chmod 755 . && chmod 644 * && mv -T {new} {place}"
    )
