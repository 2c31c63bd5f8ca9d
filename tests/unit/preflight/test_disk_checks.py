"""Checks of disks, weights and memory."""

from typing import Any

import pytest

from roles.engine import OllamaSettings, VllmSettings, engine_needs
from roles.preflight.needs import Weights
from tests.unit.preflight.hosts import (
    BARE,
    GIB,
    HUB,
    all_checks,
    assert_only,
    disk,
    disks,
    driver,
    needs,
    not_passed,
    report,
)

Parts = dict[str, Any]


DISK = [
    (
        {"_opt_llm_engines": disk("/opt/llm/engines", "/opt", 5)},
        {},
        "disk-engine",
        "fail",
        ("5.0", "/opt", "/opt/llm/engines"),
    ),
    (
        {"_tmp": disk("/tmp", "/tmp", 7)},
        {},
        "disk-temporary",
        "warn",
        ("7.0", "/tmp", "12.0", "size=16G"),
    ),
    (
        {HUB.replace("/", "_"): disk(HUB, "/var", 10)},
        {"hub": f"folder {HUB}\nfile {2 * GIB} -"},
        "weights:Qwen/Qwen2.5-7B-Instruct",
        "fail",
        ("10.0", "/var", "/var/cache/llm/hub/hub/models--Qwen--Qwen2.5-7B-Instruct"),
    ),
    (
        {"_var_cache_llm": disk("/var/cache/llm", "/var", 200, "rw,nosuid,noexec")},
        {},
        "mounts",
        "fail",
        ("/var", "/var/cache/llm", "/etc/fstab"),
    ),
    (
        {"_var": disk("/var", "/var", 200, "ro,errors=remount-ro")},
        {},
        "mounts",
        "fail",
        ("/var",),
    ),
    (
        {"_var": disk("/var", "/var").replace("900000", "12")},
        {},
        "inodes",
        "fail",
        ("/var", "12"),
    ),
    (
        {},
        {"memory": "MemTotal: 8388608 kB"},
        "memory",
        "warn",
        ("8.0", "13.0"),
    ),
]


@pytest.mark.parametrize(("changed", "parts", "name", "outcome", "mentions"), DISK)
def test_disks(changed: Parts, parts: Parts, name: str, outcome: str, mentions: tuple[str, ...]):
    found = not_passed(**{"disks": disks(**changed), **parts})
    assert_only(found, name, outcome, mentions)


def test_what_fits_alone_may_not_fit_together():
    small = {folder.replace("/", "_"): disk(folder, "/", 22) for folder in
             ("/", "/var", "/opt/llm/engines", "/var/cache/llm", "/tmp", HUB)}  # fmt: skip
    assert not_passed(disks=disks(**small)) == {
        "disk-together": (
            "fail",
            "22.0 GiB free on /, 28.5 GiB are needed: 12.0 GiB for vllm 0.33.0 + 16.5 GiB for "
            "Qwen/Qwen2.5-7B-Instruct",
            "make room on /, or put /var/cache/llm on another disk",
        )
    }


FOLDER = Weights("/srv/models/qwen", 15 * GIB)
SHARDS = f"file {9 * GIB} model-1.safetensors\nfile {6 * GIB} model-2.safetensors"
WEIGHTS_OUTCOMES = [
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json\n"
     f"{SHARDS}", None),
    ("folder /srv/models/qwen", "/srv/models/qwen is not on the host"),
    ("folder /srv/models/qwen\nreal /home/ann/qwen\nreadable yes\nfile 7 config.json",
     "/srv/models/qwen is in /home, which the engines' units do not see"),
    (f"folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\n{SHARDS}",
     "/srv/models/qwen has no config.json"),
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json",
     "/srv/models/qwen has no *.safetensors"),
    (f"folder /srv/models/qwen\nreal /srv/models/qwen\nfile 700 config.json\n{SHARDS}",
     "others than root cannot read /srv/models/qwen"),
    ("folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\nfile 700 config.json\n"
     "file 9000000 model.safetensors",
     "8.6 MiB in /srv/models/qwen, about 15.0 GiB are expected"),
]  # fmt: skip


COPIES = "/var/cache/llm/ollama/sources/abc"
COPIED = Weights("/srv/m.gguf", 15 * GIB, copy_folder=COPIES)
GGUF = "folder /srv/m.gguf\nreal /srv/m.gguf\nreadable yes\nfile 16106127360 m.gguf"


@pytest.mark.parametrize(
    ("copied", "free", "outcome"),
    [(0, 10, "fail"), (0, 20, "pass"), (15, 10, "pass")],
)
def test_a_file_that_is_copied_needs_room_once(copied: int, free: int, outcome: str):
    found = all_checks(
        wanted=needs(weights=(COPIED,), hub=None),
        weights=GGUF,
        hub=f"folder {COPIES}\nfile {copied * GIB} -",
        disks=disks(**{COPIES.replace("/", "_"): disk(COPIES, "/var", free)}),
    )
    assert found["disk-copy:/srv/m.gguf"].outcome == outcome
    assert found["weights:/srv/m.gguf"].outcome == "pass"


@pytest.mark.parametrize(("weights", "problem"), WEIGHTS_OUTCOMES)
def test_a_folder_of_weights(weights: str, problem: str | None):
    found = not_passed(wanted=needs(weights=(FOLDER,), hub=None), weights=weights)
    assert [text for _, text, _ in found.values()] == ([problem] if problem else [])


def test_no_room_for_a_single_file():
    assert not_passed(sudo=False, no_room="") == {
        "temporary-files": (
            "fail",
            "neither /dev/shm nor /tmp takes a file (full, or read-only)",
            "make room there: df -h /dev/shm /tmp; df -i /tmp",
        )
    }


@pytest.mark.parametrize(
    ("gpus", "shm_gib", "memory_gib", "outcome", "seen_"),
    [
        (1, None, 251, "skipped", "no replica has more than one GPU"),
        # What the tuning does by itself.
        (2, None, 251, "pass", "64.0 MiB; the tuning makes it 10.0 GiB"),
        (2, None, 16, "pass", "64.0 MiB; the tuning makes it 8.0 GiB"),
        (2, 16, 251, "pass", "64.0 MiB; the tuning makes it 16.0 GiB"),
    ],
)
def test_two_gpus_a_replica_want_shared_memory(
    gpus: int, shm_gib: int | None, memory_gib: int, outcome: str, seen_: str
):
    memory = f"MemTotal: {memory_gib * 2**20} kB"
    host = report(shm="tmpfs 65536 0 65536 0% /dev/shm", memory=memory)
    found = all_checks(host, needs(most_gpus=gpus, shm_gib=shm_gib))["shared-memory"]
    assert (found.outcome, found.evidence) == (outcome, seen_)
    assert all_checks(wanted=needs(most_gpus=gpus, shm_gib=shm_gib))["shared-memory"].evidence == (
        "125.8 GiB" if gpus > 1 else "no replica has more than one GPU"
    )


DRIVER_DISKS = [
    ({"_usr": disk("/usr", "/usr", 1.4)}, {"disk-driver:/usr"}),
    ({"_boot": disk("/boot", "/boot", 0.09)}, {"disk-driver:/boot"}),
    ({"_boot": disk("/boot", "/boot", 0.1)}, set()),
    # Each has room, but not both.
    (
        {"_usr": disk("/usr", "/x", 2), "_var": disk("/var", "/x", 2)},
        {"disk-together"},
    ),
]


@pytest.mark.parametrize(("folders", "names"), DRIVER_DISKS)
def test_room_for_a_driver(folders: Parts, names: set[str]):
    """The driver stage's own numbers, and its way of adding them up."""
    full = disks(**folders)
    assert set(not_passed(report(**BARE), disks=full)) == names
    assert not_passed(disks=full) == {}, "a driver that suits takes no room"
    never = not_passed(report(**BARE), driver(install="never"), disks=full)
    assert set(never) == {"driver", "gpu:driver-missing"}


@pytest.mark.parametrize(("gib", "outcome"), [(12, "warn"), (14.9, "pass"), (15.1, "pass")])
def test_weights_that_are_not_whole(gib: float, outcome: str):
    files = f"file 700 config.json\nfile {int(gib * GIB)} model.safetensors"
    weights = f"folder /srv/models/qwen\nreal /srv/models/qwen\nreadable yes\n{files}"
    found = all_checks(wanted=needs(weights=(FOLDER,), hub=None), weights=weights)
    assert found["weights:/srv/models/qwen"].outcome == outcome


def test_only_wheels_are_unpacked_in_the_temporary_folder():
    """An archive is unpacked beside the engines, however little room /tmp has."""
    small = disks(_tmp=disk("/tmp", "/tmp", 1))
    archive = OllamaSettings(archive="/srv/ollama.tgz", sha256="a" * 64)
    engines = (engine_needs(archive),)
    found = all_checks(wanted=needs(engines=engines), disks=small)
    assert found["disk-temporary"].outcome == "skipped"
    both = needs(engines=(*engines, engine_needs(VllmSettings())))
    told = all_checks(wanted=both, disks=small)["disk-temporary"]
    assert told.outcome == "fail" and "12.0 GiB are needed to unpack vllm 0.33.0" in told.evidence


ADAPTERS = {f"/opt/llm/adapters/{letter * 16}": 3 * GIB for letter in "ab"}
THERE, GONE = ADAPTERS


def adapters(free_gib: int, *present: str) -> Any:
    """The check of adapters, where some of them are there."""
    weights = "\n".join(f"folder {path}\nreal {path}" for path in present)
    disks_ = disks(_opt_llm_adapters=disk("/opt/llm/adapters", "/opt", free_gib))
    wanted = needs(adapters=ADAPTERS)
    return all_checks(wanted=wanted, disks=disks_, weights=weights)["disk-adapters"]


def test_adapters_need_room_until_they_are_there():
    assert adapters(5).outcome == "fail" and "6.0 GiB are needed" in adapters(5).evidence
    assert adapters(5, THERE).outcome == "pass"
    assert adapters(1, THERE).outcome == "fail" and "3.0 GiB" in adapters(1, THERE).evidence
    assert adapters(1, THERE, GONE).outcome == "pass"


def test_adapters_are_not_looked_for_without_root():
    found = all_checks(wanted=needs(adapters=ADAPTERS), sudo=False)
    assert found["disk-adapters"].outcome == "skipped"


def test_a_hidden_folder_of_a_draft_names_its_setting():
    draft = Weights("/root/draft", GIB, setting="services[].speculative.weights")
    found = all_checks(
        wanted=needs(weights=(draft,)), weights="folder /root/draft\nreal /root/draft"
    )["weights:/root/draft"]
    assert "change services[].speculative.weights" in found.remedy
