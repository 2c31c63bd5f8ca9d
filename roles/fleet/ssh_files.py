"""Checks the files that ssh data names, before pyinfra contacts a host.

pyinfra reads a key when it connects: one that is missing ends the run for all hosts, and a pipe is
waited for.
"""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paramiko import HostKeys
from pyinfra.connectors.ssh_util import load_key_with_certificate
from pyinfra.connectors.sshuserclient.config import SSHConfig

from roles.host import path_exists, read_bytes, read_text

_MAX_KEY_BYTES, _MAX_TEXT_BYTES = 2**16, 2**22
_FILES = ("ssh_key", "ssh_config_file", "ssh_known_hosts_file")


def ssh_file_problems(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The problems of the files in the ssh data of places such as hosts[gpu-1], each file named
    for its first place alone."""
    seen: set[tuple[Any, ...]] = set()
    for place, data in hosts.items():
        for key in _FILES:
            file = data.get(key)
            if file is None or (key, file, data.get("ssh_key_password")) in seen:
                continue
            seen.add((key, file, data.get("ssh_key_password")))
            if problem := file_problem(key, file, data):
                yield f"{place}{key}: {problem}"


def file_problem(key: str, file: str, data: Mapping[str, Any]) -> str | None:
    """Why the file of a setting cannot be used, with a remedy; None if it can."""
    try:
        if key == "ssh_key":
            _check_key(file, data.get("ssh_key_password"))
        elif key == "ssh_config_file":
            _check_config(file)
        else:
            _check_known_hosts(file)
    except ValueError as error:
        return str(error)
    return None


def _check_key(file: str, password: str | None) -> None:
    text = read_bytes(Path(file), _MAX_KEY_BYTES)
    if b"PRIVATE KEY-----" not in text:
        raise ValueError(f"{file} is no private SSH key; name one that ssh-keygen made, not .pub")
    try:
        load_key_with_certificate(file, password, allow_prompt=False)
    # paramiko raises errors of many types for keys that are damaged.
    except Exception as error:
        if "is encrypted" not in str(error):
            password_too = ", or ssh_key_password" if password else ""
            raise ValueError(
                f"{file} cannot be read as an RSA, ECDSA or Ed25519 key; correct it{password_too}"
            ) from None
        # On a terminal, pyinfra asks for the password.
        if not sys.stdin or not sys.stdin.isatty():
            raise ValueError(
                f"{file} is encrypted; set ssh_key_password, or use an agent"
            ) from None


def _check_config(file: str) -> None:
    if file == os.devnull:
        return
    if file.startswith("~"):
        raise ValueError(f"{file}: pyinfra takes no ~ here; write the whole path")
    text = read_text(Path(file), _MAX_TEXT_BYTES)
    try:
        SSHConfig().parse(io.StringIO(text))
    except Exception as error:
        raise ValueError(f"{file} is no SSH configuration ({error!s:.80}); correct it") from None


def _check_known_hosts(file: str) -> None:
    path = Path(file)
    # Where it is missing, the run says for each host that its key must be recorded.
    if file == os.devnull or not path_exists(_expanded(path)):
        return
    read_text(path, _MAX_TEXT_BYTES)
    try:
        HostKeys(str(_expanded(path)))
    except Exception:
        raise ValueError(
            f"{file} holds what is no SSH key; remove that line (ssh-keygen -lf FILE names it)"
        ) from None


def _expanded(path: Path) -> Path:
    return Path(os.path.expanduser(path))
