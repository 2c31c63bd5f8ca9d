"""Files, JSON and YAML that people give: read within bounds, or refused with what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roles.host import parse_json, parse_yaml, read_bytes, read_text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "is not there: create it"),
        (Path.mkdir, "is a folder; name a regular file"),
        (os.mkfifo, "is a named pipe; name a regular file"),
        (lambda file: file.symlink_to("/dev/full"), "is a device; name a regular file"),
        (lambda file: file.symlink_to("/nowhere"), "leads nowhere; correct or remove it"),
        (lambda file: file.symlink_to(file), "correct its name or rights"),
        (lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_RDWR), 2**32), "is larger than"),
        (lambda file: file.write_bytes(b"a" * 11), "is larger than"),
        (lambda file: file.write_bytes(b"\xc3"), "is no UTF-8 text (byte 0); save it as UTF-8"),
    ],
)
def test_what_is_no_file_of_text(make: Callable[[Path], object], message: str, tmp_path: Path):
    file = tmp_path / "given"
    make(file)
    with pytest.raises(ValueError) as error:
        read_text(file, 10)
    assert str(error.value).startswith(f"{file} ") and message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "has a NUL; remove it"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("/dev/null/x", "a part of its path is no folder"),
        ("~nobody-there/x", "home of a user that is not there"),
        ("\udcff\n", "is not there"),
    ],
)
def test_a_name_of_no_file(name: str, message: str):
    with pytest.raises(ValueError) as error:
        read_bytes(Path(name))
    assert message in str(error.value) and str(error.value).isprintable()


def test_a_file_that_grows_as_it_is_read_has_its_bound():
    # Files of /proc have no size before they are read.
    assert b"MemTotal" in read_bytes(Path("/proc/meminfo"))
    with pytest.raises(ValueError, match="is larger than"):
        read_bytes(Path("/proc/meminfo"), 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \t", "is empty"),
        ("{'a': 1}", "is no JSON"),
        ("{} {}", "is no JSON: Extra data"),
        ("[1, 2", "is no JSON"),
        (b"\xff\xfe[\x00]\x00", "is no UTF-8 text"),
        ('"\\ud800"', "is no UTF-8 text"),
        ("\udcff", "is no UTF-8 text"),
        ('{"a": 1, "b": 2, "a": 3}', "has the key 'a' twice"),
        ('[{"x": {"y": 1, "y": 1}}]', "has the key 'y' twice"),
        ("9" * 5000, "digits"),
        ("[" * 65 + "]" * 65, "is nested deeper than 64 levels"),
        ('{"a":' * 10**6, "is nested deeper than 64 levels"),
    ],
)
def test_what_is_no_json(text: str | bytes, message: str):
    with pytest.raises(ValueError) as error:
        parse_json(text)
    assert str(error.value).startswith(message) or message in str(error.value).split(" of ")[-1]


def test_json_is_read():
    assert parse_json(b'{"a": [1.5, null, "\\ud83d\\ude00"]}') == {"a": [1.5, None, "😀"]}
    assert parse_json("[" * 64 + "]" * 64)


def test_a_byte_order_mark_is_skipped():
    assert parse_json(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("a: 1\n---\nb: 1", "is no YAML"),
        ("a: !!python/name:os.system", "is no YAML"),
        ("a: *b", "is no YAML: found undefined alias"),
        ("\x07", "is no YAML"),
        ("a: 1\nb: 1\na: 2", "has a twice, below line 1"),
        ("a:\n  b: {c: 1, c: 1}", "has c twice, below line 2"),
        ("a: !!float x", "has a value that cannot be read"),
        ("a: !!bool x", "has a value that cannot be read"),
        ("a: !!int ''", "has a value that cannot be read"),
        ("a: 2026-13-45", "has a value that cannot be read"),
        ("a: " + "[" * 70 + "]" * 70, "is nested deeper than 64 levels"),
        ("&a [*a]", "is nested deeper than 64 levels"),
    ],
)
def test_what_is_no_yaml(text: str, message: str):
    with pytest.raises(ValueError) as error:
        parse_yaml(text)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_yaml_is_read():
    assert parse_yaml("a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}
    assert parse_yaml("# nothing\n") is None
