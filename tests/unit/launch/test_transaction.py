"""How a host moves from the old to the new, over a simulated systemd: nothing is ever lost."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roles.host.serving import LaunchError
from roles.launch import transaction
from roles.launch.transaction import apply_firewall
from roles.launch.transaction import finish as real_settle
from tests.unit.launch.hosts import TEMPLATE, Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


TWO: dict[str, Any] = {"q0": (8001, [0]), "q1": (8002, [1])}


def killed(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_fresh_host_starts_all_together(host: Host):
    host.deploy("e1", **TWO)
    assert host.log == ["start q0", "start q1"]
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    manifest = json.loads((host.root / "manifest.json").read_text())
    assert [one["folder"] for one in manifest["replicas"]] == [
        host.running[q] for q in ("q0", "q1")
    ]


def test_an_upgrade_goes_one_after_the_other(host: Host):
    host.deploy("e1", **TWO)
    host.log.clear()
    host.deploy("e2", **TWO)
    assert host.log == [
        *("drain q0", "stop q0", "start q0"),
        *("drain q1", "stop q1", "start q1"),
    ]
    assert host.serving() == {"q0": ("e2", [0]), "q1": ("e2", [1])}


def test_replicas_of_one_step_restart_together(host: Host):
    host.deploy("e1", **TWO)
    host.log.clear()
    host.deploy("e2", together=True, **TWO)
    assert host.log.index("start q0") > host.log.index("stop q1")


def test_replicas_that_start_together_are_waited_for_together(host: Host):
    """Each would otherwise begin to count its time when the one before has used its own up."""
    both = threading.Barrier(2, timeout=5)

    def wait(replica: dict[str, Any], key: str, timeout_s: int) -> None:
        both.wait()
        host.wait(replica, key, timeout_s)

    host.monkeypatch.setattr("roles.host.serving.wait", wait)
    host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    manifest = json.loads((host.root / "manifest.json").read_text())
    assert [one["name"] for one in manifest["replicas"]] == ["q0", "q1"]


def test_an_engine_that_does_not_serve_is_put_back(host: Host):
    host.deploy("e1", **TWO)
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="q0 does not serve\nThe old settings are back, and serve"):
        host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    assert "stop q1" not in host.log


def test_who_did_not_serve_is_named_where_all_is_as_before(host: Host, capsys):
    host.deploy("e1", **TWO)
    host.broken = {"q1"}
    with pytest.raises(SystemExit), host.monkeypatch.context() as patched:
        # The old one serves: only what it is changed to does not.
        patched.setattr(
            "roles.host.serving.wait",
            lambda replica, key, timeout_s: (
                None
                if host.about(replica["name"])["version"] == "e1"
                else host.wait(replica, key, timeout_s)
            ),
        )
        host.deploy("e2", together=True, **TWO)
    assert capsys.readouterr().out == f"{transaction.RESTORED}q1\n"


GROUP = {"hosts": ["gpu1", "gpu2"], "addresses": ["10.0.0.1", "10.0.0.2"]}


def test_a_part_that_is_put_back_waits_for_no_head(host: Host, capsys):
    """The head's host may still wait for the new part, and puts its own back after that."""
    host.more["q1"] = GROUP | {"rank": 1, "head": "10.0.0.1"}
    host.deploy("e1", **TWO)
    host.broken = {"q1"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve"):
        host.deploy("e2", together=True, **TWO)
    assert capsys.readouterr().out == f"{transaction.RESTORED}q1\n"
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}


def test_a_part_that_does_not_run_is_not_put_back(host: Host, capsys):
    host.more["q1"] = GROUP | {"rank": 1, "head": "10.0.0.1"}
    host.deploy("e1", **TWO)
    host.broken = {"q1"}
    host.monkeypatch.setattr(transaction, "active", lambda name: name != "q1")
    with pytest.raises(SystemExit, match="The old settings are back, but: the parts q1 do not run"):
        host.deploy("e2", together=True, **TWO)
    assert capsys.readouterr().out == ""


def test_a_head_that_is_put_back_waits_for_parts_that_are_put_back_later(host: Host):
    host.more["q1"] = GROUP | {"rank": 0}
    host.deploy("e1", **TWO)
    host.broken = {"e2"}
    waited: list[tuple[str, int, bool]] = []

    def wait(replica: dict[str, Any], key: str, timeout_s: int) -> None:
        waited.append((replica["name"], timeout_s, bool(replica.get("may_restart"))))
        host.wait(replica, key, timeout_s)

    host.monkeypatch.setattr("roles.host.serving.wait", wait)
    with pytest.raises(SystemExit, match="The old settings are back, and serve"):
        host.deploy("e2", together=True, **TWO)
    assert sorted(waited[:2]) == [("q0", 1, False), ("q1", 1, False)]
    assert sorted(waited[2:]) == [("q0", 2, False), ("q1", 2, True)]


def test_nobody_is_named_where_the_old_does_not_serve_either(host: Host, capsys):
    host.deploy("e1", **TWO)
    host.broken = {"q1"}
    with pytest.raises(SystemExit, match="The old settings are back, but: q1 does not serve"):
        host.deploy("e2", together=True, **TWO)
    assert capsys.readouterr().out == ""


def test_a_crash_in_the_middle_of_a_change_starts_what_was_running(host: Host):
    host.deploy("e1", **TWO)

    def meanwhile(replica: dict[str, Any], key: str, timeout_s: int) -> None:
        if replica["name"] == "q0" and host.about("q0")["version"] == "e2":
            host.crash("q1")
            assert host.about("q1")["version"] == "e1"
        host.wait(replica, key, timeout_s)

    host.broken = {"e2"}
    with host.monkeypatch.context() as patched:
        patched.setattr("roles.host.serving.wait", meanwhile)
        with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
            host.deploy("e2", key="k2", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    host.crash("q0")
    assert host.about("q0")["version"] == "e1"


def test_a_later_replica_that_fails_takes_back_those_before_it(host: Host):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as patched:

        def wait(replica: dict[str, Any], key: str, timeout_s: int) -> None:
            host.broken = {"q1"} if host.about("q0")["version"] == "e2" else set()
            host.wait(replica, key, timeout_s)

        patched.setattr("roles.host.serving.wait", wait)
        with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
            host.deploy("e2", **TWO)
    assert {engine for engine, _ in host.serving().values()} == {"e1"}
    manifest = json.loads((host.root / "manifest.json").read_text())
    assert {one["version"] for one in manifest["replicas"]} == {"e1"}


def test_a_change_of_key_is_accepted_besides_the_old_one(host: Host):
    host.deploy("e1", key="k1", **TWO)
    host.deploy("e1", key="k2", **TWO)
    assert host.keys == {"q0": ("k2", "k1"), "q1": ("k2", "k1")}
    host.deploy("e1", key="k3", **TWO)
    assert host.keys["q0"] == ("k3", "k2")


def test_a_new_name_on_the_old_port_accepts_the_old_key_too(host: Host):
    host.deploy("e1", key="k1", **TWO)
    host.deploy("e1", key="k2", new=(8001, [0]), q1=(8002, [1]))
    assert host.keys["new"] == ("k2", "k1")


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
def test_changed_shapes_ports_and_names(host: Host, old: dict[str, Any], new: dict[str, Any]):
    host.deploy("e1", **old)
    host.deploy("e1", **new)
    assert host.serving() == {name: ("e1", gpus) for name, (_, gpus) in new.items()}
    assert host.left() == set()


def test_a_failed_change_of_shape_brings_the_old_shape_back(host: Host):
    four: dict[str, Any] = {f"q{n}": (8001 + n, [n]) for n in range(4)}
    host.deploy("e1", **four)
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve"):
        host.deploy("e2", q0=(8001, [0, 1]), q1=(8002, [2, 3]))
    assert host.serving() == {f"q{n}": ("e1", [n]) for n in range(4)}


def test_a_fresh_host_keeps_the_replicas_that_serve(host: Host):
    host.broken = {"q1"}
    with pytest.raises(SystemExit, match="q1 does not serve"):
        host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0])}
    host.broken = set()
    host.deploy("e1", **TWO)
    assert sorted(host.running) == ["q0", "q1"]


@pytest.mark.parametrize(
    "when", ["prepare", "switch_to", "start", "record", "finish", "install_shared_unit"]
)
def test_a_run_that_is_killed_is_made_good_by_the_next(host: Host, when: str):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, when, killed)
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", q0=(8001, [0, 1]))
    host.wipe("q0")
    host.deploy("e2", q0=(8001, [0, 1]))
    assert host.serving() == {"q0": ("e2", [0, 1])}
    assert host.left() == set()


@pytest.mark.parametrize("when", ["switch_to", "start", "record"])
def test_after_a_killed_run_a_failure_still_leads_back_to_what_served(host: Host, when: str):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, when, killed)
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", **TWO)
    host.broken = {"e2"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
        host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}


def test_a_run_that_was_done_but_for_its_last_word_is_not_gone_back_behind(host: Host):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e2", **TWO)
    host.broken = {"e3"}
    with pytest.raises(SystemExit, match="The old settings are back"):
        host.deploy("e3", **TWO)
    assert {engine for engine, _ in host.serving().values()} == {"e2"}


def test_a_full_disk_at_the_first_file_changes_nothing(host: Host):
    host.deploy("e1", **TWO)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with host.monkeypatch.context() as disk:
        disk.setattr(transaction, "prepare", full)
        with pytest.raises(
            SystemExit, match=r"no space is left \((.|\n)*make room(.|\n)*The old settings are back"
        ):
            host.deploy("e2", **TWO, q2=(8003, [2]))
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    assert host.log == ["start q0", "start q1"]


@pytest.mark.parametrize(
    "error", [ValueError("not JSON"), KeyError("NRestarts"), TypeError("no dict"), IndexError()]
)
def test_whatever_goes_wrong_the_old_is_put_back(host: Host, error: Exception):
    host.deploy("e1", **TWO)

    def wait(replica: dict[str, Any], key: str, timeout_s: int) -> None:
        if host.about(replica["name"])["version"] == "e2":
            raise error
        host.wait(replica, key, timeout_s)

    with host.monkeypatch.context() as patched:
        patched.setattr("roles.host.serving.wait", wait)
        with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
            host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_folder_is_not_the_planned_one(host: Host, text: str):
    host.deploy("e1", **TWO)
    folder = host.running["q1"]
    assert folder is not None
    (Path(folder) / "replica.json").write_text(text)
    assert transaction.digest_of(folder) is None


def test_only_the_newest_engines_and_folders_stay(host: Host):
    for number in range(4):
        host.deploy(f"e-{number}", **TWO)
    kept = {path.name for path in (host.root / "engines").iterdir()}
    assert len(kept) == 2
    assert "e-3" in kept
    folders = {path.name for path in (host.root / "replicas/q0").iterdir()}
    assert folders == {"current", "3", "4"}


THREE: dict[str, Any] = {**TWO, "b": (8003, [2])}


def test_one_whose_removal_was_left_serves_on_and_is_guarded_until_a_later_run(host: Host):
    host.deploy("e1", **THREE)
    host.log.clear()
    host.guards = ("while b serves", "in the end")
    host.deploy("e2", **TWO, left=["b"])
    assert host.serving()["b"] == ("e1", [2]) and not {"stop b", "drain b"} & set(host.log)
    assert host.guarded_by == "while b serves"
    # A crash, or a run that fails later, finds it where it was.
    host.crash("b")
    host.broken = {"e3"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve: b, q0, q1"):
        host.deploy("e3", **TWO, left=["b"])
    assert host.serving() == {"b": ("e1", [2]), "q0": ("e2", [0]), "q1": ("e2", [1])}
    host.deploy("e2", **TWO)
    assert host.log[-2:] == ["drain b", "stop b"]
    assert host.left() == set() and host.guarded_by == "in the end"
    manifest = json.loads((host.root / "manifest.json").read_text())
    assert [one["name"] for one in manifest["replicas"]] == ["q0", "q1"]


def test_what_a_watchdog_has_quarantined_is_not_started(host: Host):
    host.deploy("e1", **TWO)
    (host.root / "state/quarantine").mkdir()
    (host.root / "state/quarantine/q1.json").write_text("{}")
    host.crash("q1")
    with pytest.raises(SystemExit, match="q1 is quarantined: deploys"):
        host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e1", [0])}


def test_a_quarantined_replica_is_left_as_it_is_while_the_others_move(host: Host):
    host.deploy("e1", **TWO)
    (host.root / "state/quarantine").mkdir()
    (host.root / "state/quarantine/q1.json").write_text("{}")
    host.running.pop("q1")
    host.deploy("e2", left_out=["q1"], **TWO)
    assert host.serving() == {"q0": ("e2", [0])} and host.enabled == {"q0", "q1"}
    assert not (host.root / "state/unfinished").exists(), "the run is over"
    manifest = json.loads((host.root / "manifest.json").read_text())
    assert [one["name"] for one in manifest["replicas"]] == ["q0", "q1"], "it is still watched"
    # A deploy that fails does not try to start it.
    host.broken = {"e3"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve: q0"):
        host.deploy("e3", left_out=["q1"], **TWO)
    # Lifted, it starts from what it ran, until a deploy moves it.
    (host.root / "state/quarantine/q1.json").unlink()
    host.start("q1")
    assert host.serving() == {"q0": ("e2", [0]), "q1": ("e1", [1])}
    host.broken = set()
    host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e2", [0]), "q1": ("e2", [1])}


def test_a_retired_host_whose_last_replica_is_left_serves_on(host: Host):
    host.deploy("e1", **TWO)
    host.guards = ("while q1 serves", "")
    host.deploy("e1", left=["q1"])
    assert host.serving() == {"q1": ("e1", [1])} and host.guarded_by == "while q1 serves"
    host.deploy("e1")
    assert host.running == {} and host.left() == set() and host.guarded_by == ""


@pytest.mark.parametrize("when", [None, "finish"])
def test_one_whose_place_a_planned_one_has_is_taken_down_for_good(host: Host, when: str | None):
    host.deploy("e1", **TWO)
    with host.monkeypatch.context() as patched:
        if when:
            patched.setattr(transaction, when, killed)
        with pytest.raises(KeyboardInterrupt) if when else contextlib.nullcontext():
            host.deploy("e1", new=(8001, [1]), left=["q0", "q1"])
    host.deploy("e1", new=(8001, [1]), left=["q0", "q1"])
    # A boot must not start it beside what took its port or its GPU.
    assert host.enabled == set(host.running) == {"new"}
    assert host.left() == set()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), LaunchError("nft: busy")])
@pytest.mark.parametrize(
    "what",
    ["retire", "save_manifest", "install_shared_unit", "apply_firewall", "remove_old_folders"],
)
def test_what_is_not_finished_after_a_move_costs_no_replica(
    host: Host, what: str, error: Exception
):
    host.deploy("e1", **TWO)
    host.log.clear()

    def settle(before: Any) -> None:
        def fails(*arguments: Any) -> None:
            raise error

        with host.monkeypatch.context() as patched:
            patched.setattr(transaction, what, fails)
            real_settle(before)

    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, "finish", settle)
        with pytest.raises(SystemExit, match=r"These serve as planned: q0, q1\.(.|\n)*run again"):
            host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e2", [0]), "q1": ("e2", [1])}
    assert [one for one in host.log if one.startswith("start")] == ["start q0", "start q1"]
    # The next run sees it, and has but this to do.
    unfinished = host.root / "state/unfinished"
    assert unfinished.exists()
    host.deploy("e2", **TWO)
    assert not unfinished.exists()
    assert [one for one in host.log if one.startswith("start")] == ["start q0", "start q1"]


def test_a_takeover_whose_end_fails_does_not_go_back_to_files_that_are_gone(host: Host):
    host.make_legacy(**TWO)
    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, "remove", full_after_two())
        with pytest.raises(SystemExit, match="These serve as planned: q0, q1"):
            host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    host.deploy("e1", **TWO)
    assert not (host.root / "secrets/engine.env").exists()
    assert (host.root / "units/llm-engine@.service").read_text() == TEMPLATE


def full_after_two() -> Callable[[str], None]:
    """`remove`, which does its work twice and then finds the disk broken."""
    done: list[str] = []

    def remove(path: str) -> None:
        if len(done) == 2:
            raise OSError(5, "Input/output error", path)
        done.append(path)
        Path(path).unlink(missing_ok=True)

    return remove


def test_what_starts_a_replica_at_boot_is_led_anew_where_a_run_ended_before_that(host: Host):
    host.deploy("e1", **TWO)
    wants = host.root / "units/multi-user.target.wants"
    wants.mkdir()
    for name, unit in (("q0", "llm-engine@q0.service"), ("q1", "llm-engine@.service")):
        (wants / f"llm-engine@{name}.service").symlink_to(host.root / "units" / unit)
    host.commands.clear()
    host.deploy("e1", **TWO)
    reenabled = [one for one in host.commands if "reenable" in one]
    assert reenabled == ["systemctl reenable --quiet llm-engine@q0.service"]


def test_rules_that_were_written_but_not_loaded_are_loaded(host: Host):
    files = {str(host.root / "firewall.nft"): "rules\n"}
    for _ in range(2):
        host.commands.clear()
        apply_firewall(files)
        assert host.commands[-1] == "systemctl start llm-firewall"
    host.monkeypatch.setattr(
        transaction, "run", lambda *a, **_: host.commands.append(" ".join(a)) or "active"
    )
    apply_firewall(files)
    assert host.commands[-1] == "systemctl reload llm-firewall"


def test_where_even_the_old_cannot_be_put_back_both_reasons_are_told(host: Host):
    host.deploy("e1", **TWO)
    host.broken = {"e2"}

    def fails(*arguments: Any) -> None:
        raise OSError(5, "Input/output error")

    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, "restore_link", fails)
        with pytest.raises(
            SystemExit, match=r"q0 does not serve\nNot everything could be restored: .*Input"
        ):
            host.deploy("e2", **TWO)


def test_a_manifest_that_cannot_be_written_keeps_nobody_from_going_back(host: Host):
    host.deploy("e1", **TWO)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, "save_manifest", full)
        with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
            host.deploy("e2", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}


def test_one_deploy_at_a_time(host: Host):
    host.deploy("e1", **TWO)
    with (
        transaction.exclusive_lock(),
        pytest.raises(SystemExit, match="another deploy is still at work"),
    ):
        host.deploy("e2", **TWO)
    # The lock names the run that has it, not one that asked for it.
    assert (host.root / "state/lock").read_text() == "e1\n"
    assert {engine for engine, _ in host.serving().values()} == {"e1"}


# A fleet of before the numbered folders.


def test_an_older_fleet_is_taken_over_one_after_the_other(host: Host):
    host.make_legacy(**TWO)
    host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    # The balancers have the old key until the rolling update is over.
    assert host.keys == {"q0": ("k1", "k0"), "q1": ("k1", "k0")}
    assert (host.root / "units/llm-engine@.service").read_text() == TEMPLATE
    assert host.left() == set()
    units = {path.name for path in (host.root / "units").iterdir()}
    assert "llm-engine@q0.service" not in units
    assert not (host.root / "engines/current").is_symlink()
    assert not (host.root / "secrets/engine.env").exists()


def test_one_of_an_older_fleet_whose_removal_was_left_keeps_its_files(host: Host):
    host.make_legacy(**THREE)
    host.deploy("e1", **TWO, left=["b"])
    for _ in range(2):
        assert {name: one for name, one in host.running.items() if one is None} == {"b": None}
        assert (host.root / "secrets/engine.env").exists()
        assert (host.root / "engines/current").is_symlink()
        host.crash("b")
        host.crash("q0")
        assert host.about("q0")["version"] == "e1"
        host.deploy("e1", **TWO, left=["b"])
    host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    assert host.left() == set() and not (host.root / "secrets/engine.env").exists()


def test_one_that_was_not_reached_by_the_takeover_crashes_into_the_old(host: Host):
    host.make_legacy(**TWO)
    with host.monkeypatch.context() as patched:

        def wait(replica: dict[str, Any], key: str, timeout_s: int) -> None:
            if replica["name"] == "q0":
                host.crash("q1")
                assert host.about("q1")["version"] == "legacy"
            host.wait(replica, key, timeout_s)

        patched.setattr("roles.host.serving.wait", wait)
        host.deploy("e1", **TWO)
    assert {engine for engine, _ in host.serving().values()} == {"e1"}


def test_a_takeover_that_fails_leaves_the_old_fleet(host: Host):
    host.make_legacy(**TWO)
    host.broken = {"e1"}
    with pytest.raises(SystemExit, match="The old settings are back, and serve: q0, q1"):
        host.deploy("e1", **TWO)
    assert host.running == {"q0": None, "q1": None}
    host.crash("q0")
    assert host.running == {"q0": None, "q1": None}


@pytest.mark.parametrize("port", ["", "port: many\n"])
def test_an_older_replica_that_cannot_be_read_stops_before_anything_changes(host: Host, port: str):
    host.make_legacy(**TWO)
    (host.root / "replicas/q1.yaml").write_text(f"served-model-name: m\n{port}")
    with pytest.raises(SystemExit, match=r"nothing was changed: (.|\n)*q1\.yaml"):
        host.deploy("e1", **TWO)
    assert host.log == []


def test_a_damaged_manifest_stops_before_anything_changes(host: Host):
    host.deploy("e1", **TWO)
    host.log.clear()
    (host.root / "manifest.json").write_text('{"replicas": [{}]}')
    with pytest.raises(SystemExit, match=r"nothing was changed: (.|\n)*manifest\.json"):
        transaction.main()
    assert host.log == []


@pytest.mark.parametrize("when", ["switch_to", "start", "record", "finish", "install_shared_unit"])
def test_a_takeover_that_is_killed_is_made_good_by_the_next(host: Host, when: str):
    host.make_legacy(**TWO)
    with host.monkeypatch.context() as patched:
        patched.setattr(transaction, when, killed)
        with pytest.raises(KeyboardInterrupt):
            host.deploy("e1", **TWO)
    host.deploy("e1", **TWO)
    assert host.serving() == {"q0": ("e1", [0]), "q1": ("e1", [1])}
    assert host.left() == set()
