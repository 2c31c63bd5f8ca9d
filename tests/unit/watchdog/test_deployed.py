"""The watchdog's settings, and what is changed on a host."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.declaration import Service
from roles.host import paths
from roles.host.question import parse_answers
from roles.watchdog import HostWatch, ServiceWatch, WatchdogSettings, parse_state
from roles.watchdog.quarantine import SCRIPT, Quarantine, left_out, lift_script
from roles.watchdog.render import FILES, UNIT, unit, watchdog_files
from roles.watchdog.scripts import change_script
from roles.watchdog.state import WatchdogState

WATCH = HostWatch("gpu1", "0.0.0.0", WatchdogSettings(), {"q": ServiceWatch()}, 1800)
PLANNED = watchdog_files(WATCH)
UP = WatchdogState({file.path: file.state for file in PLANNED}, up=True, user=True)
METRICS = WatchdogSettings().metrics_dir


def test_a_host_that_is_as_planned_is_left_alone():
    assert {file.path for file in PLANNED} == set(FILES)
    assert change_script(PLANNED, UP, METRICS) == ""
    assert change_script([], WatchdogState(), METRICS) == ""


@pytest.mark.parametrize(
    "state",
    [
        WatchdogState(),
        WatchdogState(UP.files, up=False, user=True),
        WatchdogState({**UP.files, UNIT: "644 root root 0"}, up=True, user=True),
        WatchdogState(UP.files, up=True, user=False),
    ],
    ids=["nothing", "down", "another unit", "no user"],
)
def test_what_differs_is_repaired_and_it_is_started_anew(state: WatchdogState):
    script = change_script(PLANNED, state, METRICS)
    assert f"systemctl restart {paths.WATCHDOG_SOCKET_UNIT} {paths.WATCHDOG_UNIT}" in script
    assert (f"mv -f {UNIT}.pyinfra-new" in script) is (state.files.get(UNIT) != UP.files[UNIT])


def test_a_host_without_replicas_keeps_nothing_but_what_a_person_must_read():
    script = change_script([], UP, METRICS)
    assert all(path in script for path in FILES)
    assert "userdel llm-watchdog" in script
    assert paths.QUARANTINE not in script and paths.EVIDENCE not in script


def answers(**more: str) -> Any:
    sections = {
        "files": "644 root root 0f0f /etc/llm/watchdog.json",
        "units": "active\nactive\nenabled\nenabled",
        "user": "997",
        "quarantined": "",
        "end": "",
        **more,
    }
    lines = [line for name, text in sections.items() for line in (f"@@ {name}", text)]
    return parse_answers(["@@@ watchdog", *lines])["watchdog"]


def test_a_host_says_how_its_watchdog_is():
    files = {"/etc/llm/watchdog.json": "644 root root 0f0f"}
    assert parse_state(answers()) == WatchdogState(files, up=True, user=True)
    assert not parse_state(answers(units="active\nfailed\nenabled\nenabled")).up
    assert not parse_state(answers(units="inactive\ninactive")).up
    assert not parse_state(answers(user="")).user


@pytest.mark.parametrize("missing", ["files", "units", "user", "quarantined", "end"])
def test_an_answer_that_is_cut_is_none(missing: str):
    found = {name: text for name, text in answers().items() if name != missing}
    with pytest.raises(ValueError, match="cut short"):
        parse_state(found)


QUARANTINE = {"reason": "no step", "date": "2026-11-30T12:00:00Z", "gpus": [3], "gpu_names": []}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"q-0.json {json.dumps(QUARANTINE)}",
            "q-0 is quarantined since 2026-11-30T12:00:00Z (GPU 3): no step"),
        (f"q-0.json {json.dumps(QUARANTINE | {'gpu_names': ['3, H200, GPU-7']})}",
            "q-0 is quarantined since 2026-11-30T12:00:00Z (GPU 3, H200, GPU-7): no step"),
        # A damaged file stops its replica all the same.
        ("q-0.json {", "q-0 is quarantined: its file cannot be read"),
        ("q-0.json", "q-0 is quarantined: its file cannot be read"),
        ("q-0.json []", "q-0 is quarantined: its file cannot be read"),
    ],
)  # fmt: skip
def test_quarantines_are_read(line: str, words: str):
    assert [str(one) for one in parse_state(answers(quarantined=line)).quarantines] == [words]


def test_a_quarantine_of_no_replica_is_a_damaged_answer():
    with pytest.raises(ValueError, match="not a quarantined replica"):
        parse_state(answers(quarantined="../x.json {}"))


def test_what_the_helper_writes_is_what_a_host_says(tmp_path: Path):
    (tmp_path / "q-0.json").write_text(json.dumps(QUARANTINE, indent=1) + "\n")
    (tmp_path / "q-1.json").write_text("{")
    script = SCRIPT.replace(paths.QUARANTINE, str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    found = parse_state(answers(quarantined=done.stdout)).quarantines
    assert [one.replica for one in found] == ["q-0", "q-1"]
    assert (found[0].reason, found[0].gpus, found[0].indexes) == ("no step", ("3",), (3,))
    assert parse_state(answers(quarantined="")).quarantines == ()


@pytest.mark.parametrize(
    ("quarantine", "out"),
    [
        (Quarantine("q-1", "r", indexes=(2, 3)), {"q-1"}),
        # An earlier plan's, whose GPUs others have now.
        (Quarantine("old-0", "r", indexes=(1, 2)), {"q-0", "q-1"}),
        # Its file is damaged.
        (Quarantine("q-0", "r"), {"q-0"}),
        (Quarantine("old-0", "r", indexes=(7,)), set()),
    ],
)
def test_what_a_plan_leaves_out(quarantine: Quarantine, out: set[str]):
    planned = {"q-0": (0, 1), "q-1": (2, 3), "q-2": (4, 5)}
    assert left_out(planned, [quarantine]).keys() == out


def test_a_lifted_replica_starts_again():
    script = lift_script("q-0")
    assert "rm -f /var/lib/llm/quarantine/q-0.json" in script
    assert script.endswith("systemctl start llm-engine@q-0.service")


def service(**watchdog: Any) -> ServiceWatch:
    data = {"name": "q", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096, **watchdog}
    return Service.model_validate(data).watchdog


def test_a_service_is_watched_unless_it_says_otherwise():
    assert service() == ServiceWatch()
    assert service(watchdog={"enabled": False}) == ServiceWatch(enabled=False)
    assert service(watchdog={"stall_timeout_s": 30}).stall_timeout_s == 30


@pytest.mark.parametrize(
    ("kind", "data", "place"),
    [
        (ServiceWatch, {"stall_timeout_s": 1}, "stall_timeout_s"),
        (ServiceWatch, {"stall_timeout_s": "8"}, "stall_timeout_s"),
        (ServiceWatch, {"unknown": 1}, "unknown"),
        (ServiceWatch, {"failed_probes": 0}, "failed_probes"),
        # It would be restarted before it has left the rotation.
        (ServiceWatch, {"restart_after_s": 8}, "restart_after_s: after 8 s"),
        (ServiceWatch, {"probe_timeout_s": 20}, "set more than 45"),
        (WatchdogSettings, {"port": 80}, "port"),
        (WatchdogSettings, {"metrics_dir": "metrics"}, "metrics_dir"),
        (WatchdogSettings, {"metrics_dir": "/srv/a b"}, "metrics_dir"),
        (WatchdogSettings, {"metrics_dir": "/srv/../etc"}, "metrics_dir"),
        (WatchdogSettings, {"metrics_dir": "/srv/%h"}, "metrics_dir"),
        (WatchdogSettings, {"allow_reboot": 1}, "allow_reboot"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: type[Any], data: dict[str, Any], place: str):
    with pytest.raises(ValidationError, match=place):
        kind.model_validate(data)


def test_the_unit_may_write_where_its_metrics_are():
    assert "StateDirectory=llm/watchdog llm/metrics\n" in unit("/var/lib/llm/metrics")
    assert "ReadWritePaths=" not in unit("/var/lib/llm/metrics")
    for folder in ("/srv/metrics", "/var/lib/prometheus/node-exporter"):
        assert f"StateDirectory=llm/watchdog\nReadWritePaths=-{folder}\n" in unit(folder)
