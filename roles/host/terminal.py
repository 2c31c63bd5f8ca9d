"""Bounds hosts' output when pyinfra reads it, and removes control characters when pyinfra shows it.

pyinfra 3.10 reads output without a limit, decodes it strictly and prints a failed command's lines
unchanged. A host could fill the memory, break the reading or control the terminal.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from paramiko import ChannelFile
from pyinfra import logger
from pyinfra.api import facts, operations
from pyinfra.connectors import util
from pyinfra.connectors.util import OutputLine

from roles.checks import printable

# Maximum bytes of a command's output and of one line; lines that are shown if it failed.
MAX_BYTES, MAX_LINE_LENGTH = 64 << 20, 4 << 20
MAX_SHOWN_LINES, MAX_SHOWN_LENGTH = 500, 2000
# pyinfra's own styles (colours and bold), ends of lines and tabs.
_KEPT = re.compile(r"(\x1b\[(?:0|1|[39][0-7])m|[\n\t])")

_read_buffer, _print = util.read_buffer, operations.print_host_combined_output


def sanitize_output() -> None:
    """Patch pyinfra so that host output is bounded when read and printable when shown."""
    util.read_buffer = _read
    operations.print_host_combined_output = facts.print_host_combined_output = _show
    logger.addFilter(_plain)


def shown(text: str) -> str:
    """The text with pyinfra's own styles, but without other control characters."""
    parts = _KEPT.split(text)
    return "".join(part if odd % 2 else printable(part) for odd, part in enumerate(parts))


def _plain(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str):
        record.msg, record.args = shown(record.getMessage()), ()
    return True


def _show(host: Any, output: Iterable[OutputLine]) -> None:
    last = list(output)[-MAX_SHOWN_LINES:]
    lines = [OutputLine(one.buffer_name, printable(one.line[:MAX_SHOWN_LENGTH])) for one in last]
    _print(host, lines)  # type: ignore[arg-type]


def _read(name: str, stream: Any, *arguments: Any, print_func: Any = None, **options: Any) -> None:
    def plainly(line: str) -> str:
        return print_func(printable(line)) if print_func else printable(line)

    # An already bounded stream is an iterator of lines.
    lines = bounded(stream) if hasattr(stream, "readline") else stream
    _read_buffer(name, lines, *arguments, print_func=plainly, **options)


def bounded(stream: Any) -> Iterator[str]:
    """The lines of a host's output; too much output ends the command, which then fails."""
    if isinstance(stream, ChannelFile):
        # Otherwise paramiko decodes, and raises for bytes that are not UTF-8.
        stream._flags |= stream.FLAG_BINARY  # type: ignore
    left = MAX_BYTES
    while line := stream.readline(MAX_LINE_LENGTH):
        left -= len(line)
        if left < 0 or len(line) == MAX_LINE_LENGTH:
            if isinstance(stream, ChannelFile):
                stream.channel.close()
            return
        yield line if isinstance(line, str) else line.decode(errors="replace")
