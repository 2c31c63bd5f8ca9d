"""The key between balancers and engines: made once by a deploy, apart from the clients'."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roles.balancer import make_key
from roles.fleet.checked import RefusedError
from roles.stages.keys import engine_key
from tests.unit.stages.fleet import ServingFleet
from tests.unit.stages.simulation import SERVICE, Simulation

CLIENTS = "k" * 32


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """A fleet whose inventory names no key of its engines."""
    return Simulation(tmp_path, monkeypatch, balancer={"api_key_file": str(tmp_path / "api.key")})


def seen_to(simulation: Simulation, make: bool = True) -> None:
    simulation.prepare(simulation.begin(), lambda run: engine_key(run, make))


def made_key(folder: Path) -> Path:
    return folder / "site/engines.key"


def test_a_deploy_makes_it_once_for_its_owner_alone(
    simulation: Simulation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seen_to(simulation)
    file = made_key(tmp_path)
    key = file.read_text().strip()
    assert len(key) == 64 and key != CLIENTS
    assert [oct(path.stat().st_mode & 0o777) for path in (file, file.parent)] == ["0o600", "0o700"]
    output = capsys.readouterr().err
    assert output.count(str(file)) == 1 and key not in output
    assert sorted(one.name for one in file.parent.iterdir()) == [".gitignore", "engines.key"]
    seen_to(simulation)
    assert file.read_text().strip() == key and capsys.readouterr().err == ""


def test_whoever_makes_it_at_the_same_time_gets_the_same(tmp_path: Path):
    file = made_key(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: (make_key(file), file.read_text()), range(16)))
    assert [one for one, _ in made].count(True) == 1
    assert len({key for _, key in made}) == 1


def test_a_key_that_is_there_may_lie_beside_other_files(simulation: Simulation, tmp_path: Path):
    file = made_key(tmp_path)
    file.parent.mkdir()
    file.parent.chmod(0o755)
    file.touch(0o600)
    file.write_text("a-key-of-the-operators-own\n")
    seen_to(simulation)
    assert file.read_text() == "a-key-of-the-operators-own\n"


def test_a_folder_that_others_may_use_is_refused(simulation: Simulation, tmp_path: Path):
    made_key(tmp_path).parent.mkdir()
    made_key(tmp_path).parent.chmod(0o755)
    with pytest.raises(RefusedError, match=r"balancer\.engine_key_file: .*chmod 700 "):
        seen_to(simulation)
    assert not made_key(tmp_path).exists()


def test_a_proof_of_what_others_deployed_makes_none(simulation: Simulation, tmp_path: Path):
    with pytest.raises(RefusedError, match=r"site/engines\.key is not there; copy it from"):
        seen_to(simulation, make=False)
    assert not made_key(tmp_path).exists()


# Replicas of the older one take one key, so that the service is interrupted, and told to be.
@pytest.mark.parametrize(("requirement", "message"), [("vllm==0.33.0", 0), ("vllm==0.31.0", 1)])
def test_a_fleet_that_runs_with_the_clients_key_changes_it_by_a_rolling_update(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    requirement: str,
    message: int,
):
    vllm: dict[str, Any] = {"vllm": {"requirement": requirement, "allow_unhashed": True}}
    fleet = ServingFleet(tmp_path, monkeypatch, services=[SERVICE], engines=vllm)
    fleet.planned("gpu1", "gpu2", "gpu3")
    for name, state in fleet.states.items():
        digest = fleet.run.launch(name).replicas[0].key_digest
        units = {one: replace(unit, key_digest=digest) for one, unit in state.units.items()}
        fleet.states[name] = replace(state, units=units)
    fleet.settings["balancer"] = {"api_key_file": str(tmp_path / "api.key")}
    seen_to(fleet)
    assert fleet.update() == set()
    key = made_key(tmp_path).read_text().strip()
    assert sorted(host for host, _ in fleet.tasks) == ["gpu1", "gpu2", "gpu3"]
    assert capsys.readouterr().err.count("s is interrupted") == message
    assert {one["key"] for _, task in fleet.tasks for one in task["replicas"]} == {key}
    commands = [command for machine in fleet.machines.values() for command in machine.commands]
    assert commands and not any(key in command for command in commands)
