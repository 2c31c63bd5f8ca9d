"""A fleet of commit eaed66b is taken over in one rolling update, which loses no request."""

from tests.lab import old_fleet
from tests.lab.conftest import ROOT, Fleet
from tests.lab.take_over import DEPLOY, HOST, REPLICAS, TakeOver, running_from

UNITS = [f"llm-engine@{name}.service" for name in old_fleet.REPLICAS]
SHARED_UNIT = "/etc/systemd/system/llm-engine@.service"
OLD_FILES = (
    f"{REPLICAS}/*.env {REPLICAS}/*.yaml /etc/llm/secrets/engine.env /opt/llm/engines/current "
    "/etc/systemd/system/llm-engine@?*.service"
)


def test_no_request_is_lost(taken_over: TakeOver):
    assert taken_over.run.status == 0, taken_over.run.text
    # Those that were asked while nobody was up, as one replica moved and the other was killed, do
    # not count.
    assert set(taken_over.statuses) == {200}, taken_over.statuses


def test_one_that_crashes_before_its_turn_starts_from_the_old_files(taken_over: TakeOver):
    name = taken_over.killed.removeprefix("llm-engine@").removesuffix(".service")
    assert taken_over.folder == f"/var/lib/llm/{name}"
    assert "/opt/llm/engines/current/bin/" in taken_over.command
    assert taken_over.command.endswith(f"serve --config {REPLICAS}/{name}.yaml")


def test_all_is_as_today_afterwards_and_a_second_deploy_changes_nothing(
    lab: Fleet, taken_over: TakeOver
):
    before = lab.engines(HOST)
    assert sorted(before) == UNITS
    folders = {unit: running_from(lab, unit) for unit in UNITS}
    names = dict(zip(UNITS, old_fleet.REPLICAS, strict=True))
    for unit, folder in folders.items():
        parent, _, number = folder.rpartition("/")
        assert parent == f"{REPLICAS}/{names[unit]}" and number.isdigit(), folders
    assert lab.ssh(HOST, f"sudo sh -c 'ls -d {OLD_FILES}' 2>&- || true") == ""
    template = ROOT / "templates/systemd/llm-engine@.service.j2"
    assert lab.ssh(HOST, f"cat {SHARED_UNIT}") == template.read_text()
    served = [address for address, is_in in lab.upstream().items() if is_in]
    assert served == ["10.99.0.11:8001", "10.99.0.11:8002"]

    again = lab.deploy(*DEPLOY)
    assert (again.status, again.changes) == (0, 0), again.text
    assert lab.engines(HOST) == before
