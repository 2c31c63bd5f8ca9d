"""What is wrong with a command that the docs give, by the parsers of the commands themselves."""

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
from pyinfra_cli.cli import cli as pyinfra
from pyinfra_cli.util import parse_cli_arg

from roles.declaration import Declaration
from roles.declaration.plain import read_plain
from roles.fleet.command_line import Command, data_problems, host_problems
from tests.unit.docs.pages import ROOT

# Programs of others that pages use; what they take is theirs.
OTHERS = {
    *(
        "apt-get",
        "cat",
        "curl",
        "echo",
        "git",
        "grep",
        "head",
        "journalctl",
        "ln",
        "printf",
        "pytest",
        "ls",
        "mkdir",
        "mv",
    ),
    *(
        "nvidia-smi",
        "openssl",
        "pip",
        "rm",
        "ssh",
        "ssh-keygen",
        "sudo",
        "systemctl",
        "systemd-run",
        "tail",
        "umask",
    ),
    ".",
}
MODULES_OF_OTHERS = {"pip", "venv"}
# In the place of an inventory: an example, or any.
ANY_INVENTORY = re.compile(r"(INVENTORY|inventories/X\.py|site\.py)")
INCOMPLETE = re.compile(r"the following arguments are required|expected at least one argument")


def problem(words: list[str], whole: bool = True) -> str:
    """What is wrong with a command, or ""; where it is not `whole`, arguments may be missing."""
    name, *arguments = words
    name = name.removeprefix(".venv/bin/")
    if name in ("python", "python3") and arguments[:1] == ["-m"]:
        return _module(arguments[1:], whole)
    checks: Mapping[str, Callable[[list[str]], str]] = {
        "pyinfra": _pyinfra,
        "make": _make,
        "mkdocs": lambda arguments: _click("mkdocs.__main__", arguments),
    }
    if name in checks:
        return checks[name](arguments)
    return "" if name in OTHERS else f"no program that the docs know: {name}"


def _module(words: list[str], whole: bool) -> str:
    module, *arguments = words
    if module in MODULES_OF_OTHERS:
        return ""
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        # A helper of tests and benchmarks, which reads its arguments by hand.
        return ""
    if not (path / "__main__.py").is_file():
        return f"there is no module {module}"
    if (module, arguments[:2]) == ("tests.lab", ["run", "--"]):
        return problem(arguments[2:], whole)
    return _argparse(importlib.import_module(f"{module}.__main__").parser(), arguments, whole)


def _argparse(parser: Any, arguments: list[str], whole: bool) -> str:
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(message):
            parser.parse_args(arguments)
    except SystemExit as end:
        refused = end.code and (whole or not INCOMPLETE.search(message.getvalue()))
        return message.getvalue() if refused else ""
    return ""


def _click(module: str, arguments: list[str]) -> str:
    group = importlib.import_module(module).cli
    try:
        name, command, rest = group.resolve_command(click.Context(group), list(arguments))
        command.make_context(name, rest)
    except click.ClickException as error:
        return error.format_message()
    return ""


def _make(arguments: list[str]) -> str:
    targets = re.findall(r"^([a-z]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [one for one in arguments if one not in targets]
    return f"make knows no {', '.join(unknown)}" if unknown else ""


def _pyinfra(arguments: list[str]) -> str:
    try:
        with pyinfra.make_context("pyinfra", list(arguments)) as context:
            given = context.params
    except click.ClickException as error:
        return error.format_message()
    data, limit, exclude = (tuple(given[name] or ()) for name in ("data", "limit", "exclude"))
    first, *rest = given["operations"]
    command = Command(given["inventory"], tuple(given["operations"]), data, limit, exclude)
    found = [*data_problems(command, parse_cli_arg), *_inventory_problems(command)]
    if first == "exec":
        found.append(problem(rest))
    elif first == "fact":
        found += [f"no fact {rest[0]}"] if not _is_fact(rest[0]) else []
    else:
        found += [f"there is no {one}" for one in (first, *rest) if not (ROOT / one).is_file()]
    return "\n".join(filter(None, found))


def _inventory_problems(command: Command) -> list[str]:
    if ANY_INVENTORY.fullmatch(command.inventory):
        return []
    file = ROOT / command.inventory
    if not file.is_file():
        return [f"there is no inventory {command.inventory}"]
    return list(host_problems(command, _declaration(file)))


@cache
def _declaration(file: Path) -> Declaration:
    found = read_plain(file)
    assert found is not None, file
    return found


def _is_fact(name: str) -> bool:
    module, _, fact = name.rpartition(".")
    return hasattr(importlib.import_module(module), fact)
