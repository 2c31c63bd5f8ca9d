"""An operator's own repository, and the pages of docs/ that he follows in it, word by word."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.unit.docs.pages import Block, blocks, heading_above

from . import gguf, hosts, keys
from .conftest import ROOT, RUN_TIMEOUT_S, Fleet, Run
from .inventories import gguf_model, llama_engine
from .paths import GGUF_FOLDER
from .services import INVENTORY

GPU_HOSTS = {"gpu-1": "gpu7", "gpu-2": "gpu8"}
BALANCERS = {"lb-1": "lb4", "lb-2": "lb5"}
LAB_NAMES = GPU_HOSTS | BALANCERS
"""The lab's hosts by the names that the pages use."""
PAGES = (
    *("upgrading", "rotating-keys", "removing"),
    *("stopping-and-starting", "reading-logs", "failed-rolling-update"),
)
MODEL = "Qwen/Qwen2.5-14B-Instruct"


def sections() -> dict[tuple[str, str], list[Block]]:
    """The commands of each page by its name and the heading above them."""
    found: dict[tuple[str, str], list[Block]] = {}
    for block in blocks("sh"):
        if (page := block.page.stem) in PAGES:
            found.setdefault((page, heading_above(block)), []).append(block)
    return found


class Operator(Fleet):
    """Two GPU hosts behind two balancers, with a service on the endpoint and one at /code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, dict[str, Any]] = {
            "qwen2.5-14b": {},
            "code": {"first_port": 8101, "route": {"path_prefix": "/code"}},
        }
        self.hosts: dict[str, dict[str, Any]] = {name: {} for name in GPU_HOSTS}
        self.balancers = list(BALANCERS)
        self.engine: dict[str, Any] = {}
        self.balancer: dict[str, Any] = {}
        for name in ("roles", "deploys", "config.py", "templates"):
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        (folder / "inventories/known_hosts").mkdir(parents=True)
        (folder / "secrets").mkdir()
        self.write()

    def write(self) -> None:
        """Write the inventory as it is declared now."""

        def login(name: str) -> dict[str, Any]:
            return {
                "ssh_hostname": hosts.host(LAB_NAMES[name]).address,
                "ssh_user": "deploy",
                "ssh_key": str(keys.LOGIN_KEY),
                "ssh_known_hosts_file": "inventories/known_hosts/prod",
                "ssh_strict_host_key_checking": "yes",
            }

        usual = {"gpus": "2x NVIDIA L40S"}
        text = INVENTORY.format(
            gpu_hosts=[
                (name, {**login(name), "llm": usual | own}) for name, own in self.hosts.items()
            ],
            balancers=[(name, login(name)) for name in self.balancers],
            settings={
                "services": [self._service(name, own) for name, own in self.services.items()],
                "engines": {"llama_cpp": llama_engine() | self.engine},
                "launch": {"start_timeout_s": 120},
                # All replicas share one machine here.
                "validation": {"load_s": 2, "load_max_tokens": 64, "completion_timeout_s": 60},
                "balancer": {
                    "completion_timeout_s": 60,
                    "api_key_file": "secrets/prod-api.key",
                    **self.balancer,
                },
            },
        )
        (self.folder / "inventories/prod.py").write_text(text)

    def _service(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": name,
            "model": str(gguf_model(self.folder, MODEL)),
            "weights": f"{GGUF_FOLDER}/{gguf.TINY}",
            "max_model_len": 4096,
            **own,
        }

    def follow(self, page: str, heading: str, *only: str, status: int = 0) -> str:
        """Run the commands under a heading in their order, as they are written; what they printed.

        With `only`, those blocks alone that have one of these words in them. The last command must
        end with this status, those before it with 0.
        """
        texts = [block.text for block in sections()[page, heading]]
        chosen = [text for text in texts if not only or any(word in text for word in only)]
        assert chosen, (page, heading, only)
        runs = [self.shell(text) for text in chosen]
        statuses = [run.status for run in runs]
        assert statuses == [*[0] * (len(runs) - 1), status], [run.text for run in runs]
        return "".join(run.text for run in runs)

    def shell(self, text: str) -> Run:
        """Run a piece of shell in the repository, with the names of the lab's hosts' addresses."""
        text = text.replace("192.0.2.11", hosts.host(LAB_NAMES["gpu-1"]).address)
        programs = Path(sys.executable).parent
        done = hosts.run_inside(
            ["bash", "-euc", text],
            cwd=self.folder,
            # Where a command asks, the operator agrees.
            input="y\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_S,
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        )
        return Run(done.returncode, done.stdout)

    def status(self, balancer: str = "lb-1", prefix: str = "", key: str | None = None) -> int:
        """The status of a completion that a client asks a balancer for; 0 for no answer."""
        url = f"https://{hosts.host(LAB_NAMES[balancer]).address}{prefix}"
        return self.ask(key or self.key(), url)[0]

    def key(self, name: str = "prod-api.key") -> str:
        """What stands in a file of keys now."""
        return (self.folder / "secrets" / name).read_text().strip()

    def running(self, name: str) -> dict[str, str]:
        """Main process of each replica of a host, by the replica's name."""
        found = self.engines(LAB_NAMES[name])
        return {unit[len("llm-engine@") : -len(".service")]: pid for unit, pid in found.items()}
