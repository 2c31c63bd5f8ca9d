"""What is read from the host program's JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.validation.observations import GpuProcess, UnitStatus, parse_observations, parse_unit
from tests.unit.validation.samples import CGROUP_V1, CGROUP_V2, UNIT, process

GPUS = "0, GPU-a, 21000, 0\n1, GPU-b, [N/A], [N/A]\n"
APPS = (
    "GPU-a, 10, VLLM::Worker_TP0, 20000\n"
    "GPU-a, 11, /opt/a, b/python3, [N/A]\n"
    "GPU-b, [N/A], [Not Found], 5\n"
)


def parsed(**changes: object):
    """What is read of two GPUs; `gpus`, `processes` and `slices` replace what commands printed."""
    outputs: dict[str, object] = {
        "gpus": {"ok": True, "text": GPUS},
        "processes": {"ok": True, "text": APPS},
    }
    outputs |= {name: changes.pop(name) for name in (*outputs, "slices") if name in changes}
    outputs = {name: output for name, output in outputs.items() if output is not None}
    data: dict[str, object] = {
        "vendor": "nvidia",
        "cgroups": {"10": CGROUP_V2, "11": None},
        "samples": ["0, 90\n1, [N/A]\n", "No devices were found\n", "0, 95\n1, 4\n"],
    }
    return parse_observations(json.dumps(data | {"gpus": outputs} | changes))


def test_gpus_their_processes_and_samples_are_joined() -> None:
    gpus = parsed().gpus
    assert gpus[0].memory_mib == 21000
    assert gpus[0].utilization_percent == (90, 95)
    assert gpus[0].processes == (
        GpuProcess("10", "VLLM::Worker_TP0", 20000, CGROUP_V2),
        GpuProcess("11", "/opt/a, b/python3", None, None),
    )
    assert gpus[1].memory_mib is None
    assert gpus[1].utilization_percent == (4,)
    assert gpus[1].processes == (GpuProcess("?", "?", 5, None),)


def test_a_process_on_a_slice_is_on_its_gpu() -> None:
    listed = "GPU 0: NVIDIA H100 PCIe (UUID: GPU-a)\n  MIG 3g.40gb Device 0: (UUID: MIG-c)\n"
    apps = {"ok": True, "text": "MIG-c, 10, VLLM::EngineCore, 20000\nMIG-d, 11, x, 1\n"}
    for text, found in ((listed, ["10"]), ("No devices were found", []), ("", [])):
        gpus = parsed(processes=apps, slices={"ok": True, "text": text}).gpus
        assert [process.pid for process in gpus[0].processes] == found


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"ok": False, "text": "No such file: 'nvidia-smi'\n"}, "No such file: 'nvidia-smi'"),
        ({"ok": True, "text": "No devices were found\n"}, "No devices were found"),
        ({"ok": True, "text": ""}, "nvidia-smi printed nothing"),
        (None, "not asked"),
    ],
)
def test_unreadable_gpus_say_why(query: object, error: str) -> None:
    observed = parsed(gpus=query)
    assert observed.gpus == {}
    assert observed.gpu_error == error


def test_a_gpu_that_does_not_answer_hides_no_other() -> None:
    lost = "Unable to determine the device handle for GPU2: 0000:00:1D.0: GPU is lost.  Reboot it\n"
    both = {
        "gpus": {"ok": False, "text": lost + GPUS},
        "processes": {"ok": False, "text": lost + APPS},
    }
    observed = parsed(**both)
    assert observed.gpus == parsed().gpus
    assert (observed.gpu_error, observed.process_error) == ("", "")


def test_unreadable_processes_say_why() -> None:
    observed = parsed(processes={"ok": False, "text": "Unknown Error\n"})
    assert observed.process_error == "Unknown Error"
    assert observed.gpus[0].processes == ()


def test_nothing_seen_is_an_observation_too() -> None:
    assert parse_observations('{"unfinished": "not done after 5 s"}').unfinished


@pytest.mark.parametrize("cgroup", [CGROUP_V1, CGROUP_V2])
def test_a_process_belongs_to_the_unit_of_its_control_group(cgroup: str) -> None:
    assert process(cgroup=cgroup).belongs_to(UNIT)
    assert process(cgroup=cgroup).unit == UNIT
    assert not process(cgroup=cgroup).belongs_to("chat-0.service")
    assert not process(cgroup=None).belongs_to(UNIT)


def test_a_process_in_a_container_host_is_named_by_its_inner_unit() -> None:
    nested = "0::/machine.slice/gpu1.service/system.slice/ollama.service\n"
    assert process(cgroup=nested).unit == "ollama.service"
    assert process(cgroup="0::/\n").unit is None


def test_units_are_read_from_systemctl_show() -> None:
    text = "NRestarts=2\nMainPID=4200\nActiveState=active\n"
    assert parse_unit(text) == UnitStatus("active", 4200, 2)
    assert parse_unit("systemctl: not found") == UnitStatus("unknown", 0, 0)


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_no_output_of_a_driver_is_an_exception(gpus: str, apps: str, samples: list[str]) -> None:
    outputs = {"gpus": {"ok": True, "text": gpus}, "processes": {"ok": True, "text": apps}}
    for vendor in ("nvidia", "amd"):
        parsed(**outputs, samples=samples, vendor=vendor)
