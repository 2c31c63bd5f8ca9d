"""`lock REQUIREMENT` prints a lock: every package of an engine with its exact version and
hashes."""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from roles.engine.vllm.lock import lock_command
from roles.engine.vllm.settings import VllmSettings


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.engine", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    lock = commands.add_parser("lock", help="print a lock of vLLM's packages with their hashes")
    lock.add_argument("requirement", help="for instance vllm==0.33.0")
    lock.add_argument("--python", default="3.11", help="the oldest Python of the hosts; 3.11")
    lock.add_argument("--index-url", help="package index instead of the public one")
    lock.add_argument("--extra-index-url", action="append", default=[], help="one more index")
    lock.add_argument("--wheelhouse", help="folder or URL with all wheels; no index is asked")
    lock.add_argument("--uv", default=VllmSettings().uv, help="the installer to lock with them")
    return top


def main(arguments: list[str]) -> int:
    """Run the subcommand; 0, or 1 where something is wrong."""
    options = parser().parse_args(arguments)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        print(f"uv is not installed here: python -m pip install {options.uv}", file=sys.stderr)
        return 1
    default = [options.index_url or "https://pypi.org/simple"]
    remade_by = shlex.join(["python", "-m", "roles.engine", *arguments])
    done = subprocess.run(
        lock_command(
            uv,
            options.python,
            [] if options.wheelhouse else [*default, *options.extra_index_url],
            options.wheelhouse,
            remade_by,
        ),
        input=f"{options.requirement}\n{options.uv}\n",
        text=True,
        check=False,
    )
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
