"""Files of ssh data are judged before a host is contacted; none of them hangs."""

import os
from pathlib import Path
from typing import Any

import paramiko
import pytest

from roles.fleet.ssh_files import file_problem, ssh_file_problems

KEY, CONFIG, KNOWN = "ssh_key", "ssh_config_file", "ssh_known_hosts_file"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ssh")
    key = paramiko.ECDSAKey.generate()
    key.write_private_key_file(str(made / "good"))
    key.write_private_key_file(str(made / "locked"), password="secret")
    text = (made / "good").read_text()
    (made / "cut").write_text(text[: len(text) // 2] + "\n-----END EC PRIVATE KEY-----\n")
    (made / "public").write_text(f"{key.get_name()} {key.get_base64()}\n")
    (made / "binary").write_bytes(bytes(range(256)) * 4)
    (made / "large").write_bytes(b"# x\n" * 2**21)
    (made / "config").write_text("Host *\n  User ann\n")
    (made / "words").write_text("these are no settings of ssh\n= = =\n")
    (made / "known").write_text(f"192.0.2.1 {key.get_name()} {key.get_base64()}\n")
    (made / "damaged").write_text("192.0.2.1 ssh-ed25519 AAAA=broken\n")
    os.mkfifo(made / "fifo")
    (made / "folder").mkdir()
    (made / "loop").symlink_to(made / "loop")
    (made / "dangling").symlink_to(made / "nowhere")
    return made


NO_FILE = {
    "folder": "is a folder; name a regular file",
    "fifo": "is a named pipe; name a regular file",
    "loop": "correct its name or rights",
    "dangling": "is a link that leads nowhere",
    "large": "is larger than",
}


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        *((key, name, words) for key in (KEY, CONFIG, KNOWN) for name, words in NO_FILE.items()),
        (KEY, "nowhere", "is not there: create it, or correct the path"),
        (KEY, "binary", "is no private SSH key"),
        (KEY, "public", "is no private SSH key"),
        (KEY, "cut", "cannot be read as an RSA, ECDSA or Ed25519 key; correct it"),
        (KEY, "locked", "is encrypted; set ssh_key_password"),
        (CONFIG, "nowhere", "is not there: create it, or correct the path"),
        (CONFIG, "binary", "is no UTF-8 text"),
        (CONFIG, "words", "is no SSH configuration"),
        (KNOWN, "binary", "is no UTF-8 text"),
        (KNOWN, "damaged", "holds what is no SSH key; remove that line"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, key: str, name: str, words: str):
    problem = file_problem(key, str(folder / name), {})
    assert problem is not None and words in problem and name in problem


@pytest.mark.parametrize("key", [KEY, CONFIG, KNOWN])
def test_a_device_is_not_read(key: str):
    assert "is a device" in str(file_problem(key, "/dev/zero", {}))


def test_pyinfra_reads_no_configuration_below_a_tilde():
    assert "write the whole path" in str(file_problem(CONFIG, "~/.ssh/config", {}))


@pytest.mark.parametrize(
    ("key", "name", "more"),
    [
        (KEY, "good", {}),
        (KEY, "locked", {"ssh_key_password": "secret"}),
        (CONFIG, "config", {}),
        (KNOWN, "known", {}),
        # The run itself says how to record the keys.
        (KNOWN, "nowhere", {}),
        (CONFIG, "/dev/null", {}),
    ],
)
def test_a_good_file_is_taken(folder: Path, key: str, name: str, more: dict[str, Any]):
    assert file_problem(key, str(folder / name), more) is None


def test_a_password_that_opens_nothing_is_named(folder: Path):
    problem = file_problem(KEY, str(folder / "locked"), {"ssh_key_password": "wrong"})
    assert problem is not None and "ssh_key_password" in problem and "wrong" not in problem


def test_a_file_of_many_hosts_is_named_once(folder: Path):
    data = {KEY: str(folder / "nowhere")}
    problems = list(ssh_file_problems({"hosts[a].": data, "hosts[b].": data, "hosts[c].": {}}))
    assert len(problems) == 1 and problems[0].startswith("hosts[a].ssh_key: ")
