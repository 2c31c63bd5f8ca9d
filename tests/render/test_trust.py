"""Hosts' SSH keys against a real SSH server: recorded once, and any other refused."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

ROOT = Path(__file__).parents[2]
INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = [
    ("gpu-1", {{"ssh_hostname": "127.0.0.1", "ssh_port": {port}, "llm": {{"gpus": "L40S"}}}}),
]
all = (
    gpu_hosts,
    {{
        "ssh_known_hosts_file": {known!r},
        "ssh_strict_host_key_checking": "yes",
        "ssh_user": "nobody",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        "ssh_config_file": "/dev/null",
    }},
)
check(__file__)
"""
Server = Callable[[str], tuple[int, str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Starts servers: the port of one with the key of a name, and the key's fingerprint."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> tuple[int, str]:
        file = tmp_path / f"{name}.key"
        if not file.exists():
            paramiko.ECDSAKey.generate().write_private_key_file(str(file))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.render.ssh_server", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        key = paramiko.ECDSAKey.from_private_key_file(str(file))
        return int(process.stdout.readline()), key.fingerprint

    yield start
    for process in started:
        process.kill()
        process.wait()


def inventory(folder: Path, port: int) -> Path:
    file = folder / "site.py"
    file.write_text(INVENTORY.format(port=port, known=str(folder / "known/site")))
    return file


def run(*command: str, expected_message: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=dict(os.environ),
        input=expected_message,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def trust(
    file: Path, *options: str, expected_message: str = ""
) -> subprocess.CompletedProcess[str]:
    return run(
        sys.executable,
        "-m",
        "roles.fleet",
        "trust",
        str(file),
        *options,
        expected_message=expected_message,
    )


def connected(file: Path) -> str:
    """What pyinfra says when it connects to the inventory's host, of which nothing is served."""
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    unchecked = file.with_name("unchecked.py")
    unchecked.write_text(file.read_text().replace("check(__file__)\n", ""))
    done = run(pyinfra, "-y", str(unchecked), "exec", "--", "true")
    return done.stdout + done.stderr


def test_a_key_is_recorded_once_and_any_other_is_refused(tmp_path: Path, server: Server):
    known = tmp_path / "known/site"
    port, fingerprint = server("own")
    file = inventory(tmp_path, port)
    assert "python -m roles.fleet trust" in connected(file)

    # Without a word nothing is recorded.
    for expected_message in ("", "n\n"):
        refused = trust(file, expected_message=expected_message)
        assert (refused.returncode, known.exists()) == (1, False)
        assert fingerprint in refused.stdout

    done = trust(file, expected_message="y\n")
    assert (done.returncode, done.stderr) == (0, "")
    text = known.read_text()
    assert text.startswith(f"[127.0.0.1]:{port} ecdsa-sha2-nistp256 ")
    assert "authentication" in connected(file)
    again = trust(file)
    assert (again.returncode, again.stdout.split()[-1], known.read_text()) == (0, "known", text)

    # Somebody else in the host's place.
    other, stranger = server("stranger")
    known.write_text(text.replace(str(port), str(other)))
    file = inventory(tmp_path, other)
    attacked = connected(file)
    assert "authentication" not in attacked and "does not match" in attacked
    before = known.read_text()
    refused = trust(file, "--yes")
    assert (refused.returncode, known.read_text()) == (1, before)
    for word in ("gpu-1: ", stranger, fingerprint, f"ssh-keygen -R '[127.0.0.1]:{other}' -f"):
        assert word in refused.stderr


def test_a_host_that_is_not_reached_is_named(tmp_path: Path):
    done = trust(inventory(tmp_path, 1), "--yes")
    assert done.returncode == 1
    assert done.stderr == "gpu-1: [127.0.0.1]:1 cannot be reached: Connection refused\n"
    assert not (tmp_path / "known").exists()


def test_what_is_no_ssh_server_is_named_without_its_words(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x1b]0;evil\x07\r\n" * 200)

        threading.Thread(target=answer, daemon=True).start()
        done = trust(inventory(tmp_path, port), "--yes")
    message = f"gpu-1: [127.0.0.1]:{port} does not answer as an SSH server\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@pytest.mark.parametrize("text", [b"[127.0.0.1]:1 ssh-rsa AAA%\n", b"\xff\xfe\n"])
def test_a_damaged_file_is_named(tmp_path: Path, text: bytes):
    known = tmp_path / "known/site"
    known.parent.mkdir()
    known.write_bytes(text)
    done = trust(inventory(tmp_path, 1), "--yes")
    assert (done.returncode, known.read_bytes()) == (1, text)
    assert done.stderr.startswith(f"hosts[gpu-1].ssh_known_hosts_file: {known} ")


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        ('"ssh_known_hosts_file"', '"other"', "hosts[gpu-1].ssh_known_hosts_file: is missing"),
        # It would be a key for every host.
        ("127.0.0.1", "*", "'*' is no name or address of a host"),
        ("127.0.0.1", "a b,c", "'a b,c' is no name or address of a host"),
        (
            "gpu_hosts = [",
            "gpu_hosts = [oops",
            "site.py, line 4: NameError: name 'oops' is not defined",
        ),
    ],
)
def test_what_is_no_host_or_has_no_file(tmp_path: Path, found: str, instead: str, message: str):
    file = inventory(tmp_path, 22)
    file.write_text(file.read_text().replace(found, instead))
    done = trust(file, "--yes")
    assert done.returncode == 1 and message in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "known").exists()
