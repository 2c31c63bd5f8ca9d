import pytest

from roles.hardware.outputs.query_apps import QueryApps, RetiredPage, parse_query_apps
from roles.hardware.outputs.record import Process
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import files, text

ZERO_UUID = "GPU-00000000-0000-0000-0000-000000000000"


def _read(file):
    return parse_query_apps(text(f"query-apps-csv/{file}.txt"))


def test_processes():
    assert _read("linux-x86_64_nvidia-geforce-rtx-4080-super_595.71.05_query-compute-apps") == (
        QueryApps((Process(ZERO_UUID, "0000:01:00.0", 2165, "/usr/bin/kwin_wayland", 25),))
    )
    assert _read("linux-x86_64_nvidia-geforce-rtx-2080-super_595.71.05_query-compute-apps") == (
        QueryApps()
    )
    windows = _read("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86_query-compute-apps")
    assert len(windows.processes) == 10
    assert windows.processes[4] == Process(
        ZERO_UUID, "0000:0c:00.0", 20372, "C:\\Program Files\\NZXT CAM\\NZXT CAM.exe", None
    )


def test_gpus_that_keep_no_list_have_no_retired_pages():
    shown = [path for path in files("query-apps-csv") if "retired" in path.name]
    assert len(shown) == 7
    assert {parse_query_apps(path.read_text()) for path in shown} == {QueryApps()}


def test_retired_pages():
    read = parse_query_apps(
        "gpu_uuid, retired_pages.address, retired_pages.cause\n"
        "GPU-a, 0x00000000000a1b2c, Double Bit ECC\n"
        "GPU-b, [N/A], Single Bit ECC\n"
    )
    assert read.retired_pages == (RetiredPage("0x00000000000a1b2c", "Double Bit ECC", "GPU-a"),)


def test_names_with_commas_and_denied_cells():
    head = "pid, process_name, used_gpu_memory [MiB]\n"
    read = parse_query_apps(
        head + "7, python serve.py --gpus 0,1, 2, 1005 MiB\n8, [Insufficient Permissions], [N/A]\n"
    )
    assert read.processes == (
        Process(pid=7, name="python serve.py --gpus 0,1, 2", used_memory_mib=1005),
        Process(pid=8),
    )
    asked = ["gpu_uuid", "pid", "used_memory"]
    assert parse_query_apps("GPU-a, 7, 1005\n", asked).processes == (
        Process(gpu_uuid="GPU-a", pid=7, used_memory_mib=1005),
    )


@pytest.mark.parametrize(
    ("output", "where"),
    [
        ("pid, used_gpu_memory [MiB]\nseven, 1 MiB\n", "line 2"),
        ("pid, used_gpu_memory [MiB]\n7, much\n", "line 2"),
        ("pid, used_gpu_memory [MiB]\n7\n", "line 2"),
        ("pid, gpu_bus_id\n7, here\n", "line 2"),
        ("7, 1005 MiB\n", "line 1"),
        ("pid, name, cpu\n7, a, 1\n", "line 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(output, where):
    with pytest.raises(OutputError, match=where):
        parse_query_apps(output)
