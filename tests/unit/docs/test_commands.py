"""Every command in the docs is one: its own parser takes it, and what needs no host runs."""

import importlib
import io
import json
import subprocess
import sys

import pytest

from tests.gguf_models import make
from tests.unit.docs.commands import problem
from tests.unit.docs.pages import ROOT, Block, blocks, inline, languages, pipelines
from tests.unit.models.published import read

SHELL = blocks("sh")
OURS = ("pyinfra ", "python -m ", "make ", ".venv/bin/", "python3 -m ", "git ", "ssh-keygen ")
INLINE = [one for one in inline() if one.text.startswith(OURS) and "…" not in one.text]


def test_every_block_names_its_language():
    assert languages() <= {"sh", "text", "python"}


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_blocks_are_shell(shell: str):
    # In functions of their own: what one block leaves open is an error before the next.
    text = "".join(f"block() {{\n{block.text}}}\n" for block in SHELL)
    done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_of_a_block(block: Block):
    commands = [words for line in pipelines(block.text) for words in line]
    assert commands
    assert [found for words in commands if (found := problem(words))] == []


@pytest.mark.parametrize("code", INLINE, ids=str)
def test_commands_within_lines(code: Block):
    commands = [words for line in pipelines(code.text) for words in line]
    assert [found for words in commands if (found := problem(words, whole=False))] == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("python -m roles.topology fleets inventories/prod.py", "invalid choice"),
        ("python -m roles.nothing", "no module"),
        ("python -m roles.hardware read --kind topography FILE", "invalid choice"),
        ("pyinfra inventories/prod.py deploys/lm.py -y", "deploys/lm.py"),
        ("pyinfra inventories/production.py deploys/llm.py", "inventories/production.py"),
        ("pyinfra inventories/prod.py deploys/llm.py --data valdate=false", "valdate"),
        ("pyinfra inventories/prod.py deploys/llm.py --limits gpu-1", "--limits"),
        ("pyinfra inventories/prod.py --limit gpu-9 exec -- ls", "gpu-9"),
        ("pyinfra inventories/prod.py exec -- sytemctl status", "sytemctl"),
        ("python -m tests.lab run -- make everything", "everything"),
        ("mkdocs build --strictly", "--strictly"),
    ],
)
def test_a_wrong_command_is_found(command: str, fault: str):
    assert fault in problem(command.split())


# Commands that need no host, by their first words.
RUNNABLE = {
    ("roles.topology", "fleet"),
    ("roles.topology", "predict"),
    ("roles.topology", "plan"),
    ("roles.hardware", "read"),
    ("roles.models", "read"),
}
# They write beside the inventory, or ask the hub or for help.
NOT_RUN = {"--save", "--help", "ORG/NAME@REVISION"}


def runnable() -> dict[str, list[list[str]]]:
    """Pipelines of the blocks that need no host, each once."""
    found = {}
    for block in SHELL:
        for line in pipelines(block.text):
            last = line[-1]
            if last[:2] == ["python", "-m"] and tuple(last[2:4]) in RUNNABLE:
                found |= {} if NOT_RUN & set(last) else {str(line): line}
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the files of commands."""
    folder = tmp_path_factory.mktemp("files")
    model, name = folder / "model", "Qwen2.5-7B-Instruct"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(read(name)))
    topology = next((ROOT / "tests/data/gpu-outputs/topo").glob("*.txt"))
    gguf = make(folder, name)
    return {"/srv/models/mine": str(model), "topo.txt": str(topology), "mine.gguf": str(gguf)}


@pytest.mark.parametrize("line", runnable().values(), ids=runnable())
def test_what_needs_no_host_runs(
    line: list[list[str]],
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(ROOT)
    before, command = line[:-1], line[-1]
    assert [words[0] for words in before] in ([], ["echo"])
    text = "".join(f"{words[1]}\n" for words in before)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    main = importlib.import_module(f"{command[2]}.__main__").main
    assert main([files.get(word, word) for word in command[3:]]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_each_kind_of_them_is_run():
    assert {tuple(line[-1][2:4]) for line in runnable().values()} == RUNNABLE
    assert len({word for line in runnable().values() for word in line[-1]} & {"--json"}) == 1
