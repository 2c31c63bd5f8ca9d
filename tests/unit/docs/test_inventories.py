"""Every piece of an inventory in the docs is right: the settings take it, and it is planned."""

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest

from roles.declaration.reference import TABLES
from roles.declaration.settings import FleetSettings, HostSettings
from roles.fleet import LIFT, REASON, SWITCHES, TARGETS
from roles.models.settings import RecordedModel
from tests.adapters import peft
from tests.gguf_models import recorded
from tests.unit.docs.pages import PAGES, Block, blocks, inline
from tests.unit.inputs.files import locked
from tests.unit.inputs.inventories import as_written, good, problems
from tests.unit.models.published import read

PIECES = blocks("python")
# A piece is of a host if only a host has one of its keys.
OF_A_HOST = HostSettings.model_fields.keys() - FleetSettings.model_fields.keys()
MODEL = "Qwen2.5-7B-Instruct"
MEMBERS = "8x NVIDIA A100-SXM4-80GB"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that pieces name."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "api.key": f"{'a' * 32}\n",
        "secrets/code.key": f"{'b' * 32}\n",
        "locks/vllm-0.32.0.txt": locked("vllm==0.32.0", "torch==2.13.0"),
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
        os.chmod(name, 0o600)
    Path("inventories/models").mkdir(parents=True)
    peft(Path("adapters/style"))
    return tmp_path


def record(piece: dict[str, Any]) -> None:
    """Write the model that a piece names, of the kind that its engine loads."""
    model = RecordedModel(id="acme/mine", config=read(MODEL))
    gguf = {"llama_cpp", "ollama"} & piece.get("engines", {}).keys()
    found = recorded(MODEL) if gguf else model
    Path("inventories/models/mine.json").write_text(found.text())


def inventory(folder: Path, piece: dict[str, Any]) -> dict[str, Any]:
    """The good inventory with a piece in it."""
    names = good(folder)
    of_a_host = OF_A_HOST & piece.keys()
    into = names["gpu_hosts"][0][1]["llm"] if of_a_host else names["all"][1]["llm"]
    into.update(piece)
    for number, name in enumerate(members_of(piece)):
        own = {"ssh_hostname": f"10.0.0.{20 + number}", "llm": {"gpus": MEMBERS}}
        names["gpu_hosts"].append([name, own])
        names["all"][0].append(name)
    return as_written(names)


def members_of(piece: dict[str, Any]) -> list[str]:
    """The hosts that run replicas together in a piece."""
    groups = [group for one in piece.get("services", ()) for group in one.get("members", ())]
    return [name for one in groups for name in (one["hosts"] if isinstance(one, dict) else one)]


@pytest.mark.parametrize("block", PIECES, ids=str)
def test_a_piece_is_taken(block: Block, folder: Path):
    piece = ast.literal_eval(f"{{{block.text}}}")
    record(piece)
    assert problems(folder, inventory(folder, piece)) == []


@pytest.mark.parametrize(
    ("piece", "fault"),
    [
        ({"drianed": True, "drained": True}, "drianed"),
        ({"engines": {"vllm": {"requirment": "vllm==0.32.0"}}}, "requirment"),
        ({"driver": {"reboot": "always"}}, "driver.reboot"),
    ],
)
def test_a_wrong_piece_is_found(piece: dict[str, Any], fault: str, folder: Path):
    assert fault in problems(folder, inventory(folder, piece))[0]


def test_pieces_of_both_kinds_are_found():
    kinds = {bool(OF_A_HOST & ast.literal_eval(f"{{{one.text}}}").keys()) for one in PIECES}
    assert kinds == {True, False} and len(PIECES) > 8


# Settings by their path, as pages name them: `driver.reboot`, `route.api_key_file`.
SECTIONS: dict[str, set[str]] = {}
for _title, _kind in TABLES:
    # The fleet and its services have a section of one name.
    _section = _title.strip("`").removeprefix("services[].")
    SECTIONS[_section] = SECTIONS.get(_section, set()) | set(_kind.model_fields)
_NAMES = "|".join(map(re.escape, SECTIONS))
SETTING = re.compile(rf"({_NAMES})\.(?!(?:py|json|xml)$)([a-z_]+)(?:: .*)?")


def test_settings_that_pages_name_are_there():
    named = [found for one in inline() if (found := SETTING.fullmatch(one.text))]
    assert [one[0] for one in named if one[2] not in SECTIONS[one[1]]] == []
    assert len(named) > 30


def test_data_that_pages_name_is_known():
    names = {name for page in PAGES for name in re.findall(r"--data (\w+)=", page.read_text())}
    assert names == {*SWITCHES, *TARGETS, LIFT, REASON}
