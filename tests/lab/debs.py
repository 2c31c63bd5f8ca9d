"""Debian packages and flat repositories, made from text: the lab's stand-ins."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from .paths import KEYS, sh

GNUPG = KEYS / "gnupg"
REPOSITORY_KEY = KEYS / "driver-repository.asc"
"""The public key of the stand-in driver repository, as `signed-by` takes it."""
SUITE_INDEX = "main/binary-amd64"
KEY_OWNER = "Lab driver repository <lab@example.invalid>"


@dataclass(frozen=True)
class Deb:
    """A package: its control fields, files (path → mode and content), links and scripts."""

    name: str
    version: str
    depends: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[int, str | bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    architecture: str = "amd64"

    @property
    def control(self) -> str:
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "The lab <lab@example.invalid>",
            "Section": "misc",
            "Priority": "optional",
            "Description": f"stand-in for {self.name}",
        }
        if self.depends:
            fields["Depends"] = self.depends
        return "".join(f"{key}: {value}\n" for key, value in (fields | self.fields).items())


def build_deb(deb: Deb, folder: Path) -> None:
    """Write the package's file into `folder`."""
    root = folder / f"{deb.name}_{deb.version}.root"
    for path, (mode, content) in deb.files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
    for path, target in deb.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(deb.control)
    settings = [path for path in deb.files if path.startswith("etc/")]
    if settings:
        (control / "conffiles").write_text("".join(f"/{path}\n" for path in settings))
    for name, text in deb.scripts.items():
        (control / name).write_text(text)
        (control / name).chmod(0o755)
    for each in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        each.chmod(0o755)
    # An epoch is in no file's name.
    name = f"{deb.name}_{deb.version.rpartition(':')[2]}_{deb.architecture}.deb"
    sh(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, folder / name])
    shutil.rmtree(root)


def build_repository(debs: list[Deb], folder: Path) -> None:
    """A flat repository of these packages, without a signature."""
    _build_debs(debs, folder)
    _write_index(folder, ".", folder)


def build_suite(debs: list[Deb], folder: Path, suite: str) -> Path:
    """A repository with a suite and its component main, without a signature; the suite's folder."""
    _build_debs(debs, folder / "pool")
    in_suite = folder / "dists" / suite
    _write_index(folder, "pool", in_suite / SUITE_INDEX)
    return in_suite


def _build_debs(debs: list[Deb], folder: Path) -> None:
    folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda deb: build_deb(deb, folder), debs))


def _write_index(root: Path, packages: str, folder: Path) -> None:
    index = sh(["dpkg-scanpackages", "--multiversion", packages], cwd=root).stdout
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_text(index)
    (folder / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))


def sign_repository(folder: Path, origin: str, label: str, suite: str | None = None) -> None:
    """Write and sign the Release of a flat repository, or of a suite in its folder."""
    lines = [f"Origin: {origin}", f"Label: {label}", "Architectures: amd64", f"Date: {date()}"]
    lines += [f"Suite: {suite}", f"Codename: {suite}", "Components: main"] if suite else []
    lines.append("SHA256:")
    place = f"{SUITE_INDEX}/" if suite else ""
    for name in (f"{place}Packages", f"{place}Packages.gz"):
        data = (folder / name).read_bytes()
        lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}")
    (folder / "Release").write_text("\n".join(lines) + "\n")
    release = folder / "Release"
    try:
        gpg("--clearsign", "-o", folder / "InRelease", release)
        gpg("--armor", "--detach-sign", "-o", folder / "Release.gpg", release)
        gpg("--export", "-o", folder / "cuda-archive-keyring.gpg")
    finally:
        end_agent()


def date() -> str:
    return formatdate(usegmt=True).replace("GMT", "UTC")


def make_repository_key() -> None:
    """Make the key that signs the driver repository, once."""
    if REPOSITORY_KEY.exists():
        return
    shutil.rmtree(GNUPG, ignore_errors=True)
    GNUPG.mkdir(mode=0o700)
    try:
        gpg("--passphrase", "", "--quick-generate-key", KEY_OWNER, "rsa2048", "sign", "never")
        partial = REPOSITORY_KEY.with_suffix(".partial")
        gpg("--yes", "--armor", "--export", "-o", partial)
        partial.chmod(0o644)
        partial.rename(REPOSITORY_KEY)
    finally:
        end_agent()


def gpg(*arguments: str | Path) -> None:
    """gpg with the lab's own keys."""
    sh(["gpg", "--homedir", GNUPG, "--batch", "--quiet", *arguments], env=plain_environment())


def end_agent() -> None:
    """gpg starts an agent that would stay."""
    sh(["gpgconf", "--homedir", GNUPG, "--kill", "all"], check=False, env=plain_environment())


def plain_environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C"}
