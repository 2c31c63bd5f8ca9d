"""The screen of a run: it shows the lines of pyinfra that matter; all of them go to the log.

pyinfra logs a header for each operation and a line for each host under it, and a table of all
operations at the end. Here a step is shown where it changed or failed, and all the rest is in the
log alone. `-v` shows everything.
"""

import logging
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TextIO

import click
from pyinfra import logger
from pyinfra.api import State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host

from roles.checks import clean
from roles.stages.runlog import RunLog

# pyinfra's headers of phases that take time. It logs errors among them as warnings.
_SHOWN_HEADERS = ("--> Connecting", "--> Beginning operation run", "--> Detected changes")
# Lines shown of further hosts that fail in the same step, often for the same reason.
_LINES_OF_OTHERS = 3
# A row without changes in pyinfra's table of changes.
_NO_CHANGE = re.compile(r" - +- *$")
# Precedes an error in a function of an operation.
_CALLBACK = "Unexpected error in Python callback: "
_CLEAR_LINE = "\r\033[K"


@dataclass(eq=False)
class Screen(logging.Filter):
    """The screen of one run: a filter of pyinfra's log lines, and the run's log.

    `changed` are the hosts that the operation of now changed; `explained` counts by operation and
    host the lines of a failure that were shown. `beside` says what pyinfra's table lacks.
    """

    state: State
    stream: TextIO
    verbose: bool = False
    log: RunLog = field(default_factory=RunLog)
    changed: dict[str, list[str]] = field(default_factory=dict)
    explained: dict[str, dict[str, int]] = field(default_factory=dict)
    headed: str = ""
    progress: str = ""
    beside: str = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether pyinfra shows a line; one that it does not goes to the log."""
        if self.verbose or record.levelno == logging.DEBUG or not isinstance(record.msg, str):
            return True
        shown = self._is_shown(record)
        if not shown:
            self.log.write(f"{record.getMessage()}\n")
        return shown

    def _is_shown(self, record: logging.LogRecord) -> bool:
        text = click.unstyle(record.getMessage())
        if record.levelno >= logging.WARNING:
            return self._is_shown_failure(record, text)
        if record.funcName == "_run_host_op" and "Success" in text:
            self._note_change()
            return False
        if "-->" in text:
            self.show_changes()
            if text.startswith("--> Detected changes") and self.beside:
                record.msg, record.args = f"--> Detected changes, {self.beside}:", None
            return text.startswith(_SHOWN_HEADERS)
        if record.funcName == "print_rows":
            return self.state.current_stage < StateStage.Execute and not _NO_CHANGE.search(text)
        return record.funcName not in _QUIET

    def _is_shown_failure(self, record: logging.LogRecord, text: str) -> bool:
        """Show a failure: its operation, all lines of the first host and the first lines of others,
        or pyinfra's own line if there was no reason."""
        host, operation = self._now()
        if not operation:
            return True
        if text.startswith("Traceback"):
            return False
        if _CALLBACK in text:
            record.msg, record.args = (
                f"[{host}] This is a bug of pyinfra-llm: {text.partition(_CALLBACK)[2]}",
                (),
            )
        if record.levelno >= logging.ERROR and not self._is_line_shown(record, host, operation):
            return False
        if self.headed != operation:
            self.headed = operation
            click.echo(f"--> {operation}", err=True)
        return True

    def _is_line_shown(self, record: logging.LogRecord, host: str, operation: str) -> bool:
        """Whether a line of a failure is shown. Warnings about other hosts do not count."""
        counts = self.explained.setdefault(operation, {})
        if record.funcName == "log_error_or_warning":
            if host in counts:
                return False
            record.msg, record.args = click.style(f"[{host}] failed without a word", "red"), None
        counts[host] = counts.get(host, 0) + 1
        if host == next(iter(counts)) or counts[host] <= _LINES_OF_OTHERS:
            return True
        if counts[host] == _LINES_OF_OTHERS + 1:
            click.echo(f"    [{host}] … the rest is in the log", err=True)
        return False

    def _now(self) -> tuple[str, str]:
        """The host and the operation that a line is about; "" for none."""
        host: Any = ctx_host.get()
        op_hash = getattr(host, "executing_op_hash", None)
        if host is None or op_hash is None:
            return "", ""
        return host.name, ", ".join(sorted(self.state.get_op_meta(op_hash).names))

    def _note_change(self) -> None:
        host, operation = self._now()
        self.changed.setdefault(operation, []).append(host)

    def show_changes(self) -> None:
        """Show what changed since the last header: one line a step."""
        for operation, hosts in self.changed.items():
            names = ", ".join(sorted(hosts))
            click.echo(f"    {click.style('changed', 'green')} {names}: {operation}", err=True)
        self.changed.clear()

    def write(self, text: str) -> int:
        """Write to the screen and to the log, after removing the progress line."""
        # click writes bytes to find out the kind of the stream.
        if isinstance(text, str):
            self.log.write(text)
            self.clear_progress()
            text = text if self.fancy or not self.stream.isatty() else click.unstyle(text)
        return self.stream.write(text)

    @cached_property
    def fancy(self) -> bool:
        """Whether the screen is a terminal with colours and lines that can be replaced."""
        plain = any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
        return self.stream.isatty() and not plain and os.environ.get("TERM") != "dumb"

    def show_progress(self, line: str) -> None:
        """Show a progress line. On a terminal the next one replaces it."""
        line = clean(line)
        if not self.fancy:
            self.stream.write(f"{line}\n")
        else:
            self.clear_progress()
            self.progress = line[: shutil.get_terminal_size().columns - 1]
            self.stream.write(self.progress)
        self.stream.flush()

    def clear_progress(self) -> None:
        """Remove the progress line."""
        if self.progress:
            self.stream.write(_CLEAR_LINE)
            self.progress = ""

    def close(self) -> None:
        """Show what is not shown yet."""
        self.clear_progress()
        self.show_changes()


# Functions of pyinfra whose log lines matter only when something fails.
_QUIET = frozenset(
    {
        "_run_host_op",
        "run_host_op",
        "connect",
        "load_file",
        "_prepare_deploy_operations",
    }
)


class _Teed:
    """A text stream that writes to the screen."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream, self._screen = stream, screen

    def write(self, text: str) -> int:
        return self._screen.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_calmly(state: State, verbose: bool) -> Screen:
    """Send everything that this pyinfra run prints through a screen; `verbose` shows all of it."""
    screen = Screen(state, sys.stderr, verbose)
    # pyinfra's spinner would overwrite the progress line, and write into the log.
    os.environ["PYINFRA_PROGRESS"] = "off"
    sys.stderr = _Teed(sys.stderr, screen)  # type: ignore[assignment]
    for handler in logger.handlers:
        handler.addFilter(screen)
    return screen
