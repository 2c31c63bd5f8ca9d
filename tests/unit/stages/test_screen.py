"""Which of pyinfra's lines are shown, and the line of progress."""

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host

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
        printed = green if not is_terminal else "done\n"
        assert stream.getvalue() == f"... 5 s\n... 6 s\n{printed}"


def test_progress_is_not_in_the_log():
    shown = screen(Terminal(False))
    shown.show_progress("... 5 s")
    shown.write("done\n")
    assert shown.log._kept == ["done\n"]


class Pyinfra:
    """pyinfra's state while a host is at an operation."""

    def __init__(self, stage: StateStage) -> None:
        self.current_stage = stage

    def get_op_meta(self, op_hash: str) -> Any:
        return SimpleNamespace(names={f"Step {op_hash}"})


def record(
    text: str, function: str = "", level: int = logging.INFO, host: str = "gpu1"
) -> logging.LogRecord:
    return logging.LogRecord("pyinfra", level, "", 0, f"[{host}] {text}", None, None, func=function)


def passed(shown: Screen, one: logging.LogRecord, op_hash: str | None, host: str = "gpu1") -> bool:
    with ctx_host.use(SimpleNamespace(name=host, executing_op_hash=op_hash)):  # type: ignore[arg-type]
        return shown.filter(one)


def over(stage: StateStage = StateStage.Execute, verbose: bool = False) -> Screen:
    return Screen(Pyinfra(stage), Terminal(False), verbose)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "function", "level", "shown"),
    [
        ("No changes", "_run_host_op", logging.INFO, False),
        ("Success", "_run_host_op", logging.INFO, False),
        ("Skipped", "run_host_op", logging.INFO, False),
        ("Connected", "connect", logging.INFO, False),
        ("GPUs are ready", "ready", logging.INFO, True),
        ("no driver", "log_styled", logging.ERROR, True),
        ("be warned", "log_styled", logging.WARNING, True),
        # pyinfra asks for as much with --debug.
        ("No changes", "_run_host_op", logging.DEBUG, True),
    ],
)
def test_what_says_nothing_is_in_the_log_alone(text: str, function: str, level: int, shown: bool):
    calm, verbose = over(), over(verbose=True)
    assert passed(calm, record(text, function, level), "1") == shown
    assert calm.log._kept == ([] if shown else [f"[gpu1] {text}\n"])
    assert passed(verbose, record(text, function, level), "1")


def test_a_failure_with_a_reason_needs_no_more_words(capsys: pytest.CaptureFixture[str]):
    shown = over()
    executed = record("Error: executed 0 commands", "log_error_or_warning", logging.ERROR)
    assert passed(shown, record("no room", "log_styled", logging.ERROR), "1")
    assert not passed(shown, executed, "1")
    # In another step it is all that was said.
    assert passed(shown, executed, "2") and "failed without a word" in executed.getMessage()
    assert capsys.readouterr().err.splitlines() == ["--> Step 1", "--> Step 2"]


def test_a_bug_in_a_function_of_an_operation_shows_no_traceback():
    shown = over()
    traceback = record("", "_run_host_op", logging.WARNING)
    traceback.msg = "Traceback (most recent call last):\n  File …\nKeyError: 'a'"
    summary = record(
        "Unexpected error in Python callback: KeyError('a')", "log_styled", logging.WARNING
    )
    assert not passed(shown, traceback, "1") and passed(shown, summary, "1")
    assert summary.getMessage() == "[gpu1] This is a bug of pyinfra-llm: KeyError('a')"
    assert "Traceback" in "".join(shown.log._kept)


def test_a_warning_of_another_host_shortens_no_failure():
    shown = over()
    assert passed(shown, record("slow", "log_styled", logging.WARNING, "gpu2"), "1", "gpu2")
    lines = [record(f"line {n}", "log_styled", logging.ERROR) for n in range(9)]
    assert all(passed(shown, line, "1") for line in lines)
    # Who fails after it is told by its first lines.
    lines = [record(f"line {n}", "log_styled", logging.ERROR, "gpu3") for n in range(9)]
    assert [passed(shown, line, "1", "gpu3") for line in lines] == [True] * 3 + [False] * 6


def test_changes_are_one_line_a_step(capsys: pytest.CaptureFixture[str]):
    shown = over()
    for host in ("gpu2", "gpu1"):
        passed(shown, record("Success", "_run_host_op", host=host), "1", host)
    passed(shown, record("--> Starting operation: Step 2", "log_operation_start"), None)
    assert capsys.readouterr().err.splitlines() == ["    changed gpu1, gpu2: Step 1"]


@pytest.mark.parametrize(
    ("row", "stage", "shown"),
    [
        ("Install   1 (gpu1)   -   ", StateStage.Prepare, True),
        ("Install   -          -   ", StateStage.Prepare, False),
        ("Install   3   -   -   3  ", StateStage.Disconnect, False),
        ("Grand total   3   1   -   2  ", StateStage.Disconnect, False),
    ],
)
def test_of_pyinfras_tables_only_what_is_to_change_is_shown(
    row: str, stage: StateStage, shown: bool
):
    assert passed(over(stage), record(row, "print_rows"), None) == shown
