"""The line of progress: one place on a terminal, plain lines elsewhere."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

from roles.stages.screen import Screen


class Terminal(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def screen(stream: Terminal) -> Screen:
    state: Any = SimpleNamespace()
    return Screen(state, stream)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("is_terminal", "variable", "replaced"),
    [(True, None, True), (False, None, False), (True, "NO_COLOR", False), (True, "CI", False)],
)
def test_progress_is_replaced_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, variable: str | None, replaced: bool
):
    if variable:
        monkeypatch.setenv(variable, "1")
    stream = Terminal(is_terminal)
    shown = screen(stream)
    shown.show_progress("... 5 s")
    shown.show_progress("... 6 s")
    shown.write("\x1b[32mdone\x1b[0m\n")
    clear, green = "\r\x1b[K", "\x1b[32mdone\x1b[0m\n"
    if replaced:
        assert stream.getvalue() == f"... 5 s{clear}... 6 s{clear}{green}"
    else:
        said = green if not is_terminal else "done\n"
        assert stream.getvalue() == f"... 5 s\n... 6 s\n{said}"


def test_progress_is_not_in_the_log():
    shown = screen(Terminal(False))
    shown.show_progress("... 5 s")
    shown.write("done\n")
    assert shown.log._kept == ["done\n"]
