"""Live readings: what each GPU holds and does, of NVIDIA's and AMD's tools."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Gpu, readings
from roles.hardware.outputs.amd_processes import parse_amd_processes
from roles.hardware.outputs.text import OutputError
from roles.hardware.readings import AMD, NVIDIA, GpuProcess, Output, Reading

GPUS = "0, GPU-a, 21000, 7\n1, GPU-b, [N/A], [N/A]\n"
APPS = "GPU-a, 10, VLLM::Worker_TP0, 20000\nMIG-c, 11, /opt/a, b/python3, [N/A]\nGPU-x, 12, x, 1\n"
SLICES = "GPU 1: NVIDIA H100 PCIe (UUID: GPU-b)\n  MIG 3g.40gb Device 0: (UUID: MIG-c)\n"


def amount(value: object, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit}


def process(pid: int, vram: object) -> dict[str, object]:
    memory = {"gtt_mem": amount(1, "B"), "cpu_mem": amount(1, "B"), "vram_mem": vram}
    usage = {"gfx": amount(0, "ns"), "enc": amount(0, "ns")}
    info = {"name": "python3", "pid": pid, "memory_usage": memory}
    return {"process_info": info | {"mem_usage": amount(2, "B"), "usage": usage}}


METRICS = [
    {
        "gpu": index,
        "usage": {"gfx_activity": amount(busy, "%"), "mm_activity": "N/A", "vcn_activity": ["N/A"]},
        "mem_usage": {"total_vram": amount(196592, "MB"), "used_vram": amount(used, "MB")},
    }
    for index, busy, used in ((0, 97, 150000), (1, 0, 283))
]
PROCESSES = [
    {"gpu": 0, "process_list": [process(10, amount(2**30, "B")), process(11, amount("N/A", "B"))]},
    {"gpu": 1, "process_list": [{"process_info": "No running processes detected"}]},
]


def nvidia(gpus: str = GPUS, apps: str = APPS, ok: bool = True) -> readings.Readings:
    outputs = {"gpus": Output(ok, gpus), "processes": Output(ok, apps)}
    return readings.read(NVIDIA, outputs | {"slices": Output(True, SLICES)})


def amd(metrics: object, processes: object = PROCESSES) -> readings.Readings:
    outputs = {"gpus": json.dumps(metrics, indent=4), "processes": json.dumps(processes, indent=4)}
    return readings.read(AMD, {name: Output(True, text) for name, text in outputs.items()})


def test_nvidias_gpus_with_the_processes_of_their_slices():
    found = nvidia()
    assert dict(found.gpus) == {
        0: Reading(0, 21000, 7, (GpuProcess(10, "VLLM::Worker_TP0", 20000),)),
        1: Reading(1, None, None, (GpuProcess(11, "/opt/a, b/python3", None),)),
    }
    assert (found.error, found.process_error) == ("", "")


@pytest.mark.parametrize("metrics", [METRICS, {"gpu_data": METRICS}])
def test_amds_gpus_with_their_processes(metrics: object):
    """A list until ROCm 6, an object since ROCm 7."""
    found = amd(metrics)
    assert dict(found.gpus) == {
        0: Reading(
            0, 150000, 97, (GpuProcess(10, "python3", 1024), GpuProcess(11, "python3", None))
        ),
        1: Reading(1, 283, 0),
    }
    assert readings.utilization(AMD, json.dumps(metrics)) == {0: 97, 1: 0}


def test_how_busy_nvidias_gpus_are():
    assert readings.utilization(NVIDIA, "0, 93\n1, [N/A]\n") == {0: 93}
    assert readings.utilization(NVIDIA, "No devices were found\n") == {}


def test_why_nothing_could_be_read():
    assert nvidia(gpus="No devices were found\n").error == "No devices were found"
    assert nvidia(gpus="").error == "nvidia-smi printed nothing"
    assert readings.read(AMD, {}).error == "not asked"
    failed = {"gpus": Output(True, json.dumps(METRICS)), "processes": Output(False, "no such")}
    assert readings.read(AMD, failed).process_error == "no such"


def test_a_gpu_that_does_not_answer_hides_no_other():
    lost = "Unable to determine the device handle for GPU2: 0000:00:1D.0: GPU is lost.  Reboot it\n"
    assert nvidia(lost + GPUS, lost + APPS, ok=False) == nvidia()


@pytest.mark.parametrize(
    ("gpu", "tool"),
    [
        (Gpu(0, "NVIDIA L40S", 46068), NVIDIA),
        (Gpu(0, "AMD Instinct MI300X", 196592), AMD),
        (Gpu(0, "Instinct", 196592, pci_device_id="1002:74a1"), AMD),
    ],
)
def test_the_tool_of_a_host(gpu: Gpu, tool: readings.Tool):
    assert readings.tool_of([gpu]) is tool
    assert set(tool.commands) >= {"gpus", "processes"}


@pytest.mark.parametrize("text", ["", "AMD-SMI 26.2", '{"gpu": 0}', "[{}]"])
def test_what_is_no_process_list_is_refused(text: str):
    with pytest.raises(OutputError):
        parse_amd_processes(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(
        ["gpu", "process_list", "process_info", "pid", "name", "memory_usage", "vram_mem", "value",
         "unit", "usage", "gfx_activity", "mem_usage", "used_vram", "gpu_data"]), inner),
)  # fmt: skip


@given(JSON, JSON)
def test_no_json_ends_a_run(metrics: object, processes: object):
    for one in amd(metrics, processes).gpus.values():
        assert one.memory_mib is None or one.memory_mib >= 0


@given(st.text(), st.text())
def test_no_text_ends_a_run(gpus: str, apps: str):
    for tool in (NVIDIA, AMD):
        outputs = {"gpus": Output(True, gpus), "processes": Output(True, apps)}
        readings.read(tool, outputs)
        readings.utilization(tool, gpus)
