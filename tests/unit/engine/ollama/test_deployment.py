"""How Ollama is installed and started: the script is run for real, below a folder."""

import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from roles.driver import DriverSettings, good_enough, problems_of_declaration
from roles.engine import ENGINE_SETTINGS, OllamaSettings, Placement, Served, Start, deployment
from roles.engine.ollama.deployment import TASK
from roles.hardware import declared_hardware
from roles.host.paths import ENGINES
from roles.plan import Replica
from roles.topology import ServiceSettings, plan_host
from tests.gguf_models import gguf_model

PLACE = Placement("0.0.0.0", 29500, 300)
VERSION = "0.33.0"
PROGRAM = f'#!/bin/sh\necho "Warning: client version is {VERSION}"\n'


def settings(**values: Any) -> OllamaSettings:
    given = {"archive": "https://example.com/ollama-linux-amd64.tar.zst", "sha256": "a" * 64}
    return OllamaSettings.model_validate(given | values)


def service(**values: Any) -> ServiceSettings:
    given = {
        "name": "chat",
        "engine": "ollama",
        "model": gguf_model("Llama-3.1-8B-Instruct"),
        "weights": "/srv/m.gguf",
        "max_model_len": 4096,
        "min_concurrency": 3,
    }
    return ServiceSettings.model_validate(given | values)


def replica(gpus: str = "1x NVIDIA L40S", **values: Any) -> Replica:
    return plan_host(service(**values), "gpu1", declared_hardware(gpus, None)).replicas[0]


def start(
    build: OllamaSettings | None = None,
    of: Replica | None = None,
    weights: str = "/srv/m.gguf",
    place: Placement = PLACE,
    model: str = "acme/mine",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Start:
    build = build or settings()
    served = Served(model, weights, 3, arguments=options)
    return deployment(build).start(of or replica(), served, build, place)


def test_the_plan_is_in_its_variables():
    found = start().environment
    assert {name: text for name, text in found.items() if name.startswith("OLLAMA")} == {
        "OLLAMA_HOST": "0.0.0.0:8001",
        "OLLAMA_MODELS": found["OLLAMA_MODELS"],
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_NUM_PARALLEL": "3",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_LOAD_TIMEOUT": "600s",
        "OLLAMA_MAX_QUEUE": "512",
        "OLLAMA_SCHED_SPREAD": "0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": "f16",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
    }
    assert found["LLAMA_ARG_FIT"] == "off" and "LLAMA_ARG_TENSOR_SPLIT" not in found
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("0", "PCI_BUS_ID")
    assert start(place=Placement("::", 29500, 300)).environment["OLLAMA_HOST"] == "[::]:8001"


@pytest.mark.parametrize("reverse", [False, True])
def test_layers_over_several_cards_lie_as_planned(reverse: bool):
    """The larger card has the larger part, in the order in which the replica sees its cards."""
    cards = ["1x NVIDIA GeForce RTX 4090", "1x NVIDIA GeForce RTX 3060 12GB"]
    two = replica(" + ".join(reversed(cards) if reverse else cards),
                  model=gguf_model("gemma-3-12b-it"), max_model_len=8192)  # fmt: skip
    found = start(of=two).environment
    assert found["OLLAMA_SCHED_SPREAD"] == "1" and found["CUDA_VISIBLE_DEVICES"] == "0,1"
    split = [float(part) for part in found["LLAMA_ARG_TENSOR_SPLIT"].split(",")]
    # GiB that are free on each beside what llama-server leaves.
    large, small = reversed(split) if reverse else split
    assert large == pytest.approx(22.5, abs=0.3) and small == pytest.approx(10.6, abs=0.5)


def test_amds_cards_are_named_as_ollama_hands_them_on():
    found = start(settings(device="rocm")).environment
    assert found["ROCR_VISIBLE_DEVICES"] == "0" and "HIP_VISIBLE_DEVICES" not in found


def test_the_caches_type_is_the_services():
    of = replica(kv_cache_dtype="q8_0")
    arguments = service(kv_cache_dtype="q8_0").all_arguments
    assert start(of=of, options=arguments).environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert of.memory.kv_cache_gib == pytest.approx(replica().memory.kv_cache_gib * 17 / 32)


def task(**values: Any) -> dict[str, Any]:
    return json.loads(start(**values).files[TASK])


def test_the_model_is_made_of_a_file_or_of_a_registrys():
    file = task()
    assert (file["file"], file["pull"], file["model"]) == ("/srv/m.gguf", "", "acme/mine")
    assert file["parameters"] == {"num_ctx": 4096, "num_batch": 512, "num_gpu": 999}
    assert task(build=settings(device="cpu"))["parameters"]["num_gpu"] == 0
    pulled = task(weights="llama3.2:3b")
    assert (pulled["file"], pulled["pull"], pulled["insecure"]) == ("", "llama3.2:3b", False)
    near = settings(allow_http_from=["10.0.0.1:5000"])
    assert task(build=near, weights="10.0.0.1:5000/library/tiny")["insecure"]
    assert not task(build=near, weights="10.0.0.2:5000/library/tiny")["insecure"]
    assert task(weights="Acme/mine:latest")["same_name"] and not pulled["same_name"]


def test_replicas_share_a_models_folder_where_it_is_the_same_model():
    """One that moves to other settings does not change the model of one that still runs."""
    others: list[dict[str, Any]] = [
        {},
        {"of": replica(first_port=9001)},
        {"of": replica(max_model_len=2048)},
        {"weights": "llama3.2:3b"},
        {"model": "acme/other"},
    ]
    folders = [start(**more).environment["OLLAMA_MODELS"] for more in others]
    assert folders[0] == folders[1] and len(set(folders)) == 4


def test_it_takes_no_key_and_its_requests_are_waited_for():
    found = start()
    assert found.key_file is None and found.credentials == () and not settings().asks_for_key
    assert [one.asks_for_key for one in ENGINE_SETTINGS.values()].count(False) == 1
    assert "ExecStop=/usr/bin/python3 serve.py drain" in found.unit
    assert "TimeoutStopSec=330" in found.unit
    assert json.loads(found.files[TASK])["drain_timeout_s"] == 300


def test_an_inventorys_variables_are_the_replicas():
    found = start(settings(environment={"OLLAMA_DEBUG": "1", "MY_TOKEN": "x"}))
    assert found.environment["OLLAMA_DEBUG"] == "1" and "MY_TOKEN" not in found.environment
    assert found.secrets == {"MY_TOKEN": "x"}


@pytest.mark.parametrize(
    ("device", "driver", "capability"),
    [("cuda", 550, 5.0), ("rocm", None, None), ("cpu", None, None)],
)
def test_what_a_build_needs_of_a_host(device: str, driver: int | None, capability: float | None):
    needs = deployment(settings()).needs(settings(device=device))
    assert (needs.driver_branch, needs.compute_capability) == (driver, capability)
    assert (needs.name, needs.glibc) == ("Ollama 0.33.0", (2, 28))
    assert needs.archives == (settings().archive,)
    assert deployment(settings()).all_reduce_python(settings()) is None


def test_an_older_driver_than_it_needs_is_refused():
    needs, cards = (
        deployment(settings()).needs(settings()),
        declared_hardware("1x NVIDIA L40S", None),
    )
    for branch, good in ((535, False), (550, True), (580, True)):
        assert good_enough(DriverSettings(), needs, f"{branch}.54.15") is good
        found = problems_of_declaration(DriverSettings(branch=branch), needs, cards.gpus)
        assert [one for one in found if "older than Ollama 0.33.0 needs" in one] == found
        assert bool(found) is not good


def test_compressed_archives_need_their_program():
    assert "zstd" in settings().system_packages
    assert "zstd" not in settings(archive="/srv/ollama-linux-amd64.tgz").system_packages


def test_amd_needs_an_archive_more():
    assert settings(device="rocm").missing == (
        "rocm_archive",
        "is missing; give the archive …-rocm.tar.zst, and its sha256",
    )
    both = settings(device="rocm", rocm_archive="/srv/r.tgz", rocm_sha256="b" * 64)
    assert both.missing is None and len(both.archives) == 2
    assert OllamaSettings().missing is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sha256": None}, "belong together"),
        ({"archive": None}, "belong together"),
        ({"rocm_archive": "/srv/r.tgz"}, "belong together"),
        ({"rocm_archive": "/srv/r.tgz", "rocm_sha256": "b" * 64}, "is for device: rocm"),
        ({"version": "v0.33.0"}, "version"),
        ({"version": "latest"}, "version"),
        ({"sha256": "A" * 64}, "sha256"),
        ({"archive": "ftp://example.com/x.tgz"}, "archive"),
        ({"allow_http_from": ["http://10.0.0.1"]}, "allow_http_from"),
        ({"environment": {"OLLAMA_HOST": "0.0.0.0"}}, "follows from the host's ports"),
        ({"environment": {"OLLAMA_KEEP_ALIVE": "5m"}}, "stays loaded"),
        ({"environment": {"LLAMA_ARG_UBATCH": "64"}}, "follows from the plan"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        settings(**values)


def test_a_folder_is_of_one_version_and_archive():
    names = {
        settings().version_name,
        settings(sha256="b" * 64).version_name,
        settings(version="0.33.1").version_name,
        settings(device="cpu").version_name,
    }
    assert len(names) == 4 and all(name.startswith("ollama-0.33.") for name in names)


def elf(machine: int) -> str:
    """The begin of a Linux program for a processor, by ELF's number of it."""
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 2, machine)
    return head.decode("latin-1")


class Machine:
    """A machine's folder of engines, and the script that installs one there."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.engines, self.archive = folder / "engines", folder / "ollama.tgz"
        with tarfile.open(self.archive, "w:gz") as tar:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(text), 0o666
                tar.addfile(info, io.BytesIO(text.encode("latin-1")))
        self.digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()

    def build(self, **values: Any) -> OllamaSettings:
        return settings(**{"archive": str(self.archive), "sha256": self.digest} | values)

    def install(self, build: OllamaSettings) -> subprocess.CompletedProcess[str]:
        script = deployment(build).installation(build).script
        return subprocess.run(
            ["sh", "-c", script.replace(ENGINES, str(self.engines))],
            capture_output=True,
            text=True,
        )

    def installed(self) -> set[str]:
        return {path.parent.name for path in self.engines.glob("*/.complete")}


def with_version(version: str) -> dict[str, str]:
    """An archive whose program says a version."""
    return FILES | {"./bin/ollama": PROGRAM.replace(VERSION, version)}


FILES = {"./bin/ollama": PROGRAM, "./lib/ollama/llama-server": "x", "./lib/ollama/cuda_v12/a": "x"}


def test_an_archive_is_unpacked_beside_the_older_version(tmp_path: Path):
    machine = Machine(tmp_path, FILES)
    older = machine.engines / "ollama-0.32.0-cuda-12345678"
    older.mkdir(parents=True)
    (older / ".complete").touch()
    build = machine.build()
    done = machine.install(build)
    assert done.returncode == 0, done.stderr
    assert machine.installed() == {build.version_name, older.name}
    folder = machine.engines / build.version_name
    assert (folder / "lib/ollama/cuda_v12/a").read_text() == "x"
    modes = {path: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes[folder / "bin/ollama"] == 0o755
    assert all(mode & 0o022 == 0 for mode in modes.values())
    assert {path.name for path in machine.engines.iterdir()} == {
        *machine.installed(), ".lock"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "build", "said"),
    [
        (FILES, {"sha256": "0" * 64}, "the archive is not the one that sha256 names"),
        ({"lib/ollama/llama-server": "x"}, {}, "the archive holds no bin/ollama"),
        (FILES, {"version": "0.33.1"}, "does not hold Ollama 0.33.1"),
        (with_version("0.33.10"), {"version": "0.33.1"}, "does not hold Ollama 0.33.1"),
        (with_version("0.33.0-rc2"), {"version": "0.33.0"}, "does not hold Ollama 0.33.0"),
        (with_version("10.33.0"), {"version": "0.33.0"}, "does not hold Ollama 0.33.0"),
        ({"bin/ollama": elf(183)}, {}, "the archive is for aarch64, and this host is Linux on"),
        ({"bin/ollama": elf(21)}, {}, "the archive is for another processor, and this host"),
        ({"bin/ollama": "\xcf\xfa\xed\xfe" + "\0" * 16}, {}, "the archive is for macOS"),
        ({"bin/ollama": "MZ" + "\0" * 30}, {}, "the archive is for Windows"),
    ],
)
def test_what_is_not_what_was_named_is_not_installed(
    tmp_path: Path, files: dict[str, str], build: dict[str, Any], said: str
):
    if os.uname().machine != "x86_64":
        pytest.skip("the programs in these archives are made up for x86_64")
    machine = Machine(tmp_path, files)
    older = machine.engines / "ollama-0.32.0-cuda-12345678"
    older.mkdir(parents=True)
    (older / ".complete").touch()
    done = machine.install(machine.build(**build))
    assert done.returncode != 0 and said in done.stderr
    assert machine.installed() == {older.name}
