"""A host can neither fill this machine with its output nor steer the terminal that shows it."""

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko import ChannelFile
from pyinfra.api import facts, operations
from pyinfra.connectors import util
from pyinfra.connectors.util import CommandOutput, OutputLine

from roles.checks import clean, printable
from roles.host import terminal
from roles.host.facts import reading, unreadable
from roles.host.terminal import bounded, sanitize_output, shown

# Title, clipboard, screen, a hidden text, C1's CSI, the direction of writing, ends of lines.
HOSTILE = "\x1b]0;title\x07\x1b]52;c;AAAA\x07\x1b[2J\x1b[8m\x9b2J\u202e\u2066\u2028\x85\r\x00\ud800"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (util, operations, facts):
        for name in ("read_buffer", "print_host_combined_output"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))
    sanitize_output()


@given(st.text(st.characters()) | st.just(HOSTILE))
def test_nothing_but_signs_is_shown(text: str):
    assert printable(text).isprintable() and clean(f"{text}\n{text}").isprintable()
    left = shown(text)
    for kept in ("\n", "\t"):
        left = left.replace(kept, "")
    assert "\x1b" not in left.replace("\x1b[31m", "") or terminal._KEPT.search(left)
    assert terminal._KEPT.sub("", left).isprintable()


def test_styles_of_our_own_stay():
    styled = "\x1b[1mgpu1\x1b[0m \x1b[31mbad\x1b[0m\n\tmore"
    assert shown(styled) == styled


def test_a_failed_commands_lines_are_plain_and_few(
    plain: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pyinfra.logger.propagate", True)
    lines = [OutputLine("stdout" if n % 2 else "stderr", HOSTILE + "x" * 9000) for n in range(9999)]
    with caplog.at_level(logging.ERROR):
        operations.print_host_combined_output(
            SimpleNamespace(print_prefix="[gpu1] "),  # type: ignore[arg-type]
            CommandOutput(lines),
        )
    assert len(caplog.messages) == terminal.MAX_SHOWN_LINES
    assert all(shown(text) == text and len(text) < 3000 for text in caplog.messages)
    assert facts.print_host_combined_output is operations.print_host_combined_output


def test_what_is_read_is_bounded(plain: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(terminal, "MAX_BYTES", 1000)
    monkeypatch.setattr(terminal, "MAX_LINE_LENGTH", 100)
    assert list(bounded(io.BytesIO(b"a\n\xff\n"))) == ["a\n", "\ufffd\n"]
    assert list(bounded(io.BytesIO(b"a\n" + b"x" * 1000))) == ["a\n"]
    assert len(list(bounded(io.BytesIO(b"a\n" * 9999)))) == 500
    found: Any = SimpleNamespace(put=lambda line: lines.append(line.line))
    lines: list[str] = []
    util.read_buffer("stdout", io.BytesIO(b"a\nb\n"), found)
    assert lines == ["a", "b"]


@pytest.mark.parametrize(
    "error", [KeyError("\x1b[2J"), RecursionError(), OverflowError("x" * 9999)]
)
def test_whatever_an_answer_raises_fails_its_host_in_one_plain_line(error: Exception):
    with pytest.raises(Exception) as raised, reading("the host's answer"):
        raise error
    assert type(raised.value).__name__ == "FactProcessError"
    # pyinfra prints the cause in place of the error.
    assert raised.value.__cause__ is None
    assert str(raised.value) == unreadable("the host's answer", error)
    assert str(raised.value).isprintable() and len(str(raised.value)) <= 500


def test_a_flood_of_a_host_ends_its_channel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(terminal, "MAX_BYTES", 10_000)
    closed = []
    channel: Any = SimpleNamespace(
        recv=lambda size: b"\xffab\n" * (size // 4), close=lambda: closed.append(1)
    )
    lines = list(bounded(ChannelFile(channel, "r")))
    assert len(lines) == 2_500 and set(lines) == {"\ufffdab\n"}
    assert closed == [1]
