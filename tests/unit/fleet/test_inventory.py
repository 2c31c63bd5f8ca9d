"""Inventory files as pyinfra reads them: levels of data, and refusal before it connects."""

import os
from pathlib import Path

import pytest

from roles.declaration import DeclarationError, InventoryFileError, time_limit
from roles.declaration.inventory import read_hosts
from roles.fleet.inventory import load

ROOT = Path(__file__).parents[3]
INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = (
    [
        ("gpu-1", {{"ssh_hostname": "192.0.2.11"}}),
        ("gpu-2", {{"ssh_hostname": "192.0.2.12", "llm": {{"gpus": "2x NVIDIA L40S"}}}}),
    ],
    {{
        "llm": {{
            "gpus": "1x NVIDIA L40S",
            "engines": {{"vllm": {{"environment": {{"A": "group"}}}}}},
        }}
    }},
)
balancers = [("lb-1", {{"ssh_hostname": "192.0.2.10"}})]
all = (
    ["gpu-1", "gpu-2", "lb-1"],
    {{
        "llm": {{
            "services": [
                {{"name": "q", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": {length}}}
            ],
            "balancer": {{"api_key_file": "{key}"}},
        }}
    }},
)
check(__file__)
"""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "api.key"
    file.write_text("k" * 32)
    file.chmod(0o600)
    return file


def written(folder: Path, text: str) -> str:
    file = folder / "site.py"
    file.write_text(text)
    return str(file)


def test_a_host_overrides_its_group_key_by_key(tmp_path: Path, key: Path):
    fleet = load(written(tmp_path, INVENTORY.format(length=4096, key=key)))
    assert fleet.name == "site"
    assert [len(host.gpus) for host in fleet.plans[0].hosts] == [1, 2]
    assert fleet.engine_of("gpu-2", "q", "vllm").environment == {"A": "group"}


def test_group_data_files_count_too(tmp_path: Path, key: Path):
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "gpu_hosts.py").write_text('llm = {"gpus": "4x NVIDIA L40S"}\n')
    fleet = load(written(tmp_path, INVENTORY.format(length=4096, key=key)))
    # The file is the group's own word, but a host has the last.
    assert [len(host.gpus) for host in fleet.plans[0].hosts] == [4, 2]


def test_group_data_of_a_misspelt_group_is_not_lost(tmp_path: Path, key: Path):
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "gpu_host.py").write_text("llm = {'drained': True}\n")
    with pytest.raises(DeclarationError, match=r"group_data/gpu_host\.py: .*mean gpu_hosts\?"):
        load(written(tmp_path, INVENTORY.format(length=4096, key=key)))


def test_secrets_are_needed_to_deploy_but_not_to_plan(tmp_path: Path):
    file = written(tmp_path, INVENTORY.format(length=4096, key=tmp_path / "nowhere"))
    assert load(file, secrets=False).plans[0].replicas
    with pytest.raises(DeclarationError, match=r"balancer\.api_key_file"):
        load(file)


def test_a_host_that_is_listed_twice_is_not_lost_in_silence(tmp_path: Path, key: Path):
    text = INVENTORY.format(length=4096, key=key)
    host = '("gpu-1", {"ssh_hostname": "192.0.2.11"}),'
    with pytest.raises(DeclarationError, match="gpu_hosts: 'gpu-1' is listed 2 times"):
        load(written(tmp_path, text.replace(host, host * 2)))


BAD_STR = "class Bad(Exception):\n    def __str__(self):\n        raise ValueError\n"
# Lines that end a file early, and what the message has beside the file's name.
ENDS = {
    "import sys; sys.exit(0)": ("line 1:", "ends the program (SystemExit)", "remove that"),
    "quit()": ("line 1:", "ends the program (SystemExit)"),
    "\nraise SystemExit('bye')": ("line 2:", "ends the program (SystemExit)"),
    "class X(BaseException): pass\nraise X": ("line 2:", "ends the program (X)"),
    "raise GeneratorExit": ("line 1:", "ends the program (GeneratorExit)"),
    "all = ([": ("line 1:", "SyntaxError"),
    "import no_such_module": ("line 1:", "ModuleNotFoundError: No module named 'no_such_module'"),
    "raise ValueError('a\\nb\\x1b[31m')": ("line 1:", "ValueError: a b [31m"),
    BAD_STR + "raise Bad": ("line 4:", "raises Bad"),
    "x = " + "-" * 200_000 + "1": ("site.py", "MemoryError"),
    "gpu_hosts = ['@vagrant']\nfrom roles.fleet.inventory import check; check(__file__)": (
        "vagrant",
    ),
    "from roles.fleet.inventory import check; check('other.py')": ("line 1:", "check(__file__)"),
    "from roles.fleet.inventory import check; check(5)": ("line 1:", "check(__file__)"),
}


def ends_well(message: str, words: tuple[str, ...]) -> bool:
    """Whether a message is printable, and has the words and the remedy."""
    lines = message.splitlines()
    return (
        all(map(str.isprintable, lines))
        and all(word in lines[0] for word in words)
        and lines[-1].startswith("Nothing was done: fix")
    )


@pytest.mark.parametrize(("text", "words"), ENDS.items(), ids=[text[:40] for text in ENDS])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, text: str, words: tuple[str, ...]):
    file = written(tmp_path, text)
    for read in (load, read_hosts):
        with pytest.raises(InventoryFileError) as caught:
            read(file)
        assert ends_well(str(caught.value), ("site.py", *words)), str(caught.value)


def test_the_inventory_of_one_machine_is_taken():
    (host,) = load("inventories/local.py", secrets=False).hosts
    assert host.name == "@local"


ENDLESS = {
    "\nwhile True: pass": "line 2:",
    "import time\ntime.sleep(99)": "line 2:",
    "import socket\na, b = socket.socketpair()\na.recv(1)": "line 3:",
    "while True:\n    try:\n        x = 1\n    except Exception:\n        pass": "line",
}


@pytest.mark.parametrize(("text", "line"), ENDLESS.items())
def test_a_file_that_never_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str
):
    monkeypatch.setattr(time_limit, "LOAD_S", 0.1)
    file = written(tmp_path, text)
    for read in (load, read_hosts):
        with pytest.raises(InventoryFileError) as caught:
            read(file)
        words = ("site.py", line, "takes longer than 0.1 s to load", "end its loop")
        assert ends_well(str(caught.value), words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"import sys\nsys.exit(0)", ("line 2:", "ends the program (SystemExit)")),
        (b"llm = {", ("line 1:", "SyntaxError")),
        (b"\xff\xfe", ("UnicodeDecodeError",)),
        (b"1 / 0", ("line 1:", "ZeroDivisionError")),
    ],
)
def test_group_data_that_does_not_run_is_named(
    tmp_path: Path, key: Path, text: bytes, words: tuple[str, ...]
):
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "gpu_hosts.py").write_bytes(text)
    with pytest.raises(InventoryFileError) as caught:
        load(written(tmp_path, INVENTORY.format(length=4096, key=key)))
    assert ends_well(str(caught.value), ("group_data/gpu_hosts.py", *words)), str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.py", "there is no such inventory file"),
        ("n" * 5000, "there is no such inventory file"),
        ("a\0.py", "there is no such inventory file"),
        ("folder", "is a folder"),
        ("fifo", "is no regular file"),
        ("loop", "is no regular file"),
        ("@local", "there is no such inventory file"),
        ("a,b", "there is no such inventory file"),
    ],
)
def test_an_inventory_that_is_no_file_is_refused(tmp_path: Path, name: str, words: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    for read in (load, read_hosts):
        with pytest.raises(InventoryFileError, match=words) as caught:
            read(str(tmp_path / name))
        assert len(str(caught.value)) < 500


RECORDED = (
    "gpu-1:\n  driver_version: '595.80'\n  gpus:\n  - {name: NVIDIA A10G, memory_mib: 23028}\n"
)


def recorded(folder: Path, key: Path, text: str) -> str:
    """An inventory whose gpu-1 is not declared, beside a recording with this text."""
    (folder / "hardware").mkdir()
    (folder / "hardware" / "site.yaml").write_text(text)
    inventory = INVENTORY.replace('"gpus": "1x NVIDIA L40S",', "")
    return written(folder, inventory.format(length=4096, key=key))


def test_hardware_that_is_not_declared_is_what_is_recorded(tmp_path: Path, key: Path):
    fleet = load(recorded(tmp_path, key, RECORDED))
    hardware = fleet.host("gpu-1").hardware
    assert hardware is not None and hardware.driver_version == "595.80"
    assert [gpu.name for gpu in hardware.gpus] == ["NVIDIA A10G"]


@pytest.mark.parametrize(
    ("text", "expected_message"),
    [
        ("gpu-1: {", "delete the file and record it anew: deploys/discover.py"),
        (RECORDED.replace("23028", "0"), "gpus.0.memory_mib"),
        (RECORDED.replace("23028", "0"), "delete the entry and record it again"),
    ],
)
def test_a_recording_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, key: Path, text: str, expected_message: str
):
    with pytest.raises(DeclarationError) as caught:
        load(recorded(tmp_path, key, text), hardware=False)
    assert expected_message in str(caught.value)


def test_hosts_may_be_unknown_until_they_are_recorded(tmp_path: Path, key: Path):
    file = recorded(tmp_path, key, "")
    assert load(file, hardware=False).plans[0].hosts == ()
    with pytest.raises(DeclarationError, match=r"hosts\[gpu-1\]\.gpus: are neither declared nor"):
        load(file)


@pytest.mark.parametrize("name", ["prod", "staging", "lab"])
def test_the_examples_refuse_hosts_that_are_not_known(name: str):
    for host in read_hosts(str(ROOT / f"inventories/{name}.py")):
        assert host.data.ssh_strict_host_key_checking == "yes"
        assert host.data.ssh_known_hosts_file


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ("name: NVIDIA L40S, memory_mib: 1", "fits no host"),
        ("name: NVIDIA L40S, memory_mib: 400", "fits no host"),
        ("name: NVIDIA L40S, memory_mib: 1000000", "is more than a NVIDIA L40S has"),
        ("name: NVIDIA L40S, memory_mib: 46068, compute_capability: 99", "gpus.0.compute"),
        ("index: 400, name: NVIDIA L40S, memory_mib: 46068", "gpus.0.index"),
        ("index: 255, name: NVIDIA L40S, memory_mib: 46068", "launch.internal_ports_from"),
    ],
)
def test_a_recording_of_no_gpu_is_refused(tmp_path: Path, key: Path, gpu: str, words: str):
    file = recorded(tmp_path, key, f"gpu-1:\n  gpus:\n  - {{{gpu}}}\n")
    text = Path(file).read_text()
    second = '("gpu-2", {"ssh_hostname": "192.0.2.12", "llm": {"gpus": "2x NVIDIA L40S"}}),'
    text = (
        text.replace(second, "")
        .replace('"gpu-2", ', "")
        .replace('"balancer": {', '"launch": {"internal_ports_from": 45000}, "balancer": {')
    )
    with pytest.raises(DeclarationError) as caught:
        load(written(tmp_path, text))
    assert words in str(caught.value)
