"""What hosts lack is told before a deploy, all at once, and nothing is changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab import faults, hosts
from tests.lab.conftest import ROOT, Fleet, Run

# The unit has started before its server listens.
LISTENS = "timeout 120 sh -c 'until ss -ltnH | grep -q :29150; do sleep 0.2; done'"


def preflight(fleet: Fleet, *options: str, inventory: Path | str = "inventories/lab.py") -> Run:
    """`pyinfra INVENTORY deploys/preflight.py -y OPTIONS`."""
    return fleet.pyinfra(inventory, "deploys/preflight.py", "-y", *options)


def checks(host: str) -> dict[str, dict[str, Any]]:
    """Each check of a host by its name, from the report."""
    report = json.loads((ROOT / "reports" / "report.json").read_text())
    return {check["name"]: check for check in report["checks"] if check["host"] == host}


def test_a_good_fleet_passes(lab: Fleet):
    run = preflight(lab)
    assert run.status == 0, run.text
    for host in hosts.HOSTS.values():
        if not host.usual:
            continue
        stops = [one for one in checks(host.name).values() if one["outcome"] == "fail"]
        assert not stops
    assert checks("gpu1")["gpus"]["outcome"] == "pass"
    assert checks("gpu1")["sudo"]["outcome"] == "pass"


@pytest.fixture
def damaged(lab: Fleet):
    """Hosts that lack this and that."""
    try:
        faults.no_sudo("gpu2")
        faults.driver_mismatch("gpu3")
        lab.ssh("gpu1", f"sudo systemd-run --unit=taken python3 -m http.server 29150; {LISTENS}")
        yield
    finally:
        faults.clear("gpu3")
        faults.sudo("gpu2")
        hosts.ssh("gpu1", "sudo systemctl stop taken")


def test_all_that_hosts_lack_is_told_at_once(lab: Fleet, damaged: None, inventory):
    # Nobody mends a driver that nobody may install.
    lacking = inventory(
        ('"launch": {', '"driver": {"install": "never"},\n    "launch": {'),
        ("/srv/models/tiny", "/srv/models/none"),
    )
    run = preflight(lab, inventory=lacking)
    assert run.status == 1
    for host, check, seen in (
        ("gpu1", "weights:/srv/models/none", ""),
        ("gpu2", "sudo", ""),
        ("gpu3", "gpu:driver-library-mismatch", ""),
    ):
        found = checks(host)[check]
        assert found["outcome"] == "fail" and found["remedy"] and seen in found["evidence"], found
        assert f"[{host}] stopped, nothing was changed here: preflight: " in run.text
    port = next(one for name, one in checks("gpu1").items() if "29150" in one["evidence"])
    assert port["outcome"] in ("fail", "warn") and port["remedy"], port
    # The balancer lacks nothing.
    assert "[lb1]   stopped" not in run.text
