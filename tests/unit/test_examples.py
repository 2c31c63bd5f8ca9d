"""The example inventories are planned as their first lines say."""

from pathlib import Path

import pytest

from roles.declaration import DeclarationError
from roles.fleet.inventory import load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Service, shape and number of replicas, per inventory.
PLANNED = {
    "two-4090s": {"chat": ("TP2", 1)},
    "mixed-4090-3090": {"chat": ("layers over 2 GPUs", 1)},
    "two-services": {"chat": ("PP3", 2), "code": ("one GPU", 2)},
    "amd": {"chat": ("TP2", 2)},
    "mig": {"chat": ("one GPU", 4)},
    "air-gapped": {"chat": ("PP2", 4)},
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


def test_a_model_larger_than_a_host_is_told_its_plan_over_two():
    with pytest.raises(DeclarationError, match=r"a100-1, a100-2 together: TP8×PP2"):
        load(str(EXAMPLES / "two-hosts-405b.py"), secrets=False)


def test_every_example_is_planned_here():
    names = {file.stem for file in EXAMPLES.glob("*.py")}
    assert names == {*PLANNED, "two-hosts-405b"} and len(names) >= 8
