"""`python -m roles.models read`: files that are none are refused, none of them is waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roles.models.__main__ import main


def make_huge(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(3 * 2**30)


LOOSE: Callable[[Path], object] = lambda file: file.symlink_to("nowhere")  # noqa: E731
WHOLE = '{"model_type": "llama", "hidden_size": 64}'


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a folder"),
        (LOOSE, "is a link that leads nowhere"),
        (lambda file: file.symlink_to("/dev/zero"), "is a device"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["config.json", "hf_quant_config.json", "model.safetensors", "model.safetensors.index.json"],
)
def test_a_file_of_a_folder_that_is_none(
    make: Callable[[Path], object],
    fault: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "config.json").write_text(WHOLE)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    assert main(["read", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and f"{tmp_path / name} {fault}" in printed.err


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json"])
def test_a_file_of_many_gigabytes_is_not_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "config.json").write_text(WHOLE)
    make_huge(tmp_path / name)
    assert main(["read", str(tmp_path)]) == 1
    assert f"{name} is larger than 32 MiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a folder"),
        (LOOSE, "is a link that leads nowhere"),
        (make_huge, "no GGUF file"),
        (lambda file: None, "is not there"),
    ],
)
def test_a_gguf_file_that_is_no_file(
    make: Callable[[Path], object],
    fault: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    make(tmp_path / "m.gguf")
    assert main(["read", str(tmp_path / "m.gguf")]) == 1
    assert f"m.gguf {fault}" in capsys.readouterr().err.replace("is no GGUF", "no GGUF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/dev/zero"], "/dev/zero/config.json is not there"),
        (["~nobody-there/model"], "home of a user that is not there"),
        (["/" + "x" * 300], "config.json"),
        (["a b"], "is no name on the hub"),
        (["org/model", "--endpoint", "no address"], "must be a URL"),
        (["org/model", "--token-file", "/dev/zero"], "/dev/zero is a device"),
        (["org/model", "--token-file", "/nowhere"], "/nowhere is not there"),
        (["org/model", "--token-file", "/tmp"], "/tmp is a folder"),
        ([".", "--id", "a b"], "config.json is not there"),
    ],
)
def test_arguments_that_name_no_model(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["read", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and len(printed.err.splitlines()) == 1
