"""Services of the tiny model on llama.cpp, over spare hosts that no other test uses."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import gguf, hosts, keys
from .conftest import ROOT, Fleet, Run
from .inventories import llama_engine
from .paths import GGUF_FOLDER

BALANCER = "lb2"
GPUS = {"gpu5": "2x NVIDIA L40S", "gpu6": "4x NVIDIA A10G"}
PINNED = {"gpu5": {"alpha": (0,), "beta": (1,)}, "gpu6": {"alpha": (0, 1), "beta": (2, 3)}}
"""Which GPUs are whose, so that a service stays where it is when the other leaves."""
FAST = ("--data", "validate=false")
"""Options of a deploy that is not proved."""
# All replicas share one machine here.
PROOF: Mapping[str, Any] = {"load_s": 3, "load_max_tokens": 64, "completion_timeout_s": 60}
INVENTORY = """from roles.fleet.inventory import check

gpu_hosts = {gpu_hosts!r}
balancers = {balancers!r}
all = (gpu_hosts + balancers, {{"llm": {settings!r}}})

check(__file__)
"""


@dataclass(frozen=True)
class Replica:
    """A replica that runs: its main process, the folder that it runs in, and its program."""

    pid: str
    folder: str
    program: str


class Services(Fleet):
    """Inventories of services over spare hosts, and their endpoints as their clients see them.

    `folder` holds all that an inventory names: keys and models.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"

    # What is declared.

    def key(self, name: str, number: int = 1) -> Path:
        """The file of a key, made where it is not there."""
        file = self.folder / f"{name}-{number}.key"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(f"sk-{file.stem}-{secrets.token_hex(12)}\n")
        return file

    def service(
        self,
        name: str,
        route: Mapping[str, Any],
        client_key: int = 1,
        engine_key: int = 1,
        **settings: Any,
    ) -> dict[str, Any]:
        """A service of the tiny model under a name of its own, with keys of its own."""
        return {
            "name": name,
            "model": str(self.model(name)),
            "weights": f"{GGUF_FOLDER}/{gguf.TINY}",
            "max_model_len": 4096,
            "route": {
                **route,
                "api_key_file": str(self.key(f"{name}-client", client_key)),
                "engine_key_file": str(self.key(f"{name}-engine", engine_key)),
            },
            **settings,
        }

    def inventory(
        self,
        services: Sequence[Mapping[str, Any]],
        gpus: Mapping[str, Mapping[str, Any] | str] = GPUS,
        engine: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Path:
        """Write the inventory of these services and GPU hosts; its path is always the same.

        A host is its GPUs, or its settings. `engine` are settings of llama.cpp besides the lab's.
        Reports lie beside the inventory: nothing is shared with the fleet of other tests.
        """
        login = {
            "ssh_user": "deploy",
            "ssh_key": str(keys.LOGIN_KEY),
            "ssh_known_hosts_file": str(keys.KNOWN_HOSTS),
            "ssh_strict_host_key_checking": "yes",
        }

        def declared(name: str, own: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
            return name, {**login, "ssh_hostname": hosts.host(name).address, **own}

        own = {name: {"gpus": x} if isinstance(x, str) else dict(x) for name, x in gpus.items()}
        proof = {**PROOF, "report_dir": str(self.reports), **settings.pop("validation", {})}
        text = INVENTORY.format(
            gpu_hosts=[declared(name, {"llm": each}) for name, each in own.items()],
            balancers=[declared(BALANCER, {})],
            settings={
                "services": [dict(service) for service in services],
                "engines": {"llama_cpp": llama_engine() | dict(engine or {})},
                "launch": {"start_timeout_s": 120},
                "validation": proof,
                "balancer": {
                    "completion_timeout_s": 60,
                    "api_key_file": str(self.key("balancer")),
                    **settings.pop("balancer", {}),
                },
                **settings,
            },
        )
        file = self.folder / "services.py"
        file.write_text(text)
        return file

    def model(self, name: str) -> Path:
        """The file of the tiny model under a name of its own, as inventories take it."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            command = ["-m", "roles.models", "read", "--id", f"lab/{name}"]
            source = gguf.gguf() / gguf.TINY
            done = subprocess.run(
                [sys.executable, *command, source], cwd=ROOT, check=True, stdout=subprocess.PIPE
            )
            file.write_bytes(done.stdout)
        return file

    # What is there.

    def apply(self, inventory: Path, *options: str) -> Run:
        """A deploy of one of these inventories that must succeed."""
        run = self.deploy(*options, inventory=inventory)
        assert run.status == 0, run.text
        return run

    def completion(self, service: Mapping[str, Any], tokens: int = 4) -> int:
        """The status of a completion through the balancer, by the service's key."""
        route = service["route"]
        port, prefix = route.get("port", 443), route.get("path_prefix", "")
        url = f"https://{hosts.host(BALANCER).address}:{port}{prefix}"
        key = Path(route["api_key_file"])
        return self.status(None, url, f"lab/{service['name']}", key, tokens)

    def status(self, source: str | None, url: str, model: str, key: Path, tokens: int = 4) -> int:
        """The status of a completion that a host asks for, or the control side; 0 for no answer."""
        message = {"role": "user", "content": "hi"}
        body = {"model": model, "max_tokens": tokens, "messages": [message]}
        command = [*CURL, f"{url}/v1/chat/completions"]
        # The key goes by the standard input, as everywhere.
        done = hosts.run_inside(
            command if source is None else [*hosts.ssh_command(source), shlex.join(command)],
            input=f'header = "Authorization: Bearer {key.read_text().strip()}"\n'
            f"data = {json.dumps(json.dumps(body))}\n",
            capture_output=True,
            text=True,
        )
        answer = int(done.stdout or 0)
        if not answer:
            print(f"no answer of {url}: curl ended with {done.returncode}: {done.stderr.strip()}")
        return answer

    def upstreams(self) -> dict[str, dict[str, bool]]:
        """Each service's replicas on the balancer by HOST/NAME, and whether they get requests."""
        text = self.ssh(
            BALANCER, "cat /etc/nginx/llm/upstreams.conf /etc/haproxy/llm/upstreams.cfg;:"
        )
        parts = re.split(r"^(?:upstream|backend) llm_(\S+).*$", text, flags=re.MULTILINE)
        servers = re.compile(r"^ +server (.*?);?  # ([^\s:]+)", re.MULTILINE)
        return {
            name: {
                id: not {"down", "disabled"} & {*rest.split()} for rest, id in servers.findall(body)
            }
            for name, body in zip(parts[1::2], parts[2::2], strict=True)
        }

    def replicas(self, host: str) -> dict[str, Replica]:
        """The replicas that run on a host, by name."""
        lines = self.ssh(
            host,
            "for u in $(systemctl list-units --plain --no-legend --state=active 'llm-engine@*' "
            "| awk '{print $1}'); do p=$(systemctl show -P MainPID $u); u=${u#llm-engine@}; "
            "echo ${u%.service} $p $(sudo readlink /proc/$p/cwd /proc/$p/exe); done",
        )
        found = [line.split() for line in lines.splitlines()]
        # One that ended between two looks has no folder and no program.
        return {words[0]: Replica(*words[1:]) for words in found if len(words) == 4}

    def pids(self, service: str, *names: str) -> dict[str, str]:
        """The main process of each replica of a service by HOST/NAME, on these hosts."""
        return {
            f"{host}/{name}": replica.pid
            for host in names or GPUS
            for name, replica in self.replicas(host).items()
            if name.rpartition("-")[0] == service
        }


CURL = (
    *("curl", "-sSk", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "-K", "-"),
    # As all clients of such an API send it; SGLang takes nothing else.
    *("-H", "Content-Type: application/json"),
)
