"""The installation of an engine that comes as an archive, or is built from one. Pure."""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

from roles.engine.install import COMPLETE, report_phase
from roles.host.paths import ENGINES, engine_folder


@dataclass(frozen=True)
class Archive:
    """A .tar.gz or .tar.zst, by its URL or its path on the host, and its SHA-256."""

    source: str
    sha256: str


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def given_archives(
    **named: tuple[str | None, str | None],
) -> tuple[Archive, ...]:
    """The archives that are given, each as its source and its digest; ValueError for one of both,
    with the archive's name."""
    for name, (source, digest) in named.items():
        if (source is None) != (digest is None):
            raise ValueError(f"{name} and its sha256 belong together: give both (sha256sum FILE)")
    return tuple(Archive(source, digest) for source, digest in named.values() if source and digest)


def version_folder(kind: str, version: str, device: str, digests: Iterable[str]) -> str:
    """The name of the folder of a build from archives: its version, and a digest of theirs."""
    digest = hashlib.sha256("\n".join([version, *digests]).encode()).hexdigest()
    return f"{kind}-{version}-{device}-{digest[:8]}"


def packages_of(archives: Sequence[Archive]) -> tuple[str, ...]:
    """The distribution's packages by which archives are fetched and unpacked."""
    compressed = ("zstd",) if any(one.source.endswith(".zst") for one in archives) else ()
    return ("ca-certificates", "curl", *compressed)


def archive_script(
    version_name: str, unpack: Sequence[str], program: str, first_start: Sequence[str]
) -> str:
    """Unpack archives into one folder, check what system their program is for, and start it once.
    The version's folder is valid once its last file exists; other versions stay.

    `unpack` are the lines that fill `$stage/unpacked`, made by `unpacked`. `program` is the path of
    the engine's program below the root of its folder, `first_start` a script that runs once that
    folder is `$new`.
    """
    folder = program.rpartition("/")[0]
    root = '"${program%"/' + program + '"}"'
    return "\n".join(
        [
            "set -eu",
            f"new={engine_folder(version_name)}",
            'fail() { echo "$*" >&2; exit 1; }',
            # Two concurrent deploys would remove each other's files.
            f"mkdir -p {ENGINES}; exec 9>{ENGINES}/.lock",
            "flock -n 9 || fail 'another deploy installs an engine on this host; wait for it and "
            "run again'",
            # What others left that were killed: with the lock nobody else unpacks.
            f"rm -rf {ENGINES}/.stage-*",
            "stage=$(mktemp -d -p " + ENGINES + " .stage-XXXXXX); trap 'rm -rf \"$stage\"' EXIT",
            'mkdir "$stage/unpacked"',
            *unpack,
            f"program=$(find \"$stage/unpacked\" -type f -path '*/{program}' | head -n 1)",
            f'[ -n "$program" ] || fail "the archive holds no {program}"',
            *_SYSTEM,
            f"root={root}",
            'rm -rf "$new"; mv "$root" "$new"; chmod -R u+rwX,go+rX,go-w "$new"',
            f'chmod 755 "$new/{program}"' + (f' "$new/{folder}"' if folder else ""),
            report_phase(version_name, "first start"),
            *first_start,
            f'touch "$new/{COMPLETE}"',
        ]
    )


# What the first bytes of a program say about the system that it is for; a script says nothing.
_SYSTEM = (
    'bytes() { od -An -tx1 -j "$1" -N "$2" "$program" | tr -d \' \\n\'; }',
    'case "$(bytes 0 4)$(bytes 18 2)" in',
    "7f454c463e00) made_for=x86_64 ;; 7f454c46b700) made_for=aarch64 ;;",
    "7f454c46*) made_for='another processor' ;; c[ef]faedfe*|cafebabe*) made_for=macOS ;;",
    "4d5a*) made_for=Windows ;; *) made_for=$(uname -m) ;;",
    "esac",
    '[ "$made_for" = "$(uname -m)" ] || fail "the archive is for $made_for, and this host is '
    '$(uname -s) on $(uname -m); name the one for it. Nothing was installed"',
)


def unpacked(version_name: str, archives: Sequence[Archive]) -> tuple[str, ...]:
    """The lines that fetch archives, check their digests, and unpack them into one folder."""
    return tuple(line for one in archives for line in _unpack(version_name, one))


def _unpack(version_name: str, archive: Archive) -> tuple[str, ...]:
    source = shlex.quote(archive.source)
    fetch = (
        # netrc holds the credentials that a URL must not hold.
        f'curl -fsSL --netrc-optional --retry 3 --max-time 1800 -o "$stage/archive" {source}'
        if archive.source.startswith("http")
        else f'cp {source} "$stage/archive"'
    )
    return (
        report_phase(version_name, "download"),
        f"{fetch} >&2",
        report_phase(version_name, "unpack"),
        f'echo "{archive.sha256}  $stage/archive" | sha256sum -c --quiet - >&2 || '
        "fail 'the archive is not the one that sha256 names; nothing was installed'",
        # tar finds out by itself how it is compressed.
        'tar -xf "$stage/archive" -C "$stage/unpacked" --no-same-owner --no-same-permissions',
        'rm "$stage/archive"',
    )
