"""How a host moves from the old to the new, over a simulated systemd: nothing is ever lost."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from roles.host import serving
from roles.host.serving import LaunchError
from roles.launch import apply


class Host:
    """A host's systemd and files: units run until stopped; `broken` settings never serve."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.units, self.log = root, {}, []
        self.broken: set[str] = set()
        self.uuids: dict[int, str] = {}
        for name in ("etc/llm/replicas", "etc/llm/secrets", "engines", "units", "state/applied"):
            (root / name).mkdir(parents=True)
        monkeypatch.setattr(apply, "STATE", str(root / "state"))
        monkeypatch.setattr(apply, "ENGINES", str(root / "engines"))
        monkeypatch.setattr(apply, "REPLICAS", str(root / "etc/llm/replicas"))
        monkeypatch.setattr(apply, "UNITS", str(root / "units"))
        monkeypatch.setattr(apply, "FIREWALL", (str(root / "nft"), str(root / "fw.service")))
        for module in (apply, serving):
            monkeypatch.setattr(module, "run", self.run)
            monkeypatch.setattr(module, "active", lambda name: self.units.get(name) is True)
        monkeypatch.setattr(apply, "wait", self.wait)
        monkeypatch.setattr(apply, "port_is_free", self.port_is_free)
        monkeypatch.setattr(apply, "ensure_user", lambda name: None)
        monkeypatch.setattr(apply.shutil, "chown", lambda *arguments: None)
        monkeypatch.setattr(apply, "old_settings", lambda name: (0, "m", "k"))
        self.monkeypatch = monkeypatch

    def run(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        if arguments[0] == "systemctl" and arguments[1] in ("start", "stop"):
            for unit in arguments[2:]:
                name = unit.removeprefix("llm-engine@").removesuffix(".service")
                if "@" in unit:
                    self.units[name] = arguments[1] == "start"
                    self.log.append(f"{arguments[1]} {name}")
        if arguments[:2] == ("systemctl", "list-units"):
            return "\n".join(f"llm-engine@{name}.service loaded" for name in self.units)
        return "inactive" if "is-active" in arguments else ""

    def settings(self, name: str) -> dict[str, Any]:
        return json.loads((self.root / f"etc/llm/replicas/{name}.yaml").read_text().split("\n")[1])

    def port_is_free(self, port: int) -> bool:
        return all(
            self.settings(name)["port"] != port
            for name, on in self.units.items()
            if on and (self.root / f"etc/llm/replicas/{name}.yaml").exists()
        )

    def wait(self, name: str, port: int, model: str, key: str) -> None:
        engine = (self.root / "engines/current").readlink().name
        if engine in self.broken or name in self.broken or not self.units[name]:
            raise LaunchError(f"{name} does not serve")
        gpus = set(self.settings(name)["gpus"])
        for other, on in self.units.items():
            if on and other != name and gpus & set(self.settings(other)["gpus"]):
                raise LaunchError(f"{name}: GPU taken by {other}")

    def deploy(self, engine: str, **replicas: tuple[int, list[int]]) -> None:
        """Apply a plan: name → (port, GPUs)."""
        (self.root / "engines" / engine).mkdir(exist_ok=True)
        (self.root / "engines" / engine / ".complete").touch()
        files, planned = [], []
        for name, (port, gpus) in replicas.items():
            text = json.dumps({"port": port, "gpus": gpus, "engine": engine})
            visible = ",".join(self.uuids.get(gpu, str(gpu)) for gpu in gpus)
            config = self.file(f"{name}.yaml", f"port: {port}\n{text}\n")
            files += [self.file(f"{name}.env", f'CUDA_VISIBLE_DEVICES="{visible}"\n'), config]
            replica = {"name": name, "port": port, "gpus": gpus, "digest": f"{engine} {text}"}
            devices = [self.uuids[gpu] for gpu in gpus if gpu in self.uuids]
            planned.append({**replica, "devices": devices})
        task = {
            "files": files,
            "replicas": planned,
            "names": list(replicas),
            "engine": engine,
            "keep": 2,
            "firewall": False,
            "user": "u",
            "start_timeout_s": 1,
            "model": "m",
            "key": "k",
        }
        self.monkeypatch.setattr(apply, "TASK", task)
        apply.main()

    def file(self, name: str, text: str) -> dict[str, str]:
        content = base64.b64encode(text.encode()).decode()
        path = str(self.root / "etc/llm/replicas" / name)
        return {"path": path, "content": content, "state": "644 root root x"}

    def serving(self) -> dict[str, list[int]]:
        return {name: self.settings(name)["gpus"] for name, on in sorted(self.units.items()) if on}

    @property
    def engine(self) -> str:
        return (self.root / "engines/current").readlink().name


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


TWO = {"q0": (8001, [0]), "q1": (8002, [1])}


def test_a_fresh_host_starts_all_together(host: Host):
    host.deploy("e1", **TWO)
    assert host.log == ["start q0", "start q1"]
    assert host.serving() == {"q0": [0], "q1": [1]}


def test_an_upgrade_goes_one_after_the_other(host: Host):
    host.deploy("e1", **TWO)
    host.log.clear()
    host.deploy("e2", **TWO)
    assert host.log == ["stop q0", "start q0", "stop q1", "start q1"]
    assert host.engine == "e2"


def test_an_engine_that_does_not_serve_is_put_back(host: Host):
    host.deploy("e1", **TWO)
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="q0 does not serve\nThe old settings are back, and serve"):
        host.deploy("e2", **TWO)
    assert host.engine == "e1"
    assert host.serving() == {"q0": [0], "q1": [1]}
    assert "stop q1" not in host.log


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {f"q{n}": (8001 + n, [n]) for n in range(4)},
            {"q0": (8001, [0, 1]), "q1": (8002, [2, 3])},
        ),
        ({"q0": (8001, [0, 1])}, TWO),
        (TWO, {"q0": (8002, [0]), "q1": (8003, [1])}),
        (TWO, {"q0": (8002, [0]), "q1": (8001, [1])}),
        (TWO, {"q0": (8001, [1]), "q1": (8002, [0])}),
        (TWO, {"new0": (8001, [0]), "new1": (8002, [1])}),
    ],
)
def test_changed_shapes_ports_and_names(host: Host, old: dict, new: dict):
    host.deploy("e1", **old)
    host.deploy("e1", **new)
    assert host.serving() == {name: gpus for name, (_, gpus) in new.items()}
    left = {path.stem for path in (host.root / "etc/llm/replicas").iterdir()}
    assert left == set(new)


def test_gpus_that_go_by_their_uuids_are_made_room_for(host: Host):
    host.deploy("e1", **TWO)
    # A third GPU does not answer: the others are named, and one replica takes both.
    host.uuids = {0: "GPU-a", 1: "GPU-b"}
    host.deploy("e1", q0=(8001, [0, 1]))
    host.deploy("e1", **TWO)
    assert host.serving() == {"q0": [0], "q1": [1]}


def test_a_failed_change_of_shape_brings_the_old_shape_back(host: Host):
    host.deploy("e1", **{f"q{n}": (8001 + n, [n]) for n in range(4)})
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve"):
        host.deploy("e2", q0=(8001, [0, 1]), q1=(8002, [2, 3]))
    assert host.serving() == {f"q{n}": [n] for n in range(4)}
    assert host.engine == "e1"


def test_a_fresh_host_keeps_the_replicas_that_serve(host: Host):
    host.broken = {"q1"}
    with pytest.raises(SystemExit, match=r"these serve: q0\. Mend it"):
        host.deploy("e1", **TWO)
    assert host.serving() == {"q0": [0]}


@pytest.mark.parametrize("when", ["install", "make_room", "wait", "finish"])
def test_a_run_that_is_killed_is_made_good_by_the_next(host: Host, when: str):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as killed:
        killed.setattr(apply, when, lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", q0=(8001, [0, 1]))
    host.deploy("e2", q0=(8001, [0, 1]))
    assert (host.engine, host.serving()) == ("e2", {"q0": [0, 1]})


def test_after_a_killed_run_a_failure_still_leads_back_to_what_served(host: Host):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as killed:
        killed.setattr(apply, "wait", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", **TWO)
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve"):
        host.deploy("e2", **TWO)
    assert (host.engine, host.serving()) == ("e1", {"q0": [0], "q1": [1]})


def test_a_run_that_was_done_but_for_its_last_word_is_not_gone_back_behind(host: Host):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as killed:
        killed.setattr(apply, "finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", **TWO)
    host.broken = {"e3"}
    with pytest.raises(SystemExit, match="The old settings are back"):
        host.deploy("e3", **TWO)
    assert host.engine == "e2"


def test_a_full_disk_at_the_first_file_changes_nothing(host: Host):
    host.deploy("e1", **TWO)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with host.monkeypatch.context() as disk:
        disk.setattr(apply, "install", full)
        with pytest.raises(
            SystemExit, match=r"no space is left \((.|\n)*make room(.|\n)*The old settings are back"
        ):
            host.deploy("e2", **TWO, q2=(8003, [2]))
    assert host.serving() == {"q0": [0], "q1": [1]}
    assert host.engine == "e1"


def test_only_the_newest_engines_stay(host: Host):
    for number in range(4):
        host.deploy(f"e{number}", **TWO)
    kept = {path.name for path in (host.root / "engines").iterdir()} - {"current"}
    assert len(kept) == 2
    assert "e3" in kept


def test_one_deploy_at_a_time(host: Host):
    host.deploy("e1", **TWO)
    with apply.alone(), pytest.raises(SystemExit, match="another deploy is still at work"):
        host.deploy("e2", **TWO)
    assert host.engine == "e1"
