"""A host is held over a real SSH connection, and let go when that ends."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from roles.host.lease import BusyHostError, Channel, Lease, hold_script
from roles.watchdog.on_host.files import locked

RUN = "20261130T032409Z-4f2a"


class Host(paramiko.ServerInterface):
    """Lets everybody in, and runs commands as sshd does."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL  # type: ignore[attr-defined]

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED  # type: ignore[attr-defined]

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=run, args=(channel, command.decode()), daemon=True).start()
        return True


def run(channel: Any, command: str) -> None:
    process = subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin and process.stdout
    threading.Thread(target=pump, args=(channel.recv, process.stdin.write), daemon=True).start()
    pump(process.stdout.read, channel.sendall)
    channel.send_exit_status(process.wait())
    channel.close()


def pump(read: Callable[[int], bytes], write: Callable[[bytes], Any]) -> None:
    try:
        while part := read(1024):
            write(part)
    except OSError:
        pass
    if (owner := getattr(write, "__self__", None)) and hasattr(owner, "fileno"):
        owner.close()


@pytest.fixture
def connect() -> Callable[[], paramiko.Transport]:
    """Makes a connection to a host of its own."""
    key = paramiko.ECDSAKey.generate()

    def connected() -> paramiko.Transport:
        there, here = socket.socketpair()
        server = paramiko.Transport(there)
        server.add_server_key(key)
        server.start_server(threading.Event(), Host())
        client = paramiko.Transport(here)
        client.start_client(timeout=10)
        client.auth_none("me")
        return client

    return connected


def test_a_host_is_held_by_its_connection(
    tmp_path: Path, connect: Callable[[], paramiko.Transport]
):
    path = str(tmp_path / "run")
    first, second = connect(), connect()
    lease = Lease(Channel(first, hold_script(RUN, path, 60)))
    assert lease.alive and locked(path)
    with pytest.raises(BusyHostError, match=RUN):
        Lease(Channel(second, hold_script("20261130T032500Z-0001", path, 60)))
    first.close()
    end = time.monotonic() + 10
    while locked(path) and time.monotonic() < end:
        time.sleep(0.05)
    assert not locked(path) and not lease.alive
    again = Lease(Channel(second, hold_script(RUN, path, 60)))
    assert again.alive
    again.close()
    second.close()
