"""The engine's user, and the groups that own AMD's device files."""

from types import SimpleNamespace

import pytest

from roles.host.serving import LaunchError
from roles.launch import on_host


def ensure(monkeypatch: pytest.MonkeyPatch, *groups: str, has: str = "llm render video"):
    """The commands that make the user, on a host where it is in the groups `has` at the end."""
    done: list[str] = []

    def run(*arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        done.append(" ".join(arguments))
        return has if arguments[0] == "id" else ""

    monkeypatch.setattr(on_host, "run", run)
    monkeypatch.setattr(on_host, "pwd", SimpleNamespace(getpwnam=lambda name: name))
    on_host.ensure_user("llm", groups)
    return [command for command in done if not command.startswith("id ")]


def test_amds_groups_are_made_and_joined(monkeypatch: pytest.MonkeyPatch):
    assert ensure(monkeypatch, "render", "video") == [
        "groupadd --system --force render",
        "usermod -a -G render llm",
        "groupadd --system --force video",
        "usermod -a -G video llm",
    ]


def test_nobody_joins_a_group_that_no_engine_wants(monkeypatch: pytest.MonkeyPatch):
    assert ensure(monkeypatch) == []


def test_a_group_that_cannot_be_joined_stops_the_host(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LaunchError, match="llm is not in the groups render"):
        ensure(monkeypatch, "render", "video", has="llm video")
