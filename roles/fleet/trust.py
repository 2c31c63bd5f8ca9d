"""Records the SSH keys of an inventory's hosts, so that runs refuse hosts with other keys."""

import contextlib
import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import paramiko
from pyinfra.api import Host
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.sshuserclient.client import SSHClient

from roles.declaration import write_whole
from roles.declaration.inventory import read_hosts
from roles.fleet.known_hosts import (
    SSH_PORT,
    HostKey,
    ScannedHost,
    key_mismatch,
    known_name,
    with_new_keys,
)
from roles.fleet.ssh_files import ssh_file_problems

TIMEOUT_S = 10
_AT_ONCE = 16


def trust(inventory: str, yes: bool) -> int:
    """Show the keys of hosts, and record new ones if the user agrees, or with `yes`.

    Returns 1 where a host shows no key, or another than its recorded one; in the latter case
    nothing is recorded. ValueError where the inventory does not run, names no file of known hosts,
    or that file is damaged.
    """
    # paramiko logs tracebacks, which hold text of the other side.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    hosts = [host for host in read_hosts(inventory) if not host.name.startswith("@")]
    files: dict[Path, list[Host]] = {}
    for host in hosts:
        files.setdefault(_file_of(host), []).append(host)
    if problems := list(
        ssh_file_problems({f"hosts[{one.name}].": _named_files(one) for one in hosts})
    ):
        raise ValueError("\n".join([*problems, "Nothing was done."]))
    # A list, so that each file is handled even if another one failed.
    return max([_trust(file, hosts, yes) for file, hosts in files.items()], default=0)


def _file_of(host: Host) -> Path:
    file = host.data.get("ssh_known_hosts_file")
    if not file:
        raise ValueError(
            f"hosts[{host.name}].ssh_known_hosts_file: is missing; name the file that its key is "
            "recorded in, and set ssh_strict_host_key_checking to yes"
        )
    return Path(str(file)).expanduser()


def _named_files(host: Host) -> dict[str, Any]:
    names = ("ssh_config_file", "ssh_known_hosts_file")
    return {name: host.data.get(name) for name in names}


def _trust(file: Path, hosts: Sequence[Host], yes: bool) -> int:
    recorded = _recorded(file)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda host: _scanned(host, recorded), hosts))
    failed = [f"{one.host}: {one.problem}" for one in found if one.problem]
    failed += [key_mismatch(one, str(file)) for one in found if one.differs]
    new = [one for one in found if one.is_new]
    for line in _table(found):
        click.echo(line)
    for problem in failed:
        click.echo(problem, err=True)
    if any(one.differs for one in found):
        click.echo(f"{file}: nothing was recorded", err=True)
    elif new and _confirmed(file, len(new), yes):
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        write_whole(file, with_new_keys(text, new))
        click.echo(f"{file}: {len(new)} recorded; commit it")
    elif new:
        failed.append("not confirmed")
    return int(bool(failed))


def _table(found: Iterable[ScannedHost]) -> Iterator[str]:
    for one in found:
        if one.key is not None and not one.differs:
            state = "new" if one.is_new else "known"
            yield f"{one.host}  {one.name}  {one.key.kind}  {one.key.fingerprint}  {state}"


def _confirmed(file: Path, count: int, yes: bool) -> bool:
    if yes:
        return True
    click.echo("Compare with each host's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    try:
        return click.confirm(f"Record {count} in {file}?")
    except click.Abort:
        click.echo(f"\n{file}: nothing was recorded; confirm, or give --yes", err=True)
        return False


def _recorded(file: Path) -> paramiko.HostKeys:
    return paramiko.HostKeys(str(file)) if file.is_file() else paramiko.HostKeys()


def _scanned(host: Host, recorded: paramiko.HostKeys) -> ScannedHost:
    address = str(host.data.get("ssh_hostname") or host.name)
    try:
        # As pyinfra connects: ~/.ssh/config may set another name, port or proxy.
        hostname, config, *_ = SSHClient().parse_config(
            address,
            {"port": int(host.data.get("ssh_port") or SSH_PORT)},
            ssh_config_file=host.data.get("ssh_config_file"),
        )
        name = known_name(hostname, config["port"])
        known = tuple(
            HostKey(key.get_name(), key.get_base64())
            for key in (recorded.lookup(name) or {}).values()
        )
    except (ValueError, OSError, EOFError, PyinfraError, paramiko.SSHException) as error:
        return ScannedHost(host.name, repr(address), (), problem=_problem(error))
    try:
        return ScannedHost(host.name, name, known, _server_key(hostname, config, known))
    except (OSError, EOFError, paramiko.SSHException) as error:
        return ScannedHost(host.name, name, known, problem=f"{name} {_problem(error)}")


def _problem(error: Exception) -> str:
    """An error as a message, without text of the other side."""
    if isinstance(error, TimeoutError):
        return f"does not answer within {TIMEOUT_S} s"
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror}"
    if isinstance(error, ValueError):
        return str(error)
    return "does not answer as an SSH server"


def _server_key(hostname: str, config: dict[str, Any], known: Sequence[HostKey]) -> HostKey:
    """The key that a host shows, of the type of a recorded key if there is one."""
    port = config["port"]
    channel = config.get("sock") or socket.create_connection((hostname, port), TIMEOUT_S)
    with contextlib.closing(paramiko.Transport(channel)) as transport:
        transport.banner_timeout = TIMEOUT_S
        options = transport.get_security_options()
        kinds = {"rsa-sha2-512" if key.kind == "ssh-rsa" else key.kind for key in known}
        options.key_types = [kind for kind in options.key_types if kind in kinds] or list(
            options.key_types
        )
        transport.start_client(timeout=TIMEOUT_S)
        key = transport.get_remote_server_key()
        return HostKey(key.get_name(), key.get_base64())
