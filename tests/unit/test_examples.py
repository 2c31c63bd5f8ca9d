"""The example inventories are planned as their first lines say."""

import json
from pathlib import Path

import pytest

from roles.declaration.inventory import read_hosts
from roles.fleet.inventory import load
from roles.topology.__main__ import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Service, shape and number of replicas, per inventory.
PLANNED = {
    "two-4090s": {"chat": ("TP2", 1)},
    "mixed-4090-3090": {"chat": ("layers over 2 GPUs", 1)},
    "two-services": {"chat": ("TP4", 1), "code": ("one GPU", 4)},
    "amd": {"chat": ("TP2", 2)},
    "ollama": {"chat": ("one GPU", 1)},
    "mig": {"chat": ("one GPU", 4)},
    "air-gapped": {"chat": ("TP4", 2)},
    "ci-staging": {"smoke": ("one GPU", 1)},
}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", PLANNED)
def test_an_example_is_planned(name: str):
    plans = load(str(EXAMPLES / f"{name}.py"), secrets=False).plans
    assert {
        plan.service: (str(plan.replicas[0].shape), len(plan.replicas)) for plan in plans
    } == PLANNED[name]
    # An example shows how all of its hardware is used.
    for host in {one.host for plan in plans for one in plan.hosts}:
        planned = [plan.on(host) for plan in plans]
        assert not any(one.spare_gpus for one in planned if one and one.replicas), host


def test_a_model_larger_than_a_host_is_planned_over_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "two-hosts-405b.py"
    file.write_text((EXAMPLES / file.name).read_text())
    (plan,) = load(str(file), secrets=False).plans
    assert [(str(one.shape), one.hosts) for one in plan.replicas] == [
        ("TP8×PP2", ("a100-1", "a100-2"))
    ]
    assert main(["fleet", str(file), "--save"]) == 0
    shown = capsys.readouterr().out
    assert "replicas over 2 hosts" in shown and "part of a100-1/chat-0" in shown
    assert main(["fleet", str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["plan_differences"] == []
    (service,) = answer["services"]
    head, follower = service["hosts"]
    assert service["deployed"] is True
    (replica,) = head["replicas"]
    assert [one["host"] for one in replica["members"]] == ["a100-1", "a100-2"]
    assert follower["replicas"] == []
    (part,) = follower["parts"]
    assert (part["head"], part["rank"], part["gpus"]) == ("a100-1", 1, list(range(8)))


def test_every_example_is_planned_here():
    names = {file.stem for file in EXAMPLES.glob("*.py")}
    assert names == {*PLANNED, "two-hosts-405b"} and len(names) >= 8


def test_every_example_refuses_hosts_whose_ssh_keys_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("STAGING_KNOWN_HOSTS", raising=False)
    for file in EXAMPLES.glob("*.py"):
        for host in read_hosts(str(file)):
            known = host.data.get("ssh_known_hosts_file")
            assert known == f"inventories/known_hosts/{file.stem}", host.name
            assert host.data.get("ssh_strict_host_key_checking") == "yes", host.name
