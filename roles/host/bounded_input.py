"""Reads files, JSON and YAML that a person supplies, with bounds of size and depth.

Each error is a ValueError that says what is wrong and what to do. A pipe is never waited for.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MAX_TEXT_BYTES = 2**25
MAX_DEPTH = 64
MAX_VALUES = 2**21
# The same loader in C, where libyaml is there.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NO_FILE = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def path_exists(path: Path) -> bool:
    """Whether a path exists, even as a dangling link."""
    return os.path.lexists(path)


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened to read; ValueError for anything else."""
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = next((words for is_kind, words in _NO_FILE if is_kind(mode)), "no file")
            raise _error_of(path, f"is {kind}; name a regular file")
        # Should it become a pipe meanwhile, this does not wait for a writer.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        if path_exists(path):
            raise _error_of(path, "is a link that leads nowhere; correct or remove it") from None
        fault = f"is not there: create it, or correct the path (now at {Path.cwd()})"
        raise _error_of(path, fault) from None
    except NotADirectoryError:
        raise _error_of(path, "is not there: a part of its path is no folder; correct it") from None
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); correct its name or rights"
        raise _error_of(path, fault) from None
    except RuntimeError:
        raise _error_of(path, "is in the home of a user that is not there; correct it") from None
    except ValueError as error:
        # Either our own error from above, or Python's for a NUL.
        raise error if "\0" not in str(path) else _error_of(path, "has a NUL; remove it") from None


def read_bytes(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """A file of at most `max_bytes` bytes."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = b"" if size > max_bytes else file.read(max_bytes + 1)
        except OSError as error:
            raise _error_of(path, f"cannot be read ({error.strerror}); name another file") from None
    if size > max_bytes or len(content) > max_bytes:
        raise _error_of(path, f"is larger than {_size(max_bytes)}; name another file")
    return content


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 2**20 else f"{count >> 10} KiB"


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A file of UTF-8 text."""
    try:
        return read_bytes(path, max_bytes).decode()
    except UnicodeDecodeError as error:
        fault = f"is no UTF-8 text (byte {error.start}); save it as UTF-8"
        raise _error_of(path, fault) from None


def check_private(path: Path, required_mode: int = 0o600) -> None:
    """ValueError if anybody but the owner has any right to the file or folder."""
    mode = path.expanduser().stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(
            f"others may read {path} (mode {mode:o}): run chmod {required_mode:o} {path}"
        )


def _error_of(path: Path, fault: str) -> ValueError:
    name = str(path)
    name = name if name.isprintable() else ascii(name)
    return ValueError(f"{name[:300]} {fault}")


def parse_json(text: str | bytes) -> Any:
    """The value of JSON text; no mapping may have a key twice.

    The ValueError's text continues the file's name: "is no JSON …", "has the key …".
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        text.encode()
        # Windows' editors begin UTF-8 text with this mark.
        text = text.removeprefix("\ufeff")
        value = json.loads(text, object_pairs_hook=_unique_keys)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("is no UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        fault = "is empty" if not text.strip() else f"is no JSON: {error}"
        raise ValueError(fault) from None
    except ValueError as error:
        if str(error).startswith("has the key"):
            raise
        raise ValueError("has a number of thousands of digits") from None
    if _exceeds_max_depth(value):
        raise ValueError(_TOO_DEEP)
    return value


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"has the key {repeated[:100]!r} twice")
    return mapping


def _exceeds_max_depth(found: Any) -> bool:
    """Whether lists and mappings are nested deeper than they may be."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [child for one in inner for child in one if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def parse_yaml(text: str) -> Any:
    """The value of YAML text, None if it is empty; no mapping may have a key twice.

    The ValueError's text continues the file's name: "is no YAML …", "has …".
    """
    loader = _LOADER(text)
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        fault = _fault_of(document)
        if fault is None:
            return loader.construct_document(document)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"is no YAML: {error.problem}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML raises these for values that do not fit their tag: dates, numbers.
        raise ValueError(f"has a value that cannot be read: {error!s:.80}") from None
    finally:
        loader.dispose()
    raise ValueError(fault)


def _fault_of(document: yaml.Node) -> str | None:
    """Why a document is refused: repeated keys, or too many levels or values. None if it is not."""
    # Each node once per level, with the number of its copies once aliases are expanded.
    level, count = {id(document): (document, 1)}, 0
    for _ in range(MAX_DEPTH):
        next_level: dict[int, tuple[yaml.Node, int]] = {}
        for node, times in level.values():
            count += times
            if repeated := _repeated_keys(node):
                return f"has {', '.join(repeated)} twice, below line {node.start_mark.line + 1}"
            for child in _children(node):
                next_level[id(child)] = (child, next_level.get(id(child), (child, 0))[1] + times)
        if count > MAX_VALUES:
            return f"has more than {MAX_VALUES} values, aliases written out"
        if not next_level:
            return None
        level = next_level
    return _TOO_DEEP


def _repeated_keys(node: yaml.Node) -> list[str]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    names = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
    return [name for name, count in names.items() if count > 1]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
