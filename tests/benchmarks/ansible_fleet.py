"""ansible-core that keeps on the lab's hosts what a deploy of ours has put there.

The playbook has the same packages, user, files, links and services, with the files' contents as
they are on the hosts. It gathers no facts, pipelines, and works on all hosts at once.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from roles.balancer.nginx.program import Nginx
from roles.engine import LlamaCppSettings
from tests.lab import hosts, keys
from tests.lab.inventories import llama_engine
from tests.lab.paths import LOGIN, cached, sh

PACKAGE = "ansible-core"
FOLDERS = {
    "gpu": "/etc/llm /etc/systemd/system",
    "lb": "/etc/nginx/llm /etc/nginx/conf.d",
}
LIST = "sudo find {folders} \\( -type f -o -type l \\) -printf '%y %m %u %g %p %l\\n'"
SERVICES = "systemctl list-units --plain --no-legend 'llm-*.service' nginx.service"
OURS = re.compile("/llm|llm-")
CONFIG = """[defaults]
forks = {forks}
host_key_checking = True
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = True
control_path_dir = {folder}/sockets-{number}
"""
PLAYBOOK = Path(__file__).with_name("playbook.yaml")


class Ansible:
    """A playbook for these hosts in a folder, and the ansible-core that plays it."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names, self.played = folder, names, 0
        self.python = cached("ansible", PACKAGE, _make) / "bin/python"
        (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": self._hosts()}}))

    def play(self) -> float:
        """Play it with no connection left from before; seconds. It must change nothing."""
        self.played += 1
        config = self.folder / "ansible.cfg"
        config.write_text(
            CONFIG.format(forks=len(self.names), folder=self.folder, number=self.played)
        )
        line = [self.python, "-m", "ansible", "playbook", "-i", "hosts.json", PLAYBOOK]
        began = time.monotonic()
        done = hosts.run_inside(
            ["env", f"ANSIBLE_CONFIG={config}", "LC_ALL=C.UTF-8", *map(str, line)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - began
        recap = re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", done.stdout)
        assert recap == [("0", "0", "0")] * len(self.names), done.stdout + done.stderr
        return seconds

    def _hosts(self) -> dict[str, dict[str, Any]]:
        options = f"-o UserKnownHostsFile={keys.KNOWN_HOSTS} -o IdentitiesOnly=yes"
        return {
            name: {
                "ansible_host": hosts.host(name).address,
                "ansible_user": LOGIN,
                "ansible_ssh_private_key_file": str(keys.LOGIN_KEY),
                "ansible_ssh_common_args": f"-F /dev/null {options}",
                **self._wanted(name),
            }
            for name in self.names
        }

    def _wanted(self, name: str) -> dict[str, Any]:
        kind = name.rstrip("0123456789")
        listed = _ask(name, LIST.format(folders=FOLDERS[kind])).splitlines()
        ours = [one for line in listed if OURS.search((one := line.split())[4])]
        files = [one for one in ours if one[0] == "f"]
        links = [one for one in ours if one[0] == "l" and ".wants/" not in one[4]]
        self._copy(name, [one[4] for one in files])
        return {
            "packages": _packages(kind),
            "engine_user": kind == "gpu",
            "engines": _ask(name, "ls /opt/llm/engines/*/.complete 2>&- || true").split(),
            "files": [
                {
                    "src": f"{self.folder}/{name}{path}",
                    "dest": path,
                    "mode": mode.zfill(4),
                    "owner": owner,
                    "group": group,
                }
                for _, mode, owner, group, path in files
            ],
            "links": [{"path": one[4], "src": one[5]} for one in links],
            "services": [line.split()[0] for line in _ask(name, SERVICES).splitlines()],
        }

    def _copy(self, name: str, paths: list[str]) -> None:
        """Take the files of a host here."""
        line = [*hosts.ssh_command(name), f"sudo tar -c -P {' '.join(paths)}"]
        packed = hosts.run_inside(line, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive.getmembers():
                file = Path(f"{self.folder}/{name}{member.name}")
                file.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                file.write_bytes(content.read() if content else b"")


def _packages(kind: str) -> list[str]:
    """What our deploy keeps there: of an engine's usual packages not all are in the lab."""
    if kind == "lb":
        return list(Nginx().packages)
    return list(LlamaCppSettings.model_validate(llama_engine()).system_packages)


def _ask(name: str, command: str) -> str:
    done = hosts.ssh(name, command)
    assert done.returncode == 0, f"{name}: {command}: {done.stderr}"
    return done.stdout


def _make(partial: Path) -> None:
    sh([sys.executable, "-m", "venv", partial])
    sh([partial / "bin/python", "-m", "pip", "install", "-q", PACKAGE])
