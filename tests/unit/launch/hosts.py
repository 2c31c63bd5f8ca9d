"""A simulated host for the transaction: systemd that runs units, and real files below a folder."""

import json
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from roles.host import legacy, serving
from roles.host.serving import LaunchError
from roles.launch import leftovers, on_host, transaction

TEMPLATE = "new shared unit\n"
LEGACY_TEMPLATE = "ExecStart=/opt/llm/engines/current/bin/vllm\n"


class Host:
    """Units run until they are stopped; an engine or a replica in `broken` never serves.

    `running` maps a unit that runs to the folder that its process was started in, None for one of
    an older deploy. `log` are the starts and stops in order.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.running: dict[str, str | None] = {}
        self.enabled: set[str] = set()
        self.log: list[str] = []
        self.commands: list[str] = []
        self.broken: set[str] = set()
        # What else replicas of an engine start from.
        self.starts: dict[str, str] = {}
        self.keys: dict[str, tuple[str, ...]] = {}
        # What else the manifest says of a replica, as of a part of one over several hosts.
        self.more: dict[str, dict[str, Any]] = {}
        # What guards the ports while a transaction runs and after it, and what does now.
        self.guards: tuple[str, str] = ("", "")
        self.guarded_by = ""
        for name in ("replicas", "engines", "units", "state", "secrets", "adapters", "cache"):
            (root / name).mkdir(parents=True)
        paths = {
            "STATE": "state",
            "REPLICAS": "replicas",
            "UNITS": "units",
            "ENGINES": "engines",
            "ADAPTERS": "adapters",
            "CACHE": "cache",
            "MANIFEST": "manifest.json",
            "TEMPLATE": "units/llm-engine@.service",
            "FIREWALL_UNIT": "units/llm-firewall.service",
            "UNFINISHED": "state/unfinished",
            "QUARANTINE": "state/quarantine",
            "LEGACY_FOLDER": "replicas",
            "LEGACY_SECRETS": "secrets/engine.env",
            "LEGACY_MARK": "engines/current",
        }
        modules = (legacy, serving, on_host, leftovers, transaction)
        for module in modules:
            for name, path in paths.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, str(root / path))
        replaced = {
            "run": self.run,
            "active": self.active,
            "running_folder": lambda name: self.running.get(name),
            "wait": self.wait,
            "port_is_free": self.port_is_free,
            "drain": lambda replica: self.log.append(f"drain {replica['name']}"),
            "check_files": lambda: None,
            "ensure_user": lambda name, groups: None,
            "apply_firewall": self.guard,
        }
        for module in modules:
            for name, stand_in in replaced.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, stand_in)

    # What the transaction asks of systemd.

    def active(self, name: str) -> bool:
        return name in self.running

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        self.commands.append(" ".join(arguments))
        if arguments[0] == "runuser":
            subprocess.run(arguments[4:], check=True)
        units = [one for one in arguments if one.startswith("llm-engine@") and "*" not in one]
        names = [one.removeprefix("llm-engine@").removesuffix(".service") for one in units]
        verb = arguments[1] if arguments[0] == "systemctl" else ""
        for name in names:
            if verb in ("start", "stop"):
                getattr(self, verb)(name)
            if verb in ("enable", "disable"):
                (self.enabled.add if verb == "enable" else self.enabled.discard)(name)
        if verb == "list-units":
            known = sorted({*self.running, *self.enabled})
            return "\n".join(f"llm-engine@{name}.service loaded" for name in known)
        if verb == "is-enabled":
            return "enabled" if names[0] in self.enabled else "disabled"
        return "inactive" if verb == "is-active" else ""

    def guard(self, files: dict[str, str]) -> None:
        self.guarded_by = files.get("rules", "")

    def start(self, name: str) -> None:
        own, shared = (
            self.root / "units" / unit
            for unit in (f"llm-engine@{name}.service", "llm-engine@.service")
        )
        unit = (own if own.exists() else shared).read_text()
        link = self.root / "replicas" / name / "current"
        # The shared unit of before starts a replica from its two files, whatever folders there are.
        self.running[name] = None if unit == LEGACY_TEMPLATE else str(link.resolve(strict=True))
        self.log.append(f"start {name}")

    def stop(self, name: str) -> None:
        self.running.pop(name, None)
        self.log.append(f"stop {name}")

    def crash(self, name: str) -> None:
        """A replica ends by itself, and systemd starts it again."""
        self.running.pop(name)
        self.start(name)
        self.log.pop()

    def about(self, name: str) -> dict[str, Any]:
        folder = self.running[name]
        if folder is None:
            return legacy.legacy_replica(name) | {"version": "legacy"}
        return json.loads((Path(folder) / "replica.json").read_text())

    def port_is_free(self, port: int) -> bool:
        return all(self.about(name)["port"] != port for name in self.running)

    def wait(self, replica: dict[str, Any], key: str, timeout_s: int) -> None:
        name = replica["name"]
        if name not in self.running or {name, self.about(name)["version"]} & self.broken:
            raise LaunchError(f"{name} does not serve")
        if (folder := self.running[name]) is not None and key:
            self.keys[name] = tuple((Path(folder) / "keys").read_text().split())
            if key not in self.keys[name]:
                raise LaunchError(f"{name} answers 401")
        taken = {str(gpu) for gpu in self.about(name).get("gpus", ())}
        for other in set(self.running) - {name}:
            if taken & {str(gpu) for gpu in self.about(other).get("gpus", ())}:
                raise LaunchError(f"{name}: GPU taken by {other}")

    # What a deploy asks of the host.

    def deploy(
        self,
        engine: str,
        /,
        key: str = "k1",
        together: bool = False,
        left: Collection[str] = (),
        left_out: Collection[str] = (),
        **replicas: Any,
    ) -> None:
        """Apply a plan: name → (port, GPUs), one after the other unless `together`. What runs and
        is not in the plan is taken down, but for those that the rolling update left. Those that are
        `left_out` stay as they are."""
        (self.root / "engines" / engine).mkdir(exist_ok=True)
        (self.root / "engines" / engine / ".complete").touch()
        wanted = {
            name: self._replica(engine, name, port, gpus, key)
            for name, (port, gpus) in replicas.items()
        }
        serves = any(name in self.running for name in self.running)
        wanted = {name: one for name, one in wanted.items() if name not in left_out}
        todo = [name for name, one in wanted.items() if self._digest(name) != one["digest"]]
        task = {
            "run": engine,
            "template": TEMPLATE,
            "replicas": [wanted[name] for name in todo],
            "steps": [[name] for name in todo] if serves and not together else [todo],
            "retire": sorted({*self.running, *self.enabled} - {*wanted, *left, *left_out}),
            "left_out": sorted(left_out),
            "planned": {name: one["digest"] for name, one in wanted.items()},
            "firewall": {"rules": self.guards[1]} if self.guards[1] else {},
            "firewall_during": {"rules": self.guards[0]} if self.guards[0] else {},
            "user": "u",
            "groups": [],
            "keep": 2,
            "start_timeout_s": 1,
            "drain_timeout_s": 1,
        }
        for module in (on_host, leftovers, transaction):
            self.monkeypatch.setattr(module, "TASK", task)
        transaction.main()

    def _digest(self, name: str) -> str | None:
        folder = self.running.get(name)
        return json.loads((Path(folder) / "replica.json").read_text())["digest"] if folder else None

    def _replica(
        self, engine: str, name: str, port: int, gpus: list[int], key: str
    ) -> dict[str, Any]:
        about = {
            "name": name,
            "version": engine,
            "model": "m",
            "port": port,
            "gpus": gpus,
            "devices": [],
            "digest": f"{engine} {port} {gpus} {key}",
            **self.more.get(name, {}),
        }
        texts = self.starts.get(engine, "")
        files = {
            "environment": {"text": texts, "mode": "644", "key_lines": [], "keys": 0},
            "replica.json": {"text": json.dumps(about), "mode": "644", "key_lines": [], "keys": 0},
            "unit.conf": {"text": "[Service]\n", "mode": "644", "key_lines": [], "keys": 0},
            "keys": {"text": "", "mode": "600", "key_lines": ["{}"], "keys": 2},
        }
        return {**about, "busy": None, "key": key, "manifest": about, "files": files}

    def serving(self) -> dict[str, Any]:
        """GPUs of each replica that runs, and the engine that its process is of."""
        return {
            name: (self.about(name)["version"], self.about(name)["gpus"])
            for name in sorted(self.running)
        }

    def left(self) -> set[str]:
        """What lies in the folder of replicas and belongs to none that runs."""
        return {path.name for path in (self.root / "replicas").iterdir()} - set(self.running)

    # A fleet of before the numbered folders.

    def make_legacy(self, **replicas: Any) -> None:
        """Replicas as a deploy of then left them: name → (port, GPUs)."""
        (self.root / "units/llm-engine@.service").write_text(LEGACY_TEMPLATE)
        (self.root / "secrets/engine.env").write_text('VLLM_API_KEY="k0"\n')
        (self.root / "engines/e0").mkdir()
        (self.root / "engines/e0/.complete").touch()
        (self.root / "engines/current").symlink_to("e0")
        for name, (port, gpus) in replicas.items():
            visible = ",".join(map(str, gpus))
            folder = self.root / "replicas"
            (folder / f"{name}.env").write_text(f'# GPUs\nCUDA_VISIBLE_DEVICES="{visible}"\n')
            (folder / f"{name}.yaml").write_text(
                f"# Options\nmodel: /srv/m\nserved-model-name: m\nport: {port}\n"
            )
            self.running[name] = None
            self.enabled.add(name)

    def wipe(self, name: str) -> None:
        """A killed run left a folder half written."""
        partial = self.root / "replicas" / name / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "start").touch()
