"""What is changed on a host, by what it says of itself."""

import re
from dataclasses import replace

import pytest

from roles.hardware import parse_report
from roles.host import HostFile
from roles.tuning import TuningSettings
from roles.tuning.mig_cards import by_size
from roles.tuning.render import SCRIPT, UNIT, gpu_files
from roles.tuning.state import GpuTuning, HostTuning, parse_state
from roles.tuning.steps import Steps, shm_wanted_mib, steps
from tests.unit.hardware.hosts import sections

GIB = 1024
L40S = GpuTuning(0, "NVIDIA L40S", 350, 350, 100, 350)
H100 = GpuTuning(0, "NVIDIA H100 80GB HBM3", 700, 700, 200, 700)
PLAIN = HostTuning(ram_mib=256 * GIB, shm_mib=128 * GIB, gpus=(L40S, replace(L40S, index=1)))
MIG = {"mig": {0: ["3g.40gb", "3g.40gb"]}}


def settings(**expected_message) -> TuningSettings:
    return TuningSettings.model_validate(expected_message)


def done(wanted: TuningSettings, state: HostTuning) -> HostTuning:
    """The host with tuning's files as these settings make them, and its unit run."""
    files: list[HostFile] = gpu_files(wanted)
    return replace(state, files={file.path: file.state for file in files}, unit_up=True)


@pytest.mark.parametrize(
    ("expected_message", "together", "ram_gib", "wanted_gib"),
    [
        (None, 1, 256, 0),
        (None, 2, 256, 10),
        (None, 8, 16, 8),
        (32, 1, 256, 32),
        (1, 4, 256, 1),
    ],
)
def test_how_large_shared_memory_must_be(
    expected_message: int | None, together: int, ram_gib: int, wanted_gib: int
):
    assert shm_wanted_mib(expected_message, together, ram_gib * GIB) == wanted_gib * GIB


@pytest.mark.parametrize(
    ("now_gib", "boot_gib", "grown", "written"),
    [
        (128, None, None, None),
        (1, None, 20, 20),
        (1, 1, 20, 20),
        # Grown by hand, and small again after the next boot.
        (30, 1, None, 20),
        # Written already, and made small since.
        (1, 20, 20, None),
        (20, 20, None, None),
    ],
)
def test_shared_memory_grows_and_never_shrinks(
    now_gib: int, boot_gib: int | None, grown: int | None, written: int | None
):
    state = replace(
        PLAIN, shm_mib=now_gib * GIB, shm_boot_mib=None if boot_gib is None else boot_gib * GIB
    )
    todo = steps(settings(dev_shm_gib=20), state, 1)
    assert todo.shm_mib == (grown and grown * GIB)
    assert todo.fstab_mib == (written and written * GIB)


def test_a_plain_host_is_left_alone():
    assert steps(settings(), PLAIN, 2) == Steps()
    assert steps(settings(), replace(PLAIN, gpus=None), 2).descriptions == ()


def test_a_power_limit_is_set_once():
    wanted = settings(power_limit_w=300)
    todo = steps(wanted, PLAIN, 1)
    assert todo.apply and [file.path for file in todo.changed] == [SCRIPT, UNIT]
    limited = tuple(replace(gpu, power_limit_w=300) for gpu in PLAIN.gpus or ())
    state = replace(done(wanted, PLAIN), gpus=limited, power_set_w=300)
    assert steps(wanted, state, 1).descriptions == ()
    # After a reboot without the unit, or a change by hand.
    assert steps(wanted, replace(state, gpus=PLAIN.gpus), 1).apply
    assert steps(wanted, replace(state, unit_up=False), 1).apply


def test_a_limit_that_is_no_longer_set_is_taken_back():
    limited = replace(L40S, power_limit_w=300)
    state = replace(done(settings(power_limit_w=300), PLAIN), gpus=(limited, L40S), power_set_w=300)
    todo = steps(settings(), state, 1)
    assert (todo.restore, todo.absent, todo.apply) == (((0, 350),), (UNIT, SCRIPT), False)
    # A limit of somebody else's is not ours to take back.
    assert steps(settings(), replace(PLAIN, gpus=(limited, L40S)), 1).descriptions == ()


def test_slices_are_made_once_and_stay_when_power_goes():
    wanted = settings(**MIG)
    state = replace(PLAIN, gpus=(H100, replace(H100, index=1)))
    assert steps(wanted, state, 1).apply
    sliced = replace(H100, profiles=("3g.40gb", "3g.40gb"), users=("pid 7 (VLLM::EngineCore)",))
    after = replace(done(wanted, state), gpus=(sliced, replace(H100, index=1)))
    assert steps(wanted, after, 1).descriptions == ()
    with_power = settings(**MIG, power_limit_w=500)
    todo = steps(wanted, replace(done(with_power, after), power_set_w=500), 1)
    assert todo.apply and todo.restore == () and todo.absent == ()


@pytest.mark.parametrize(
    ("expected_message", "state", "message"),
    [
        (
            {"power_limit_w": 900},
            PLAIN,
            r"power_limit_w: GPU 0 \(NVIDIA L40S\) takes 100 to 350 W, not 900 W",
        ),
        (
            {"power_limit_w": 300},
            replace(PLAIN, gpus=(replace(L40S, power_limit_w=None),)),
            "has no power limit",
        ),
        ({"power_limit_w": 300}, replace(PLAIN, gpus=None), "power_limit_w: nvidia-smi"),
        (MIG, replace(PLAIN, gpus=None), "mig: nvidia-smi"),
        ({"mig": {4: ["7g.80gb"]}}, PLAIN, "there is no GPU 4; the host has 0, 1"),
        (
            MIG,
            replace(PLAIN, gpus=(replace(H100, users=("pid 7 (python3)",)),)),
            r"GPU 0 \(.*\) cannot be sliced while processes use it: pid 7 \(python3\); drain",
        ),
        ({"dev_shm_gib": 512}, PLAIN, "512 is more than the host's memory"),
        ({"dev_shm_gib": 2}, replace(PLAIN, shm_mib=None), "/dev/shm is no file system"),
    ],
)
def test_what_cannot_be_set_is_said_and_nothing_is_changed(
    expected_message: dict, state: HostTuning, message: str
):
    todo = steps(settings(**expected_message), state, 1)
    assert todo == Steps(problems=todo.problems)
    assert re.search(message, "; ".join(todo.problems))


OWN = {"fstab": "", "unit": "active\nenabled", "power-set": "300", "files": "", "end": ""}
POWER = "index, uuid, name, power.limit [W], power.default_limit [W], power.min_limit [W]"
REPORTED = {
    "shm": "tmpfs            10485760       0  10485760       0% /dev/shm",
    "query": f"""{POWER}, power.max_limit [W]
0, GPU-a, NVIDIA L40S, 300.00, 350.00, 100.00, 350.00
1, GPU-b, NVIDIA T400, [N/A], [N/A], [N/A], [N/A]""",
    "list": """GPU 0: NVIDIA L40S (UUID: GPU-a)
GPU 1: NVIDIA T400 (UUID: GPU-b)
  MIG 1g.10gb     Device  0: (UUID: MIG-c)""",
    "apps": """gpu_uuid, pid, process_name, used_gpu_memory [MiB]
MIG-c, 77, /usr/bin/python3, -m x, 5""",
}


def read(reported: dict[str, str] | None = None, **own: str) -> HostTuning:
    """What is read of a host with two GPUs."""
    return parse_state(OWN | own, parse_report(sections(**REPORTED | (reported or {}))))


@pytest.mark.parametrize(
    ("fstab", "boot_mib"),
    [
        ("", None),
        ("tmpfs /dev/shm tmpfs rw,size=2g 0 0", 2048),
        ("tmpfs /dev/shm tmpfs size=1048576k", 1024),
        ("none /dev/shm tmpfs size=1073741824,nosuid 0 0", 1024),
        ("tmpfs /dev/shm tmpfs size=25% 0 0", 257666 // 4),
        ("tmpfs /dev/shm tmpfs defaults 0 0", 257666 // 2),
        pytest.param(f"x /dev/shm x size={'9' * 400}g 0 0", 257666 // 2, id="400 digits"),
        ("tmpfs /dev/shm tmpfs size=1G 0 0\ntmpfs /dev/shm tmpfs size=3G 0 0", 3072),
    ],
)
def test_what_a_host_says(fstab: str, boot_mib: int | None):
    state = read(fstab=fstab)
    assert (state.ram_mib, state.shm_mib, state.shm_boot_mib) == (257666, 10240, boot_mib)
    assert (state.unit_up, state.power_set_w) == (True, 300)
    assert state.gpus == (
        GpuTuning(0, "NVIDIA L40S", 300, 350, 100, 350),
        GpuTuning(
            1, "NVIDIA T400", profiles=("1g.10gb",), users=("pid 77 (/usr/bin/python3, -m x)",)
        ),
    )


@pytest.mark.parametrize("odd", ["3gb", "foo", "7", "g", "9" * 5000])
def test_slices_with_odd_names_are_read(odd: str):
    gpus = read({"list": REPORTED["list"].replace("1g.10gb", odd)}).gpus
    assert gpus is not None and [gpu.profiles for gpu in gpus][1:] == [(odd,)]


def test_equal_slices_have_one_order():
    assert by_size(["1g.10gb+me", "3g.40gb", "1g.10gb"]) == ("3g.40gb", "1g.10gb", "1g.10gb+me")
    assert by_size(["1g.10gb", "1g.10gb+me", "3g.40gb"]) == ("3g.40gb", "1g.10gb", "1g.10gb+me")


def test_what_is_cut_short_is_no_state():
    with pytest.raises(ValueError, match=r"cut short: .*fstab"):
        parse_state({"unit": ""}, parse_report(sections()))


@pytest.mark.parametrize(
    ("reported", "shm_mib", "gpus"),
    [
        ({"shm": "udev 10485760 0 10485760 0% /dev"}, None, 2),
        ({"query": "", "query_status": "missing"}, 10240, None),
        ({"query": "NVIDIA-SMI has failed", "query_status": "9"}, 10240, None),
    ],
)
def test_what_a_host_does_not_have(reported: dict[str, str], shm_mib: int | None, gpus: int | None):
    state = read(reported)
    assert state.shm_mib == shm_mib
    assert (state.gpus and len(state.gpus)) == gpus
