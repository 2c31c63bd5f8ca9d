"""Files for editors, hooks, CI and releases name what is there, and the tree keeps to them."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from roles.engine import VllmSettings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = PROJECT["project"]["optional-dependencies"]["dev"]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
# Files that are kept byte for byte.
AS_THEY_CAME = ("tests/data/", "tests/render/expected/")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def is_there(command: str) -> bool:
    """Whether a command is a target of make, a tool of the virtual environment, or a program of
    this repository."""
    program, *arguments = command.split()
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return set(arguments) <= set(targets)
    if program.startswith(".venv/bin/"):
        names = {re.split(r"[\[<>=]", tool)[0] for tool in TOOLS}
        return program.removeprefix(".venv/bin/") in names
    return os.access(ROOT / program, os.X_OK)


def ci_commands() -> Iterator[str]:
    for job in read(".github/workflows/ci.yml")["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def test_hooks_run_what_is_there():
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert hooks and [hook["id"] for hook in hooks if not is_there(hook["entry"])] == []


def test_ci_runs_what_is_there():
    run = re.findall(r"^make .*", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert run == ["make check", "make test"]
    commands = [*ci_commands(), *run]
    assert ".ci/run" in commands and [one for one in commands if not is_there(one)] == []


@pytest.mark.parametrize("command", ["make chekc", ".venv/bin/black", ".ci/gone", "README.md"])
def test_what_is_not_there_is_found(command: str):
    assert not is_there(command)


def test_no_change_from_a_fork_runs_on_our_machines():
    for job in read(".github/workflows/ci.yml")["jobs"].values():
        assert "self-hosted" not in job["runs-on"] or "head.repo.full_name" in job["if"]


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_an_issue_form_is_one(file: Path):
    form = read(str(file))
    if file.stem == "config":
        assert form.keys() <= {"blank_issues_enabled", "contact_links"}
        return
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids) > 0
    for field in form["body"]:
        assert field["type"] in ("textarea", "input") and field["attributes"]["label"]


def test_files_are_as_editors_keep_them():
    """UTF-8, no spaces at ends of lines, a newline at the end; tabs where .editorconfig says so."""
    text = (ROOT / ".editorconfig").read_text()
    (tabs,) = re.findall(r"^\[\{(.*)\}\]\nindent_style = tab$", text, re.MULTILINE)
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    indented = []
    for name in names:
        if not name or name.startswith(AS_THEY_CAME) or not (ROOT / name).is_file():
            continue
        content = (ROOT / name).read_bytes().decode()
        assert not re.search(r"\r|[ \t]$|[^\n]\Z", content, re.MULTILINE), name
        indented += [name] if re.search(r"^\t", content, re.MULTILINE) else []
    assert indented == tabs.split(",")


def test_editors_and_ruff_agree_on_the_length_of_lines():
    length = PROJECT["tool"]["ruff"]["line-length"]
    assert f"[*.py]\nmax_line_length = {length}\n" in (ROOT / ".editorconfig").read_text()


def test_tests_lock_by_the_installer_that_hosts_get():
    assert VllmSettings().uv in TOOLS


SECTION = re.compile(r"^## \[(?P<version>.+?)\](?: - (?P<date>.+))?$", re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_changelog_has_the_version_of_the_project():
    """`[Unreleased]` comes first; a version without a date is the one that is being made."""
    first, *versions = SECTION.finditer((ROOT / "CHANGELOG.md").read_text())
    assert (first["version"], first["date"]) == ("Unreleased", None)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", one["date"]) for one in versions[1:])
    in_the_making = versions[0]["date"] == "not released yet"
    assert in_the_making or re.fullmatch(r"\d{4}-\d\d-\d\d", versions[0]["date"])
    suffix = ".dev0" if in_the_making else ""
    assert PROJECT["project"]["version"] == versions[0]["version"] + suffix


def test_the_changelog_sorts_its_entries():
    for section in re.split(r"^## .*", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE):
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert len(set(kinds)) == len(kinds) and set(kinds) <= set(KINDS)
