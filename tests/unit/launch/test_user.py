"""The engine's user, and the groups that own AMD's device files."""

import base64
from types import SimpleNamespace

import pytest

from roles.host.serving import LaunchError
from roles.launch import apply

UNIT = "[Service]\nUser=llm\n{}LimitCORE=0\n"
GROUPS = "SupplementaryGroups=render video\n"


def ensure(monkeypatch: pytest.MonkeyPatch, unit: str, groups: str = "llm render video"):
    """The commands that make the user whom a unit runs as, on a host that knows these groups."""
    done: list[str] = []

    def run(*arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        done.append(" ".join(arguments))
        return groups if arguments[0] == "id" else ""

    content = base64.b64encode(unit.encode()).decode()
    path = "/etc/systemd/system/llm-engine@.service"
    other = {"path": "/etc/llm/secrets/engine.env", "content": ""}
    monkeypatch.setattr(apply, "TASK", {"files": [other, {"path": path, "content": content}]})
    monkeypatch.setattr(apply, "run", run)
    monkeypatch.setattr(apply, "pwd", SimpleNamespace(getpwnam=lambda name: name))
    apply.ensure_user("llm")
    return [command for command in done if not command.startswith("id ")]


def test_amds_groups_are_made_and_joined(monkeypatch: pytest.MonkeyPatch):
    assert ensure(monkeypatch, UNIT.format(GROUPS)) == [
        "groupadd --system --force render",
        "usermod -a -G render llm",
        "groupadd --system --force video",
        "usermod -a -G video llm",
    ]


def test_nobody_joins_a_group_that_the_unit_does_not_want(monkeypatch: pytest.MonkeyPatch):
    assert ensure(monkeypatch, UNIT.format("")) == []


def test_a_group_that_cannot_be_joined_stops_the_host(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LaunchError, match="llm is not in the groups render"):
        ensure(monkeypatch, UNIT.format(GROUPS), groups="llm video")
