"""How each host of a run ended, by what the run itself saw of it."""

from pathlib import Path
from typing import Any

import pytest

from roles.checks import Check, HostVerdict
from roles.launch.transaction import RESTORED
from roles.stages.ending import RunEnd, verdicts
from roles.watchdog import Quarantine
from tests.unit.stages.fleet import TRANSACTION, ServingFleet

NOBODY: Any = None


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServingFleet:
    return ServingFleet(tmp_path, monkeypatch)


def ended(fleet: ServingFleet) -> dict[str, HostVerdict]:
    found = verdicts(fleet.run, RunEnd(screen=NOBODY, progress=NOBODY))
    return {one.host: one for one in found}


def screen_text(fleet: ServingFleet) -> dict[str, tuple[str, int, int]]:
    """Outcome, replicas that serve and those that were not seen, by host."""
    return {name: (one.outcome, one.serving, one.unseen) for name, one in ended(fleet).items()}


def fails(command: str) -> bool:
    return command.startswith(TRANSACTION)


def test_hosts_that_moved_serve_and_changed(fleet: ServingFleet):
    fleet.update()
    gpu_hosts = dict.fromkeys(("gpu1", "gpu2", "gpu3"), ("changed", 2, 0))
    assert screen_text(fleet) == {**gpu_hosts, "lb1": ("changed", 0, 0)}
    assert all(one.next_step == "" for one in ended(fleet).values())


def test_nothing_to_do_changes_nothing(fleet: ServingFleet):
    fleet.planned("gpu1", "gpu2", "gpu3")
    fleet.update()
    gpu_hosts = dict.fromkeys(("gpu1", "gpu2", "gpu3"), ("unchanged", 2, 0))
    assert screen_text(fleet) == {**gpu_hosts, "lb1": ("unchanged", 0, 0)}


@pytest.mark.parametrize(
    ("last_words", "serving", "unseen"), [([], 0, 2), ([f"{RESTORED}s-0"], 2, 0)]
)
def test_a_host_that_fails_serves_only_where_it_says_so(
    fleet: ServingFleet, last_words: list[str], serving: int, unseen: int
):
    fleet.machines["gpu2"].fails = fails
    fleet.machines["gpu2"].last_words = last_words
    fleet.update()
    assert screen_text(fleet) == {
        "gpu1": ("changed", 2, 0),
        "gpu2": ("FAILED", serving, unseen),
        "gpu3": ("not updated", 2, 0),
        "lb1": ("changed", 0, 0),
    }
    assert "-u llm-engine@s-0.service" in ended(fleet)["gpu2"].next_step
    assert ended(fleet)["gpu3"].next_step.startswith("fix gpu2 first")


def test_a_host_without_its_quarantined_replica_says_where_to_look(fleet: ServingFleet):
    fleet.planned("gpu1", "gpu2", "gpu3")
    fleet.update()
    fleet.run.quarantines["gpu2"] = (Quarantine("s-1", "Xid 79"),)
    assert ended(fleet)["gpu2"].next_step == "s-1 left out: see deploys/quarantine.py"
    assert ended(fleet)["gpu1"].next_step == ""


def test_hosts_outside_the_run_are_named_and_not_seen(fleet: ServingFleet):
    fleet.update("gpu1", "lb1")
    assert screen_text(fleet)["gpu1"] == ("changed", 2, 0)
    assert screen_text(fleet)["gpu2"] == ("left out by --limit", 0, 2)


def test_what_another_host_stopped_is_mended_there(fleet: ServingFleet):
    fleet.machines["gpu1"].fails = fails
    fleet.update()
    gpu2, lb1 = "gpu2", "lb1"
    # As validation does where nothing serves.
    remedy = "See its log: sudo journalctl -u llm-engine@s-0.service"
    fleet.run.report.record([Check("completion", "s-0", "fail", "refused", remedy, gpu2)])
    fleet.run.report.record([Check("completion", "https://lb1", "fail", "502", "See", lb1)])
    for host in fleet.run.state.inventory:
        if host.name in (gpu2, lb1):
            fleet.run.state.failed_hosts.add(host)
    found = ended(fleet)
    assert found[gpu2].outcome == found[lb1].outcome == "FAILED"
    assert found[gpu2].next_step == "fix gpu1 first; run again"
    assert found["gpu3"].next_step == "fix gpu1 first; run again"
    # What the balancer lacks is what nobody answers from.
    assert found[lb1].next_step == "fix gpu1, gpu2 first; run again"


def test_a_host_where_another_deploy_is_at_work_is_waited_for(fleet: ServingFleet):
    busy = "another deploy is still at work on this host; wait for it and run again"
    fleet.machines["gpu2"].fails = fails
    fleet.machines["gpu2"].last_errors = [f"nothing was changed: {busy}"]
    fleet.update()
    assert ended(fleet)["gpu2"].next_step == busy
