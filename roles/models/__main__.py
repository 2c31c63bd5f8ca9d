"""Record a model that the catalog does not have, so that plans need no network.

`read SOURCE` prints one JSON object to commit and to name in `services[].model`.
"""

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from roles.host import path_exists, read_text
from roles.host.command import run
from roles.models.adapter import read_adapter
from roles.models.folder import read_folder
from roles.models.hub import ENDPOINT, fetch_adapter, read_hub
from roles.models.settings import RecordedModel, describe_errors


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    top = argparse.ArgumentParser(prog="python -m roles.models", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    read = commands.add_parser(
        "read", help="print a model of the hub, of a folder or a GGUF as JSON"
    )
    read.add_argument("source", help="org/name, org/name@revision, a folder or a .gguf file")
    read.add_argument("--id", default="", help="what clients call a folder's model; its name")
    adapter = commands.add_parser("adapter", help="copy a LoRA adapter of the hub into a folder")
    adapter.add_argument("source", help="org/name, or org/name@revision")
    adapter.add_argument("folder", type=Path, help="where its files are to be, for `adapters`")
    for one in (read, adapter):
        one.add_argument(
            "--token-file",
            type=Path,
            help="file with the hub's token, for gated models; or HF_TOKEN",
        )
        one.add_argument("--endpoint", default=ENDPOINT, help="a mirror of the hub: https://HOST")
    return top


def main(arguments: list[str]) -> int:
    """Run the subcommand; 0, or 1 where something is wrong."""
    options = parser().parse_args(arguments)
    if options.command == "adapter":
        return _copy(options)
    try:
        found = _read(options)
        model = found.model()
    except ValidationError as error:
        return _refused(f"{options.source}: {describe_errors(error)}")
    except (ValueError, OSError) as error:
        return _refused(f"{options.source}: {error}")
    # The tensors of a GGUF file are counted, so a warning about its kind does not matter.
    warnings = () if model.gguf else model.warnings
    if found.weights_bytes is None:
        warnings += ("no safetensors files: the plan reckons the weights from the config",)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(found.text(), end="")
    return 0


def _copy(options: argparse.Namespace) -> int:
    """Copy an adapter, and say at which commit."""
    token = options.token_file
    try:
        commit = fetch_adapter(
            options.source, options.folder, token=_token(token), endpoint=options.endpoint
        )
        found = read_adapter(options.folder)
    except (ValueError, OSError) as error:
        return _refused(f"{options.source}: {error}")
    print(f"{options.folder}: rank {found.rank}, for {found.base or '?'}, commit {commit}")
    return 0


def _refused(problem: str) -> int:
    print(problem, file=sys.stderr)
    return 1


def _read(options: argparse.Namespace) -> RecordedModel:
    source = str(options.source)
    path = _expanded(Path(source))
    if path_exists(path) or source.startswith(("/", ".")) or source.endswith(".gguf"):
        return read_folder(path, model_id=options.id)
    if options.id:
        raise ValueError("--id is for a folder alone; a model of the hub has its name there")
    return read_hub(source, token=_token(options.token_file), endpoint=options.endpoint)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("is in the home of a user that is not there; correct it") from None


def _token(file: Path | None) -> str | None:
    """The hub's token, from the file or else the environment; None without both."""
    if file is not None and not path_exists(file):
        raise ValueError(f"{file} is not there: write the hub's token into it")
    token = (read_text(file, 2**16) if file else os.environ.get("HF_TOKEN", "")).strip()
    if not token and file is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        source = file or "HF_TOKEN"
        raise ValueError(f"{source} does not hold a token: one line of ASCII is expected")
    return token


if __name__ == "__main__":
    sys.exit(run(main))
