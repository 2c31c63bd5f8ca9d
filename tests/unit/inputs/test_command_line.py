"""The command line of a deploy is judged first: --data, --limit, the inventory."""

import ast
import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paramiko import SSHClient
from pyinfra.api.arguments import all_argument_meta
from pyinfra.connectors.ssh import ConnectorData

from roles.declaration import SSH
from roles.declaration.plain import declaration_of
from roles.declaration.ssh import ARGUMENTS, PARAMIKO
from roles.fleet import SWITCHES, build
from roles.fleet.command_line import (
    DEPLOYS,
    Command,
    data_problems,
    folder_problems,
    host_problems,
    option_problems,
)
from roles.fleet.targets import target_problems
from tests.unit.inputs.inventories import changed

LLM = str(DEPLOYS / "llm.py")
DISCOVER = str(DEPLOYS / "discover.py")


def parsed(value: str) -> Any:
    """As pyinfra reads a value: true and false in any case, else JSON, else text."""
    try:
        return json.loads(value.lower())
    except ValueError:
        return value


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("acept_plan=true", "did you mean accept_plan?"),
        ("accept-plan=true", "did you mean accept_plan?"),
        ("Verbose=true", "did you mean verbose?"),
        ("upgrade_drivers=true", "did you mean upgrade_driver?"),
        ("foo=1", "known names: accept_hardware"),
        ("llm={}", "known names"),
        ("=true", "has no value"),
        ("", "has no value"),
        ("validate", "has no value"),
        ("validate=", "say true or false"),
        ("validate=no", "say true or false"),
        ("validate=0", "say true or false"),
        ("accept_plan=yes", "say true or false"),
        ("accept_hardware=1", "say true or false"),
        ('verbose="true"', "say true or false"),
        ("identifiers=[true]", "say true or false"),
        ("ssh_usr=deploy", "unknown name"),
        ("lift=gpu-1/q-0", "unknown name 'lift'"),
        ("identifiers=true", "says nothing to llm.py, but to discover.py"),
        ("interrupt=false", "says nothing to llm.py, but to drain.py"),
        ("ssh_port=0", "from 1 to 65535"),
        ("ssh_port=abc", "from 1 to 65535"),
        ("ssh_user=", "is no text"),
        ("ssh_strict_host_key_checking=maybe", "accept-new"),
        ("_sudo=maybe", "True or False"),
        ("_sudoo=true", "did you mean _sudo?"),
        ("ssh_connect_retries=-1", "from 0 to 100"),
    ],
)
def test_wrong_data_is_refused(word: str, expected: str):
    (problem,) = data_problems(Command("x.py", (LLM,), (word,)), parsed)
    assert problem.startswith(f"--data {word}:") and expected in problem


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("ssh_port", 99999, "--ssh-port: 99999 is no port"), ("ssh_user", "a b", "--ssh-user: 'a b'")],
)
def test_wrong_options_of_ssh_are_refused(name: str, value: Any, expected: str):
    command = Command("x.py", (LLM,), ssh={name: value})
    (problem,) = data_problems(command, parsed)
    assert problem.startswith(expected)


DRAIN, UNDRAIN = str(DEPLOYS / "drain.py"), str(DEPLOYS / "undrain.py")
QUARANTINE, VALIDATE = str(DEPLOYS / "quarantine.py"), str(DEPLOYS / "validate.py")


@pytest.mark.parametrize(
    ("deploy", "data", "expected"),
    [
        (DRAIN, "host=gpu-1 reason=fans", ""),
        (DRAIN, "gpu=gpu-1/7 reason=404 interrupt=true", ""),
        (UNDRAIN, "replica=gpu-1/qwen-0", ""),
        (DRAIN, "host=gpu-1", "drain.py: say why"),
        (DRAIN, "reason=fans", "drain.py: say what"),
        (DRAIN, "host=gpu-1 gpu=gpu-1/0 reason=fans", "drain.py: say what, one thing"),
        (UNDRAIN, "", "undrain.py: say what"),
        (DRAIN, "host=gpu-1/qwen-0 reason=fans", "is no host"),
        (DRAIN, "replica=qwen-0 reason=fans", "is no replica"),
        (DRAIN, "gpu=gpu-1/all reason=fans", "is no gpu"),
        (DRAIN, "gpu=gpu-1/-1 reason=fans", "is no gpu"),
        (DRAIN, "host=gpu-1 reason=a\033[1m", "say why in one line"),
        (DRAIN, "host=gpu-1 reason=" + "x" * 201, "say why in one line"),
        (DRAIN, "host=gpu-1 reason=fans interrupt=yes", "say true or false"),
        (DRAIN, "host=gpu-1 reason=fans reason=noise", "reason=…: is given 2 times"),
        (UNDRAIN, "host=gpu-1 reason=fans", "says nothing to undrain.py"),
        (QUARANTINE, "lift=qwen-0", "name a replica of a host"),
        (QUARANTINE, "lift=gpu-1/q-0;reboot", "name a replica of a host"),
        (QUARANTINE, "lift=gpu-1/q-0 lift=gpu-1/q-1", "lift=…: is given 2 times"),
        (VALIDATE, "validate=false", "says nothing to validate.py, but to llm.py"),
        (LLM, "host=gpu-1", "unknown name 'host'"),
        (LLM, "reason=fans", "unknown name 'reason'"),
    ],
)
def test_a_drain_says_what_and_why(deploy: str, data: str, expected: str):
    found = list(data_problems(Command("x.py", (deploy,), data.split()), parsed))
    assert [expected in one for one in found] == ([True] if expected else [])


@pytest.mark.parametrize(
    ("deploy", "data", "limit", "expected"),
    [
        (DRAIN, "host=gpu-1", (), ""),
        (DRAIN, "gpu=gpu-2/3", ("lb-1",), ""),
        (DRAIN, "host=gpu-9", (), "--data host=gpu-9: host gpu-9 is not in the plan"),
        (DRAIN, "host=lb-1", (), "host lb-1 is not in the plan"),
        (DRAIN, "host=gpu_hosts", (), "host gpu_hosts is not in the plan"),
        (DRAIN, "host=true", (), "host True is not in the plan"),
        (DRAIN, "replica=gpu-1/q-7", (), "gpu-1/q-7 is not in the plan of this inventory; did you"),
        (DRAIN, "gpu=gpu-1/2", (), "GPU 2 of gpu-1 is not in the plan"),
        (DRAIN, "host=gpu-1", ("gpu_hosts",), "balancers are not in this run: add --limit lb-1"),
        # What is no longer planned may be drained still.
        (UNDRAIN, "gpu=gpu-1/7", (), ""),
        (UNDRAIN, "host=gpu-1", ("gpu-1",), "add --limit lb-1"),
        (QUARANTINE, "lift=gpu-1/old-0", (), ""),
        (QUARANTINE, "lift=gpu-9/q-0", (), "no GPU host 'gpu-9'; did you mean gpu-"),
        (QUARANTINE, "lift=lb-1/q-0", (), "no GPU host 'lb-1'"),
        (QUARANTINE, "lift=gpu-1/q-0", ("gpu-2",), "gpu-1 is not in this run: add --limit gpu-1"),
    ],
)
def test_names_of_nobody_are_refused_before_anybody_is_asked(
    folder: Path, deploy: str, data: str, limit: tuple[str, ...], expected: str
):
    declaration = declaration_of(folder / "site.py", changed(folder))
    assert declaration is not None
    command = Command("x.py", (deploy,), (data, "reason=fans"), limit=limit)
    found = list(target_problems(command, declaration, build(declaration), parsed))
    assert [expected in one for one in found] == ([True] if expected else []), found


def test_nothing_can_be_drained_without_a_balancer(folder: Path):
    declaration = declaration_of(folder / "site.py", changed(folder))
    assert declaration is not None
    fleet = build(declaration)
    alone = replace(fleet, settings=fleet.settings.model_copy(update={"balancer": None}))
    command = Command("x.py", (DRAIN,), ("host=gpu-1", "reason=fans"))
    (problem,) = target_problems(command, declaration, alone, parsed)
    assert "no balancer" in problem


def test_a_password_on_the_command_line_is_not_repeated():
    (problem,) = data_problems(Command("x.py", (LLM,), ("ssh_password=12345",)), parsed)
    assert problem.startswith("--data ssh_password=…: ") and "12345" not in problem


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ((LLM,), ("validate=false", "verbose=True", "ssh_user=ann", "_sudo_user=root")),
        (("mine.py",), ("anything=1", "validate=no")),
        (("exec", "--", "id"), ("anything=1",)),
    ],
)
def test_data_of_pyinfra_and_of_other_deploys_is_left_alone(operations: tuple, words: tuple):
    assert list(data_problems(Command("x.py", operations, words), parsed)) == []


@pytest.mark.parametrize(
    ("limit", "exclude", "expected"),
    [
        (("gpu-9",), (), "--limit gpu-9: no host or group has this name"),
        (("gpu_host",), (), "did you mean gpu_hosts?"),
        (("gpu-1", "x*"), (), "--limit x*: "),
        ((), ("gpu-9",), "--exclude gpu-9: "),
        ((), ("gpu_hosts", "balancers"), "leaves no host"),
        (("gpu-1",), ("gpu-*",), "leaves no host"),
    ],
)
def test_patterns_of_nobody_are_refused(
    folder: Path, limit: tuple[str, ...], exclude: tuple[str, ...], expected: str
):
    declaration = declaration_of(folder / "site.py", changed(folder))
    assert declaration is not None
    command = Command("x.py", (LLM,), limit=limit, exclude=exclude)
    (problem,) = host_problems(command, declaration)
    assert expected in problem


@pytest.mark.parametrize("limit", [(), ("gpu-1",), ("gpu-*", "lb-1"), ("gpu_hosts",), ("all",)])
def test_patterns_of_somebody_are_taken(folder: Path, limit: tuple[str, ...]):
    declaration = declaration_of(folder / "site.py", changed(folder))
    assert declaration is not None
    assert list(host_problems(Command("x.py", (LLM,), limit=limit), declaration)) == []


def test_folders_of_group_data_are_there(folder: Path):
    command = Command("x.py", (LLM,), group_data=(str(folder), str(folder / "gone")))
    (problem,) = folder_problems(command)
    assert problem.startswith(f"--group-data {folder}/gone:")


def test_group_data_that_pyinfra_would_ignore_is_refused(tmp_path: Path):
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.yaml").write_text("llm: {}\n")
    (tmp_path / "other").write_text("llm = {}\n")
    inventory, other = str(tmp_path / "x.py"), str(tmp_path / "other")
    ignored, file = folder_problems(Command(inventory, (LLM,), group_data=(other,)))
    assert ignored.startswith(f"{tmp_path}/group_data/all.yaml: ") and "all.py" in ignored
    assert file.startswith(f"{other}: is a file")


@pytest.mark.parametrize("name", ["parallel", "fail_percent", "retry", "retry_delay"])
def test_options_below_zero_are_refused(name: str):
    (problem,) = option_problems({name: -1})
    assert problem.startswith(f"--{name.replace('_', '-')} -1: ")
    assert list(option_problems({name: 1, "other": -1})) == []


@pytest.mark.parametrize(
    ("operations", "needed"),
    [((LLM,), True), ((DISCOVER,), False), ((DISCOVER, LLM), False), (("exec",), False)],
)
def test_gpus_may_be_unknown_until_they_are_recorded(operations: tuple[str, ...], needed: bool):
    assert Command("x.py", operations).needs_hardware is needed


def test_what_deploys_ask_for_is_what_is_known():
    roles = Path(DEPLOYS).parent / "roles" / "stages"
    asked = {
        call.args[0].value
        for file in roles.glob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "wants"
        and isinstance(call.args[0], ast.Constant)
    }
    assert asked == set(SWITCHES)


def test_what_pyinfra_knows_of_ssh_is_known_here():
    assert set(ConnectorData.__annotations__) == set(SSH)


def test_what_pyinfra_and_paramiko_take_as_arguments_is_known_here():
    known = {name for name in all_argument_meta if name != "name"}
    assert known == set(ARGUMENTS)
    taken = list(inspect.signature(SSHClient.connect).parameters)
    assert taken[:2] == ["self", "hostname"] and set(taken[2:]) == set(PARAMIKO)
