"""The standard streams of a command, and how it ends if one of them fails."""

import os
import sys
from collections.abc import Callable, Iterator
from io import TextIOWrapper

# A line of JSON holds a model's config at most.
MAX_LINE_LENGTH = 2**24


def run(main: Callable[[list[str]], int]) -> int:
    """Run a command with this process's arguments; return its exit status, 1 if a stream fails."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        print("stdout is closed; send it to a file or a terminal", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8, or a terminal without UTF-8, must not stop the command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _exit_status(main)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe.
        return _discard_stdout()
    except OSError as error:
        print(f"stdin or stdout fails ({error.strerror}); repair it and repeat", file=sys.stderr)
        return _discard_stdout()


def _exit_status(main: Callable[[list[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _discard_stdout() -> int:
    """Discard what Python would still write to stdout as it exits; return status 1."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def stdin_lines() -> Iterator[str]:
    """The lines of stdin; bytes that are not UTF-8 become lone surrogates.

    ValueError if stdin is closed or a line is longer than `MAX_LINE_LENGTH`.
    """
    if sys.stdin is None:
        raise ValueError("stdin is closed; give it lines")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    number = 0
    while line := sys.stdin.readline(MAX_LINE_LENGTH + 1):
        number += 1
        if len(line) > MAX_LINE_LENGTH:
            raise ValueError(f"line {number} is longer than {MAX_LINE_LENGTH} characters; break it")
        yield line


def stdin_bytes(max_bytes: int) -> bytes:
    """All of stdin; ValueError if it is closed or has more than `max_bytes` bytes."""
    if sys.stdin is None:
        raise ValueError("stdin is closed; give it the output to read")
    content = sys.stdin.buffer.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"stdin has more than {max_bytes >> 20} MiB; give it one output")
    return content
