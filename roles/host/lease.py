"""Holds a host for a run: a process there has its lock for as long as the run renews it.

The process ends with the run's connection, and by itself where nothing comes through that: a
control machine that crashed holds no host for longer than `LEASE_S`.
"""

import re
import shlex
import subprocess
from typing import Any, Protocol

import gevent
from paramiko import Transport
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector

from roles.host.paths import RUN_LOCK

# A laptop that sleeps for a moment, or a network that is cut for one, ends no lease.
LEASE_S, RENEWED_S = 180, 30
_ANSWER_S = 30
_HELD, _BUSY = "held", "busy"
_RUN = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-[0-9a-f]{4}")


class BusyHostError(Exception):
    """Another run holds a host; its text says which, and since when."""


class _Pipe(Protocol):
    """The standard input and output of a process on a host."""

    def send(self, data: bytes) -> None: ...
    def read_line(self) -> str: ...
    def close(self) -> None: ...

    @property
    def alive(self) -> bool: ...


def hold_script(run: str, path: str = RUN_LOCK, lease_s: int = LEASE_S) -> str:
    """A shell script that takes a lock, says so, and keeps it while a byte comes every `lease_s`
    seconds at least; or that says who has it."""
    # flock itself stays as the lock's owner: /proc/locks shows no lock of a process that has ended.
    keep = (
        f'printf "%s\\n" "$1" >{path}; echo {_HELD}; '
        f'while [ "$(timeout {lease_s} head -c 1)" = x ]; do :; done'
    )
    return (
        # Whoever can read a file can lock it.
        f"umask 077; flock -n -E 75 {path} sh -c {shlex.quote(keep)} sh {shlex.quote(run)}; "
        f'[ $? != 75 ] || echo "{_BUSY} $(head -c 80 {path})"'
    )


class Lease:
    """A host that is held; it is renewed until it is closed, or the connection ends."""

    def __init__(self, pipe: _Pipe, renewed_s: float = RENEWED_S) -> None:
        self._pipe = pipe
        answer = pipe.read_line()
        if answer.startswith(_BUSY):
            raise BusyHostError(in_words(answer.removeprefix(_BUSY).strip()))
        if answer != _HELD:
            raise OSError(f"no lock was taken ({answer[:80]!r})")
        self._renewals = gevent.spawn(self._renew, renewed_s)

    def _renew(self, renewed_s: float) -> None:
        while self._pipe.alive:
            try:
                self._pipe.send(b"x")
            except OSError:
                return
            gevent.sleep(renewed_s)

    @property
    def alive(self) -> bool:
        """Whether the host is still held."""
        return self._pipe.alive

    def close(self) -> None:
        """Let the host go."""
        self._renewals.kill(block=False)
        self._pipe.close()


def in_words(run: str) -> str:
    """A run by its id, and when it began."""
    found = _RUN.fullmatch(run)
    if found is None:
        return "another run"
    year, month, day, hour, minute, second = found.groups()
    return f"run {run}, begun at {year}-{month}-{day} {hour}:{minute}:{second} UTC"


def take(host: Any, run: str) -> Lease | None:
    """Hold a host for a run; None where its connector has no such connection.

    BusyHostError where another run holds it, OSError where it cannot be held.
    """
    command = f"sudo -n sh -c {shlex.quote(hold_script(run))}"
    if isinstance(host.connector, LocalConnector):
        return Lease(Process(command))
    if isinstance(host.connector, SSHConnector) and host.connector.client is not None:
        transport = host.connector.client.get_transport()
        if transport is None:
            raise OSError("the connection was lost")
        return Lease(Channel(transport, command))
    return None


class Process:
    """A process of this machine."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline(200).decode(errors="replace").strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


class Channel:
    """A process on a host that is reached by SSH."""

    def __init__(self, transport: Transport, command: str) -> None:
        self._channel = transport.open_session(timeout=_ANSWER_S)
        self._channel.settimeout(_ANSWER_S)
        self._channel.exec_command(command)

    def send(self, data: bytes) -> None:
        self._channel.sendall(data)

    def read_line(self) -> str:
        line = b""
        while not line.endswith(b"\n") and len(line) < 200 and (part := self._channel.recv(1)):
            line += part
        return line.decode(errors="replace").strip()

    def close(self) -> None:
        self._channel.close()

    @property
    def alive(self) -> bool:
        return not (self._channel.closed or self._channel.exit_status_ready())
