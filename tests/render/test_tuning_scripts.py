"""The scripts of tuning, run: on this machine's own tools, and on a simulated nvidia-smi."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import ctx_host

from roles.hardware import parse_smi_list
from roles.hardware.outputs.smi_q_x import parse_smi_q_x
from roles.tuning import TuningSettings, operations
from roles.tuning.facts import TuningState
from roles.tuning.render import SCRIPT, gpu_files
from roles.tuning.scripts import check_script, fstab_script, gpu_script, restore_script, shm_script
from roles.tuning.steps import Steps
from tests.render.simulated_gpus import H100, Card

MIG = {"mig": {0: ["1g.10gb", "3g.40gb", "2g.20gb"]}}


@pytest.fixture
def card(tmp_path: Path):
    made = Card(tmp_path, H100)
    yield made
    made.server.close()


def boot_script(**message: Any) -> str:
    files = {file.path: file.content for file in gpu_files(TuningSettings.model_validate(message))}
    return files[SCRIPT]


def profiles(card: Card) -> list[list[str | None]]:
    listed = parse_smi_list(card.smi("-L")).gpus
    return [[device.profile for device in gpu.mig_devices] for gpu in listed]


def test_slices_are_made_kept_and_made_again_after_a_boot(card: Card):
    script = boot_script(**MIG)
    assert card.run(script).returncode == 0
    assert profiles(card) == [["3g.40gb", "2g.20gb", "1g.10gb"], []]
    first, second = parse_smi_q_x(card.smi("-q -x")).gpus
    assert [device.gpu_instance_id for device in first.mig_devices] == [1, 5, 13]
    assert 38_000 < (first.mig_devices[0].memory_total_mib or 0) < 40_960
    assert (first.mig_mode, second.mig_mode, second.mig_devices) == (True, False, ())
    before = card.smi("-L")
    card.used_by((0, 4711, "VLLM::EngineCore"))
    assert card.run(script).returncode == 0
    assert card.smi("-L") == before
    card.used_by()
    card.boot()
    assert profiles(card) == [[], []]
    assert card.run(script).returncode == 0
    assert card.smi("-L") == before


def test_other_slices_are_replaced_unless_something_uses_them(card: Card):
    card.slice("7g.80gb")
    card.used_by((0, 4711, "python3"))
    failed = card.run(boot_script(**MIG))
    assert failed.returncode == 1
    assert "cannot be sliced while processes use it: 4711, python3" in failed.stderr
    assert profiles(card) == [["7g.80gb"], []]
    card.used_by((1, 4711, "python3"))
    assert card.run(boot_script(**MIG)).returncode == 0
    assert profiles(card) == [["3g.40gb", "2g.20gb", "1g.10gb"], []]


def test_a_card_that_wants_a_reset_says_so(tmp_path: Path):
    card = Card(tmp_path, H100, mig_needs_reset=True)
    failed = card.run(boot_script(**MIG))
    assert failed.returncode == 1
    assert "takes MIG mode with its next reset: reboot the host" in failed.stderr
    assert "pending enable state" in failed.stderr
    card.server.close()


def test_what_the_driver_refuses_is_told_in_its_words(card: Card):
    failed = card.run(boot_script(mig={0: ["3g.40gb", "3g.40gb", "1g.10gb"]}))
    assert failed.returncode == 1 and "Insufficient Resources" in failed.stderr


def test_the_power_limit(card: Card):
    assert card.run(boot_script(power_limit_w=450)).returncode == 0
    limits = "--query-gpu=power.limit --format=csv,noheader,nounits"
    assert card.smi(limits).split() == ["450.00", "450.00"]
    failed = card.run(boot_script(power_limit_w=900))
    assert failed.returncode == 1 and "between 200.00 W and 700.00 W" in failed.stderr
    restored = restore_script(Steps(restore=((0, 700.0),)))
    assert card.run(restored).returncode == 0
    assert card.smi(limits).split() == ["700.00", "450.00"]


def test_a_limit_that_a_gpu_does_not_take_back_is_not_forgotten(card: Card):
    assert card.run(boot_script(power_limit_w=450)).returncode == 0
    ours = card.folder / "gpu-settings.sh"
    ours.write_text("power_limit_w=450\n")
    todo = Steps(absent=(str(ours),), restore=((0, 9999.0), (1, 700.0)))
    failed = card.run(operations.change_script(todo))
    assert failed.returncode == 1 and "between 200.00 W and 700.00 W" in failed.stdout
    assert ours.exists()
    limits = "--query-gpu=power.limit --format=csv,noheader,nounits"
    assert card.smi(limits).split() == ["450.00", "700.00"]


class Host:
    """A host that answers the fact by running its command beside the simulated tool."""

    def __init__(self, card: Card) -> None:
        self.card, self.noops = card, []

    def get_fact(self, fact: Any) -> Any:
        # Its part of the question is root's.
        (self.card.bin / "id").write_text("#!/bin/sh\necho 0\n")
        (self.card.bin / "id").chmod(0o755)
        files = self.card.folder / "host"
        command = fact().command().replace("/etc/llm", f"{files}/etc/llm")
        message = self.card.run(command)
        assert message.returncode == 0
        return fact().process(message.stdout.splitlines())

    def noop(self, why: str) -> None:
        self.noops.append(why)


def commands(card: Card, **message: Any) -> list[Any]:
    with ctx_host.use(Host(card)):
        wanted = TuningSettings.model_validate(message)
        return list(
            operations.tuned._inner(
                settings=wanted, gpus_together=1, found=lambda: None, changed=lambda: None
            )
        )


def test_the_fact_sees_what_is_set(card: Card):
    card.slice("3g.40gb,2g.20gb,1g.10gb")
    card.used_by((1, 4711, "python3"))
    state = Host(card).get_fact(TuningState)
    assert state.ram_mib > 0 and state.shm_mib > 0 and state.gpus is not None
    assert (state.gpus[0].power_min_w, state.gpus[0].power_max_w) == (200, 700)
    assert state.gpus[0].profiles == ("3g.40gb", "2g.20gb", "1g.10gb")
    assert state.gpus[1].users == ("pid 4711 (python3)",)


def test_a_host_without_anything_set_is_left_alone(card: Card):
    assert commands(card) == []


def test_changes_come_in_one_script_which_a_shell_reads(card: Card):
    (command,) = commands(card, **MIG, power_limit_w=450)
    script = f"sh -c {command.bits[2]}" if hasattr(command, "bits") else str(command)
    assert "systemctl restart llm-gpu-settings.service" in script
    read = subprocess.run(["dash", "-n"], input=script, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


def test_a_limit_out_of_range_stops_before_anything_is_changed(card: Card):
    (command,) = commands(card, power_limit_w=2000)
    assert "takes 200 to 700 W" in command.args[0]


def fstab(folder: Path, text: str, size_mib: int = 10240) -> subprocess.CompletedProcess[str]:
    """What the script makes of a table, on this machine's findmnt."""
    path = folder / "fstab"
    path.write_text(text)
    path.chmod(0o640)
    (folder / "systemctl").write_text("#!/bin/sh\n")
    (folder / "systemctl").chmod(0o755)
    script = f'set -eu\nPATH="{folder}:$PATH"\n{fstab_script(size_mib, str(path))}'
    return subprocess.run(["dash", "-c", script], capture_output=True, text=True, timeout=300)


LINE = "tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=10240m 0 0\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", LINE),
        ("# nothing\n", f"# nothing\n{LINE}"),
        ("proc /proc proc defaults 0 0", f"proc /proc proc defaults 0 0\n{LINE}"),
        (
            "#tmpfs /dev/shm tmpfs size=1g 0 0\nproc\t/proc  proc\tdefaults 0 0 # x\n",
            f"#tmpfs /dev/shm tmpfs size=1g 0 0\nproc\t/proc  proc\tdefaults 0 0 # x\n{LINE}",
        ),
        (
            "tmpfs\t/dev/shm\ttmpfs\tdefaults,size=1g,noexec 0 0\nproc /proc proc defaults 0 0\n",
            "tmpfs /dev/shm tmpfs defaults,noexec,size=10240m 0 0\nproc /proc proc defaults 0 0\n",
        ),
        ("  tmpfs /dev/shm tmpfs\n", "tmpfs /dev/shm tmpfs size=10240m 0 0\n"),
        ("tmpfs /dev/shm/ tmpfs size=1g 0 0\n", "tmpfs /dev/shm/ tmpfs size=10240m 0 0\n"),
        ("tmpfs /dev/shmx tmpfs size=1g 0 0\n", f"tmpfs /dev/shmx tmpfs size=1g 0 0\n{LINE}"),
        # What was wrong before does not keep /dev/shm small.
        (
            "UUID=0-0 /no/such/place ext4 defaults 0 1\nnot a line\n",
            f"UUID=0-0 /no/such/place ext4 defaults 0 1\nnot a line\n{LINE}",
        ),
    ],
)
def test_fstab_keeps_every_other_line(tmp_path: Path, before: str, after: str):
    if shutil.which("findmnt") is None:
        pytest.skip("findmnt is not installed")
    done = fstab(tmp_path, before)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "fstab").read_text() == after
    assert (tmp_path / "fstab").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["fstab", "systemctl"]
    fstab(tmp_path, after)
    assert (tmp_path / "fstab").read_text() == after


def test_a_table_that_findmnt_refuses_does_not_replace_the_old_one(tmp_path: Path):
    wrong = tmp_path / "findmnt"
    wrong.write_text('#!/bin/sh\n! grep -q 10240m "$3" || echo "   [E] no such type"\n')
    wrong.chmod(0o755)
    done = fstab(tmp_path, "proc /proc proc defaults 0 0\n")
    assert done.returncode == 1 and "the old one stays:    [E] no such type" in done.stderr
    assert (tmp_path / "fstab").read_text() == "proc /proc proc defaults 0 0\n"


@pytest.mark.parametrize(
    "script",
    [
        shm_script(Steps(shm_mib=1, fstab_mib=1)),
        gpu_script(Steps(absent=("/x",))),
        restore_script(Steps(restore=((0, 1.0),))),
        gpu_script(Steps(apply=True)),
        check_script(),
        boot_script(**MIG, power_limit_w=300),
        TuningState().command(),
    ],
)
def test_a_shell_reads_every_script(script: str):
    read = subprocess.run(["dash", "-n"], input=script, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")
