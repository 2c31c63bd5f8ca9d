"""`python -m roles.hardware read --kind topo FILE…`: converts GPU tools' output to JSON lines."""

import argparse
import json
import sys
from pathlib import Path

from roles.hardware.kinds import READERS, read
from roles.hardware.outputs.text import OutputError
from roles.host import read_bytes
from roles.host.command import run, stdin_bytes

_MAX_BYTES = 2**24


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.hardware", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("read", help="read outputs of one kind")
    reading.add_argument("--kind", required=True, choices=sorted(READERS))
    reading.add_argument("files", nargs="+", metavar="FILE", help="- for standard input")
    return top


def main(arguments: list[str]) -> int:
    """Print one JSON object for each file; 1 where one could not be read, with a line on stderr."""
    options = parser().parse_args(arguments)
    read_all = [_print(options.kind, file) for file in options.files]
    return 0 if all(read_all) else 1


def _print(kind: str, file: str) -> bool:
    try:
        fields = read(kind, _text(file))
    except OutputError as error:
        return _refused(f"{file}: {error}")
    except ValueError as error:
        return _refused(str(error))
    print(json.dumps({"file": file, **fields}), flush=True)
    return True


def _refused(problem: str) -> bool:
    print(problem, file=sys.stderr)
    return False


def _text(file: str) -> str:
    """The file as text: a log cut in the middle of a character is still a log."""
    content = stdin_bytes(_MAX_BYTES) if file == "-" else read_bytes(Path(file), _MAX_BYTES)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")


if __name__ == "__main__":
    sys.exit(run(main))
