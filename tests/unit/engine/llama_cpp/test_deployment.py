"""How llama.cpp is installed and started: the script is run for real, below a folder."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError

from roles.engine import LlamaCppSettings, Placement, Served, deployment
from roles.hardware import declared_hardware
from roles.host.paths import ENGINES
from roles.plan import Replica
from roles.topology import ServiceSettings, plan_host
from tests.gguf_models import gguf_model

SERVER = "#!/bin/sh\necho version: 11434 >&2\n"
PLACE = Placement("10.0.0.5", 29500, 300)


def settings(**values: Any) -> LlamaCppSettings:
    given = {"archive": "https://example.com/llama-b11434.tar.gz", "sha256": "a" * 64}
    return LlamaCppSettings.model_validate(given | values)


@pytest.mark.parametrize(
    ("archive", "cuda", "branch", "capability"),
    [
        ("llama-b11434-bin-ubuntu-x64.tar.gz", "12.8", 525, 5.0),
        ("llama-b11434-bin-ubuntu-cuda-13.1-x64.tar.gz", "13.1", 580, 7.5),
        ("llama-cu128.tar.gz", "12.8", 525, 5.0),
        ("llama-cu131-x64.tar.gz", "13.1", 580, 7.5),
        ("llama-b11434-bin-ubuntu-cuda-13-x64.tar.gz", "13.0", 580, 7.5),
        ("llama-b11434-bin-ubuntu-cuda-12-x64.tar.gz", "12.0", 525, 5.0),
        ("llama-cuda13.tar.gz", "13.0", 580, 7.5),
        ("llama-cuda-13.tar.gz", "13.0", 580, 7.5),
        ("llama-cuda-13.1_x64.tar.gz", "13.1", 580, 7.5),
        ("llama_cuda-13_x64.tar.gz", "13.0", 580, 7.5),
        ("llama-cuda-13.10-x64.tar.gz", "13.10", 580, 7.5),
        ("llama-cuda-12.4.1-x64.tar.gz", "12.4", 525, 5.0),
        ("llama-cuda-13.1.tar.gz", "13.1", 580, 7.5),
        # Longer numbers are no versions of CUDA.
        ("llama-cuda-1310.tar.gz", "12.8", 525, 5.0),
        ("llama-gpu1234.tar.gz", "12.8", 525, 5.0),
        # What else stands in the URL says nothing of the build.
        ("cuda-13.1/llama.tar.gz", "12.8", 525, 5.0),
    ],
)
def test_the_archives_name_says_what_driver_and_cards_it_needs(
    archive: str, cuda: str, branch: int, capability: float
):
    build = settings(archive=f"https://example.com/{archive}")
    found = deployment(build).needs(build)
    assert (found.cuda, found.driver_branch, found.compute_capability) == (cuda, branch, capability)


def replica(gpus: int = 1) -> Replica:
    model = gguf_model("Llama-3.1-8B-Instruct" if gpus == 1 else "gemma-3-12b-it")
    service = ServiceSettings.model_validate(
        {"name": "chat", "model": model, "weights": "/srv/m.gguf", "max_model_len": 4096}
    )
    cards = [{"name": "NVIDIA GeForce RTX 3090"}] * gpus
    return plan_host(service, "gpu1", declared_hardware(cards, None)).replicas[0]


def start(build: LlamaCppSettings, of: Replica | None = None, place: Placement = PLACE):
    served = Served("chat", "/srv/my models/m.gguf", arguments={"chat-template": "a'b $(id)"})
    return deployment(build).start(of or replica(), served, build, place)


def test_the_start_line_takes_keys_as_a_credential():
    found = start(settings())
    assert found.command.endswith('--api-key-file "$CREDENTIALS_DIRECTORY/keys"')
    assert found.credentials == ("keys",)
    assert found.key_file is not None
    assert (found.key_file.name, found.key_file.line, found.key_file.several) == (
        "keys",
        "{}",
        True,
    )
    # Neither as an option nor as a variable, which others on the host could read.
    assert "--api-key " not in found.command and found.secrets == {}
    assert not any("KEY" in name for name in found.environment)


def test_a_shell_reads_the_start_line_word_by_word():
    command = start(settings()).command
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"],
        env={"CREDENTIALS_DIRECTORY": "/run/credentials/x"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[0] == f"{ENGINES}/{settings().version_name}/llama-server"
    assert words[-2:] == ["--api-key-file", "/run/credentials/x/keys"]
    assert words[words.index("--model") + 1] == "/srv/my models/m.gguf"
    assert words[words.index("--chat-template") + 1] == "a'b $(id)"
    assert words[words.index("--host") + 1] == "10.0.0.5"


def test_a_replica_sees_its_own_gpus_alone():
    of = replica(gpus=2)
    assert start(settings(), of).environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    place = Placement("10.0.0.5", 29500, 300, {1: "MIG-1"})
    found = start(settings(), of, place).environment
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("0,MIG-1", "PCI_BUS_ID")
    assert start(settings(device="rocm")).environment["HIP_VISIBLE_DEVICES"] == "0"


def test_an_inventorys_variables_are_the_replicas():
    found = start(settings(environment={"GGML_CUDA_FORCE_MMQ": "1"})).environment
    assert found["GGML_CUDA_FORCE_MMQ"] == "1"
    assert found["LD_LIBRARY_PATH"] == f"{ENGINES}/{settings().version_name}"


def test_what_its_unit_needs():
    found = start(settings())
    # It ends its port before its requests: they are waited for by its own gauges.
    assert found.unit == ("KillMode=control-group", "TimeoutStopSec=10")
    assert found.busy is not None and found.busy.path == "/metrics"
    assert "--metrics" in found.command.split()
    assert set(found.busy.gauges) == {
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
    }


@pytest.mark.parametrize(
    ("device", "cuda", "branch", "capability"),
    [("cuda", "12.8", 525, 5.0), ("rocm", None, None, None), ("cpu", None, None, None)],
)
def test_what_a_build_needs_of_a_host(device: str, cuda: str, branch: int, capability: float):
    needs = deployment(settings()).needs(settings(device=device))
    assert (needs.cuda, needs.driver_branch, needs.compute_capability) == (cuda, branch, capability)
    assert (needs.name, needs.device, needs.glibc) == ("llama.cpp b11434", device, (2, 34))
    assert needs.archives == (settings().archive,)
    assert deployment(settings()).all_reduce_python(settings()) is None


@pytest.mark.parametrize(
    "values",
    [
        {"sha256": None},
        {"archive": None},
        {"sha256": "A" * 64},
        {"sha256": "a" * 63},
        {"version": "11434"},
        {"cudart_archive": "/srv/cudart.tar.gz"},
        {"cudart_archive": "/srv/cudart.tar.gz", "cudart_sha256": "b" * 64, "device": "cpu"},
        {"source": "/srv/source.tar.gz"},
        {"environment": {"PATH": "/opt/bin"}},
        {"version": "b1; id"},
        {"archive": "ftp://example.com/x.tar.gz"},
        {"archive": "/srv/a b.tar.gz"},
        {"archive": "/srv/$(id).tar.gz"},
        {"archive": "https://example.com/x.tar.gz\n"},
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any]):
    with pytest.raises(ValidationError):
        settings(**values)


@pytest.mark.parametrize("who", ["ann:s3cr3t@", "s3cr3t@", "ann:s@cr3t@"])
def test_a_url_with_credentials_is_refused(who: str):
    """It would stand in the arguments of a shell and of curl, and in reports."""
    with pytest.raises(ValidationError, match=r"credentials.*/root/\.netrc") as raised:
        settings(archive=f"https://{who}example.com/x.tar.gz")
    assert "s3cr3t" not in str(raised.value.errors()[0]["msg"])
    # An @ in a path is none.
    for good in ("https://example.com/a@1/x.tar.gz", "/srv/a@b.tar.gz"):
        assert settings(archive=good).archive == good


def test_the_folder_follows_from_what_is_installed():
    names = {
        settings().version_name,
        settings(sha256="b" * 64).version_name,
        settings(version="b11435", archive="/srv/x.tar.gz").version_name,
        settings(device="cpu").version_name,
    }
    assert len(names) == 4 and all(name.startswith("llama_cpp-b1143") for name in names)
    # Where the same archive comes from makes no other build of it.
    assert settings(archive="/srv/x.tar.gz").version_name == settings().version_name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"archive": "/srv/llama-b11434-bin-macos-arm64.tar.gz"}, "is for macos"),
        ({"archive": "/srv/llama-b11434-bin-win-cuda-12.4-x64.zip"}, "is for win"),
        (
            {"archive": "/srv/llama-b11434-bin-ubuntu-rocm-7.2-x64.tar.gz"},
            "is for rocm, and device",
        ),
        (
            {"archive": "/srv/llama-b11434-bin-ubuntu-vulkan-x64.tar.gz"},
            "is for vulkan, and device",
        ),
        (
            {"archive": "/srv/llama-b11434-bin-ubuntu-cuda-12.8-x64.tar.gz", "device": "rocm"},
            "is for cuda, and device is rocm",
        ),
        (
            {"archive": "/srv/llama-b11434-bin-ubuntu-x64.tar.gz", "version": "b11000"},
            "is build b11434, and version is b11000",
        ),
    ],
)
def test_an_archive_for_something_else_is_refused_by_its_name(values: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        settings(**values)


CUDA_NAME = "llama-b11434-bin-ubuntu-cuda-12.8-x64.tar.gz"


@pytest.mark.parametrize(
    ("name", "device", "source", "glibc"),
    [
        # Upstream builds these on Ubuntu 24.04.
        (CUDA_NAME, "cuda", False, (2, 39)),
        (CUDA_NAME, "cuda", True, (2, 17)),
        ("llama-b11434-bin-ubuntu-rocm-7.2-x64.tar.gz", "rocm", False, (2, 34)),
        ("llama-b11434-bin-ubuntu-x64.tar.gz", "cpu", False, (2, 34)),
        ("llama-cu128.tar.gz", "cuda", False, (2, 34)),
    ],
)
def test_the_archives_name_says_what_c_library_it_needs(
    name: str, device: str, source: bool, glibc: tuple[int, int]
):
    more = {"source": "/srv/s.tar.gz", "source_sha256": "c" * 64} if source else {}
    build = settings(archive=f"https://example.com/{name}", device=device, **more)
    needs = deployment(build).needs(build)
    assert (needs.glibc, needs.built_below) == (glibc, (2, 39) if source else None)
    assert ("cmake" in build.system_packages) is source


def archive(folder: Path, files: Mapping[str, str], name: str = "llama.tar.gz") -> Path:
    """A .tar.gz with these files, all of them writable by anybody."""
    path = folder / name
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o666
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


class Machine:
    """A machine's folder of engines, and the script that installs one there."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.engines = folder / "engines"
        self.archive = archive(folder, files)
        self.digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()

    def build(self, **values: Any) -> LlamaCppSettings:
        return settings(**{"archive": str(self.archive), "sha256": self.digest} | values)

    def install(
        self, build: LlamaCppSettings, path: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        script = deployment(build).installation(build).script
        assert ENGINES in script
        return subprocess.run(
            ["sh", "-c", script.replace(ENGINES, str(self.engines))],
            env={**os.environ, "PATH": path or os.environ["PATH"]},
            capture_output=True,
            text=True,
        )

    def installed(self) -> set[str]:
        """Names of what is in the folder, but for the lock."""
        return {name for name in os.listdir(self.engines) if name != ".lock"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {"build/bin/llama-server": SERVER, "build/bin/libggml.so": "x"})


def test_an_archive_is_unpacked_into_the_builds_folder(machine: Machine):
    build = machine.build()
    done = machine.install(build)
    assert done.returncode == 0, done.stderr
    assert machine.installed() == {build.version_name}
    folder = machine.engines / build.version_name
    assert {path.name for path in folder.iterdir()} == {
        "llama-server",
        "libggml.so",
        ".complete",
    }
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes["llama-server"] == 0o755
    # Nobody but its owner may change what replicas run.
    assert all(mode & 0o022 == 0 for mode in modes.values())


class _Closed(SimpleHTTPRequestHandler):
    """Files for whoever knows the password."""

    def do_GET(self) -> None:
        if self.headers["Authorization"] == "Basic " + b64encode(b"ann:s3cr3t").decode():
            return super().do_GET()
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_credentials_for_a_url_come_from_netrc(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(_Closed, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/{machine.archive.name}"
        refused = machine.install(machine.build(archive=url))
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password s3cr3t\n")
        done = machine.install(machine.build(archive=url))
        running.shutdown()
    assert refused.returncode != 0 and "401" in refused.stderr
    assert done.returncode == 0, done.stderr


def test_another_archive_than_the_named_one_is_not_installed(machine: Machine):
    done = machine.install(machine.build(sha256="0" * 64))
    assert done.returncode != 0
    assert "the archive is not the one that sha256 names" in done.stderr
    assert machine.installed() == set()


@pytest.mark.parametrize(
    "files",
    [
        {"build/bin/llama-cli": SERVER},
        {"build/bin/llama-server": "#!/bin/sh\nexit 1\n"},
        {"build/bin/llama-server": "not a program\n"},
    ],
)
def test_an_archive_without_a_server_that_starts_does_not_count(
    tmp_path: Path, files: dict[str, str]
):
    machine = Machine(tmp_path, files)
    build = machine.build()
    assert machine.install(build).returncode != 0
    assert not (machine.engines / build.version_name / ".complete").exists()


def test_a_half_made_folder_is_replaced_and_others_stay(machine: Machine):
    build = machine.build()
    broken = machine.engines / build.version_name
    broken.mkdir(parents=True)
    (broken / "half").write_text("")
    other = machine.engines / "vllm-0.33.0"
    other.mkdir()
    # What an installation was unpacking when it was killed.
    (machine.engines / ".stage-x1y2z3/unpacked").mkdir(parents=True)
    assert machine.install(build).returncode == 0
    assert [path.name for path in machine.engines.glob(".stage-*")] == []
    assert machine.installed() == {build.version_name, other.name}
    assert not (broken / "half").exists() and (broken / ".complete").exists()


def test_two_deploys_do_not_install_at_once(machine: Machine):
    machine.engines.mkdir()
    held = subprocess.Popen(
        ["flock", str(machine.engines / ".lock"), "sh", "-c", "echo held; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdout is not None and held.stdout.readline() == b"held\n"
    done = machine.install(machine.build())
    held.communicate(b"\n")
    assert done.returncode != 0 and "another deploy installs an engine" in done.stderr
    assert machine.installed() == set()


def test_libraries_of_their_own_archive_lie_beside_the_program(machine: Machine, tmp_path: Path):
    more = archive(tmp_path, {"cudart/lib/libcudart.so.12": "x", "cudart/README": "x"}, "c.tar.gz")
    digest = hashlib.sha256(more.read_bytes()).hexdigest()
    build = machine.build(cudart_archive=str(more), cudart_sha256=digest)
    done = machine.install(build)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (machine.engines / build.version_name).iterdir()}
    assert names == {"llama-server", "libggml.so", "libcudart.so.12", ".complete"}
    assert machine.install(
        machine.build(cudart_archive=str(more), cudart_sha256="0" * 64)
    ).returncode


def test_an_archive_for_another_processor_is_not_installed(tmp_path: Path):
    if os.uname().machine != "x86_64":
        pytest.skip("the program in this archive is made up for x86_64")
    head = "\x7fELF\2\1\1" + "\0" * 9 + "\2\0\x37\0"
    machine = Machine(tmp_path, {"build/bin/llama-server": head})
    done = machine.install(machine.build())
    assert done.returncode != 0 and "the archive is for another processor" in done.stderr
    assert machine.installed() == set()


SOURCE = {
    "llama.cpp-b11434/ggml/README": "",
    "llama.cpp-b11434/main.c": "int main(void) { return 0; }\n",
    "llama.cpp-b11434/CMakeLists.txt": """cmake_minimum_required(VERSION 3.14)
project(llama C)
if(NOT LLAMA_BUILD_NUMBER STREQUAL "11434" OR LLAMA_USE_PREBUILT_UI)
  message(FATAL_ERROR "not the options that are meant")
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
add_executable(llama-server main.c)
""",
}
BUILT, UNPACKED = "build from source", "unpack"


def with_source(machine: Machine, folder: Path, files: Mapping[str, str] = SOURCE, **values: Any):
    """Settings with a small source that has llama.cpp's layout."""
    source = archive(folder, files, "source.tar.gz")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return machine.build(**{"source": str(source), "source_sha256": digest} | values)


needs_compilers = pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "ninja", "cc"))), reason="no compilers here"
)


@needs_compilers
@pytest.mark.parametrize(
    ("archive_name", "device"), [(None, "cpu"), (CUDA_NAME.replace("12.8", "99"), "cuda")]
)
def test_it_is_built_where_no_archive_suits_the_host(
    machine: Machine, tmp_path: Path, archive_name: str | None, device: str
):
    """Upstream's archives for CUDA need a newer C library than this host's, or so it says."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "getconf").write_text("#!/bin/sh\necho glibc 2.36\n")
    (fake / "getconf").chmod(0o755)
    named = machine.archive
    if archive_name:
        named = machine.archive.rename(tmp_path / archive_name)
    none = {"archive": None, "sha256": None}
    values: dict[str, Any] = {"archive": str(named)} if archive_name else none
    build = with_source(machine, tmp_path, device=device, **values)
    done = machine.install(build, path=f"{fake}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert BUILT in done.stdout
    assert (": the archive needs glibc 2.39" in done.stdout) is (archive_name is not None)
    folder = machine.engines / build.version_name
    assert (folder / "llama-server").read_bytes()[:4] == b"\x7fELF"
    # On a host with a newer one the archive does.
    if archive_name:
        (fake / "getconf").write_text("#!/bin/sh\necho glibc 2.39\n")
        shutil.rmtree(folder)
        done = machine.install(build, path=f"{fake}:{os.environ['PATH']}")
        assert done.returncode == 0 and BUILT not in done.stdout, done.stderr
        assert (folder / "llama-server").read_text() == SERVER


@needs_compilers
@pytest.mark.parametrize(
    ("files", "values", "said"),
    [
        ({**SOURCE, "llama.cpp-b11434/main.c": "no C"}, {}, "llama.cpp could not be built"),
        ({"x/main.c": "x"}, {}, "the source holds no ggml"),
        (SOURCE, {"source_sha256": "0" * 64}, "not the one that sha256 names"),
    ],
)
def test_what_cannot_be_built_is_not_installed(
    machine: Machine, tmp_path: Path, files: dict[str, str], values: dict[str, Any], said: str
):
    none: dict[str, Any] = {"archive": None, "sha256": None, "device": "cpu"}
    done = machine.install(with_source(machine, tmp_path, files, **none, **values))
    assert done.returncode != 0 and said in done.stderr
    assert machine.installed() == set()
