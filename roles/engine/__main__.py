"""`lock REQUIREMENT` prints a lock: every package of an engine with its exact version and
hashes."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from roles.engine.lock import INDEXES, device_problem, lock_command, lock_environment
from roles.engine.needs import DEVICES
from roles.engine.packages import REQUIREMENT, PackagesBuild
from roles.engine.registry import DEPLOYMENTS

# The options that are settings of an inventory under the same name.
_CHECKED = ("requirement", "uv", "index_url", "wheelhouse")


_BUILDS = tuple(one.build for one in DEPLOYMENTS.values() if issubclass(one.build, PackagesBuild))
_NAMES = " or ".join(one.engine_name for one in _BUILDS)


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.engine", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    lock = commands.add_parser(
        "lock", help=f"print a lock of the packages of {_NAMES} with their hashes"
    )
    example = _BUILDS[0].model_fields["requirement"].default
    lock.add_argument("requirement", help=f"for instance {example}")
    lock.add_argument("--python", default="3.11", help="the oldest Python of the hosts; 3.11")
    lock.add_argument("--index-url", help="package index instead of the public one")
    lock.add_argument("--extra-index-url", action="append", default=[], help="one more index")
    lock.add_argument(
        "--with",
        action="append",
        default=[],
        dest="beside",
        help="one more package with its version, such as ray==2.60.0",
    )
    lock.add_argument("--wheelhouse", help="folder or URL with all wheels; no index is asked")
    lock.add_argument(
        "--device",
        choices=DEVICES,
        default="cuda",
        help="what the hosts compute on: adds the index with builds for it, unless another is said",
    )
    lock.add_argument(
        "--uv",
        default=_BUILDS[0].model_fields["uv"].default,
        help="the installer to lock with them",
    )
    return top


def main(arguments: list[str]) -> int:
    """Run the subcommand; 0, or 1 where something is wrong."""
    options = parser().parse_args(arguments)
    if problems := _problems(options):
        print("\n".join([*problems, "Nothing was done."]), file=sys.stderr)
        return 1
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        print(f"uv is not installed here: python -m pip install {options.uv}", file=sys.stderr)
        return 1
    default = [options.index_url or "https://pypi.org/simple"]
    more = options.extra_index_url or INDEXES[options.device]
    remade_by = shlex.join(["python", "-m", "roles.engine", *arguments])
    done = subprocess.run(
        lock_command(
            uv,
            options.python,
            [] if options.wheelhouse else [*default, *more],
            options.wheelhouse,
            remade_by,
        ),
        input="".join(f"{one}\n" for one in (options.requirement, *options.beside, options.uv)),
        env=lock_environment(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return 1
    if problem := device_problem(done.stdout, options.device):
        remedy = "name an index with a build for it: --extra-index-url URL"
        print(f"--device: {problem}; {remedy}\nNothing was done.", file=sys.stderr)
        return 1
    print(done.stdout, end="")
    return 0


def _problems(options: argparse.Namespace) -> list[str]:
    """Why the options could not be those of an inventory, each with its option and a remedy."""
    given = {name: value for name in _CHECKED if (value := getattr(options, name))}
    folder = options.wheelhouse
    if folder and "://" not in folder:
        if not Path(folder).is_dir():
            return [f"--wheelhouse: {folder} is no folder here; correct it, or give a URL"]
        del given["wheelhouse"]
    urls = (options.index_url, *options.extra_index_url, folder)
    given["extra_index_urls"] = options.extra_index_url
    given["python"] = f"python{options.python}"
    # The hashes in the lock come from there; what is installed must equal them.
    given["allow_http_from"] = [host for url in urls if url and (host := _host(url))]
    requirement = options.requirement
    for one in options.beside:
        if not re.fullmatch(REQUIREMENT, one):
            return [f"--with: {one!r:.80} is no package with its version; write ray==2.60.0"]
    build = next((one for one in _BUILDS if one.owns(requirement)), None)
    if build is None and "==" in requirement:
        return [f"requirement: {requirement!r} is another package than {_NAMES}"]
    try:
        (build or _BUILDS[0]).model_validate(given)
    except ValidationError as error:
        found = (one for one in error.errors() if one["loc"][:1] != ("allow_http_from",))
        return [f"{_option(one)}: {_cause(one)}" for one in found]
    return []


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _option(error: ErrorDetails) -> str:
    name = str(error["loc"][0]) if error["loc"] else "python"
    name = name.removesuffix("s") if name.startswith("extra") else name
    return name if name == "requirement" else f"--{name.replace('_', '-')}"


def _cause(error: ErrorDetails) -> str:
    # The text that does not match is not repeated: it may hold a password.
    if error["type"] == "string_pattern_mismatch":
        return f"is not of the form {error['ctx']['pattern']}; correct it"  # type: ignore
    return error["msg"].removeprefix("Value error, ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
