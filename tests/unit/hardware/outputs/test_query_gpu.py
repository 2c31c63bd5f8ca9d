import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.query_gpu import parse_query_gpu
from roles.hardware.outputs.record import GpuRecord, MigDevice
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text

ZERO_UUID = "GPU-00000000-0000-0000-0000-000000000000"


def _one(name, fields=None) -> GpuRecord:
    (gpu,) = parse_query_gpu(text(f"query-gpu-csv/{name}"), fields).gpus
    return gpu


def test_the_whole_query_with_header():
    gpu = _one("linux-x86_64_nvidia-l40s_595.80.txt")
    assert gpu == GpuRecord(
        index=0,
        name="NVIDIA L40S",
        memory_total_mib=46068,
        memory_used_mib=0,
        memory_free_mib=45460,
        memory_reserved_mib=609,
        uuid=ZERO_UUID,
        serial="0000000000000",
        pci_address="0000:01:00.0",
        pci_device_id="10de:26b9",
        driver_version="595.80",
        compute_capability=8.9,
        pcie_generation=4,
        pcie_generation_max=4,
        pcie_generation_card=4,
        pcie_width=16,
        pcie_width_max=16,
        persistence_mode=False,
        compute_mode="Default",
        ecc_mode=True,
        ecc_uncorrected=0,
        sram_threshold_exceeded=False,
        remapped_rows_correctable=0,
        remapped_rows_uncorrectable=0,
        remapped_rows_pending=False,
        remapped_rows_failed=False,
        recovery_action="None",
        power_limit_w=350.0,
        power_default_w=350.0,
        power_min_w=100.0,
        power_max_w=350.0,
        temperature_c=63,
        utilization_percent=100,
    )


def test_limits_of_power_that_a_card_does_not_have_are_no_fault():
    header = "index, name, power.limit [W], power.min_limit [W], power.draw [W]"
    text = f"{header}\n0, NVIDIA T400, [Unknown Error], [N/A], [Unknown Error]\n"
    (gpu,) = parse_query_gpu(text).gpus
    assert (gpu.power_limit_w, gpu.power_min_w) == (None, None)
    assert gpu.unreadable == ("power.draw: [Unknown Error]",)


@pytest.mark.parametrize(
    ("file", "name", "memory", "driver"),
    [
        ("linux-x86_64_nvidia-geforce-rtx-2080-super_595.71.05",
         "NVIDIA GeForce RTX 2080 SUPER", 8192, "595.71.05"),
        ("linux-x86_64_nvidia-geforce-rtx-2080-super_610.57.04",
         "NVIDIA GeForce RTX 2080 SUPER", 8192, "610.57.04"),
        ("linux-x86_64_nvidia-geforce-rtx-4080-super_595.71.05",
         "NVIDIA GeForce RTX 4080 SUPER", 16376, "595.71.05"),
        ("linux-x86_64_nvidia-h100-mig_590.48.01", "NVIDIA H100 80GB HBM3", 81559, "590.48.01"),
        ("linux-x86_64_nvidia-h200-mig_590.48.01", "NVIDIA H200", 143771, "590.48.01"),
        ("windows-x86_64_nvidia-geforce-rtx-2080-super_591.86",
         "NVIDIA GeForce RTX 2080 SUPER", 8192, "591.86"),
        ("gb10_inventory_noheader", "NVIDIA GB10", None, "580.142"),
        ("mig-insufficient-permissions",
         "NVIDIA RTX PRO 6000 Blackwell Server Edition", None, "580.159.04"),
        ("gtx770-not-supported_megaminer-235", "GeForce GTX 770", None, None),
        ("h100l-vgpu-mig-slice_prmon-318", "NVIDIA H100L-2-24C", None, None),
        ("h100-vbios-with-header", "NVIDIA H100 80GB HBM3", None, None),
        ("gb10_memory-na_nvitop-208", None, None, None),
        ("gb10_loop_sonar-460", None, None, None),
        ("na-vs-fan_i3pystatus-776-new", None, None, None),
        ("gpu-requires-reset_slurm", None, None, None),
    ],
)  # fmt: skip
def test_name_memory_and_driver(file, name, memory, driver):
    gpu = _one(f"{file}.txt")
    assert (gpu.name, gpu.memory_total_mib, gpu.driver_version) == (name, memory, driver)


def test_the_asked_names_tell_the_columns_where_no_header_does():
    asked = "index,name,driver_version,pci.bus_id,pcie.link.gen.current,pcie.link.width.current"
    fields = [*asked.split(","), "power.limit"]
    gpus = parse_query_gpu(
        text("query-gpu-csv/8x-rtx-pro-6000_pcie-power-nounits.txt"), fields
    ).gpus
    assert [gpu.index for gpu in gpus] == list(range(8))
    assert gpus[6] == GpuRecord(
        index=6,
        name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        driver_version="595.58.03",
        pci_address="0000:e1:00.0",
        pcie_generation=5,
        pcie_width=16,
        power_limit_w=600.0,
    )
    prompt = "$ nvidia-smi --query-gpu=memory.total,memory.free,memory.used --format=csv,noheader\n"
    assert parse_query_gpu(prompt + "2004, 2000, 4\n").gpus == (
        GpuRecord(memory_total_mib=2004, memory_free_mib=2000, memory_used_mib=4),
    )
    vgpu = _one("h100l-vgpu-mig-slice_prmon-318.txt", ["clocks.max.sm", "memory.total", "gpu_name"])
    assert vgpu == GpuRecord(name="NVIDIA H100L-2-24C", memory_total_mib=24576)


def test_only_certain_columns_are_inferred():
    gpus = parse_query_gpu(text("query-gpu-csv/8x-rtx-pro-6000_pcie-power-nounits.txt")).gpus
    assert gpus[1] == GpuRecord(
        index=1,
        name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        driver_version="595.58.03",
        pci_address="0000:11:00.0",
    )
    addresses = parse_query_gpu(text("query-gpu-csv/8x-sr680a-index-busid.txt")).gpus
    assert addresses[7] == GpuRecord(index=7, pci_address="0000:d1:00.0")
    # 81559 MiB may be all, used or free; 30 may be a temperature; 5.0 is no driver.
    assert parse_query_gpu("30, NVIDIA H100 80GB HBM3, 81559 MiB, 5\n").gpus == (
        GpuRecord(name="NVIDIA H100 80GB HBM3"),
    )
    assert parse_query_gpu(f"NVIDIA H200, {ZERO_UUID}, 300.00\n").gpus[0].driver_version is None
    assert parse_query_gpu("3, NVIDIA A\n5, NVIDIA B\n").gpus[1].index is None


@pytest.mark.parametrize(
    ("amounts", "total"),
    [
        ("81559 MiB, 0 MiB, 81081 MiB", 81559),
        ("1032 MiB, 13939 MiB, 15360 MiB", 15360),
        ("4096 MiB, 4007 MiB, 33 MiB", 4096),
        ("81559 MiB, 100 MiB", None),
        ("4096 MiB, 4096 MiB, 4096 MiB", None),
        ("0 MiB, 0 MiB, 0 MiB", None),
        ("4096 MiB, 33 MiB, [N/A]", None),
        ("8192 MiB, 214 MiB, 408 MiB", None),
    ],
)
def test_of_three_amounts_of_memory_the_one_that_the_others_fill_is_the_total(amounts, total):
    (gpu,) = parse_query_gpu(f"NVIDIA A, {amounts}\n").gpus
    assert gpu == GpuRecord(name="NVIDIA A", memory_total_mib=total)


def test_gb10_has_a_pci_domain_and_no_memory():
    gpu = _one("gb10_inventory_noheader.txt")
    assert gpu == GpuRecord(
        index=0,
        name="NVIDIA GB10",
        pci_address="000f:01:00.0",
        driver_version="580.142",
        compute_capability=12.1,
    )


def test_a_loop_counts_once_with_its_newest_row():
    assert _one("gb10_loop_sonar-460.txt") == GpuRecord(temperature_c=38, utilization_percent=0)
    rows = "".join(
        f"2025/11/24 14:08:{second}.{10 + gpu}0, {gpu * 10 + second} %\n"
        for second in (55, 56, 57)
        for gpu in (0, 1)
    )
    gpus = parse_query_gpu("timestamp, utilization.gpu [%]\n" + rows).gpus
    assert [gpu.utilization_percent for gpu in gpus] == [57, 67]
    printed = "index, memory.used [MiB]\n0, 1 MiB\n1, 2 MiB\n0, 3 MiB\n"
    assert [(gpu.index, gpu.memory_used_mib) for gpu in parse_query_gpu(printed).gpus] == [
        (0, 3),
        (1, 2),
    ]


def test_what_the_driver_cannot_read_is_listed():
    assert _one("gpu-requires-reset_slurm.txt") == GpuRecord(
        index=0,
        memory_used_mib=0,
        unreadable=(
            "temperature.gpu: [GPU requires reset]",
            "utilization.gpu: [GPU requires reset]",
        ),
    )
    header = "index, name, memory.total [MiB], pstate\n"
    lost = parse_query_gpu(header + "1, [Unknown Error], ERR!, [GPU is lost]\n").gpus[0]
    assert lost == GpuRecord(
        index=1,
        unreadable=("name: [Unknown Error]", "memory.total: ERR!", "pstate: [GPU is lost]"),
    )
    assert parse_query_gpu(header + "0, A, 12 GiB, P0\n").gpus[0].unreadable == (
        "memory.total: 12 GiB",
    )


def test_an_error_line_stands_beside_the_rows():
    read = parse_query_gpu(text("query-gpu-csv/one-gpu-lost-error-line-then-row_5070ti.txt"))
    assert read.messages == (
        "Unable to determine the device handle for GPU0: 0000:24:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU",
    )
    (gpu,) = read.gpus
    assert (gpu.index, gpu.name) == (1, "NVIDIA GeForce RTX 5070 Ti")


def test_the_list_behind_the_csv_adds_what_it_says():
    gpu = _one("mig-insufficient-permissions.txt")
    assert gpu == GpuRecord(
        index=0,
        name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        uuid="GPU-test",
        driver_version="580.159.04",
        compute_capability=12.0,
        mig_mode=True,
        mig_devices=(MigDevice(index=0, profile="2g.48gb", uuid="MIG-test"),),
        unreadable=("column 2: [Insufficient Permissions]",),
    )


def test_ecc_is_the_larger_count():
    columns = "ecc.errors.uncorrected.volatile.total, ecc.errors.uncorrected.aggregate.total"
    assert parse_query_gpu(f"index, {columns}\n0, 2, 7\n").gpus[0].ecc_uncorrected == 7
    parts = "ecc.errors.uncorrected.aggregate.dram, ecc.errors.uncorrected.aggregate.sram"
    assert parse_query_gpu(f"index, {parts}\n0, 2, 7\n").gpus[0].ecc_uncorrected == 9
    assert parse_query_gpu("index, ecc.mode.current\n0, Enabled\n").gpus[0].ecc_uncorrected is None


@pytest.mark.parametrize(
    ("output", "where"),
    [
        ("index, name\n0, NVIDIA A, 1\n", "line 2: '0, NVIDIA A, 1'"),
        ("index, name\n0\n", "line 2: '0'"),
        ("index, name\n", "line 1: 'index, name'"),
        ("index, name\n0, A\nname, index\nA, 0\n", "line 3: 'name, index'"),
        ("1, 2\n", "line 1: '1, 2'"),
        ("timestamp, pstate\nyesterday, P0\n", "line 2: 'yesterday, P0'"),
        ("No devices were found\n", "line 1: 'No devices were found'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(output, where):
    with pytest.raises(OutputError) as error:
        parse_query_gpu(output)
    assert str(error.value).startswith(where)


NAMES = st.text(string.ascii_letters + string.digits + " ,-()", min_size=1, max_size=30).map(
    lambda name: "N" + name.strip()
)
GPUS = st.lists(
    st.builds(
        GpuRecord,
        name=NAMES,
        memory_total_mib=st.none() | st.integers(0, 10**7),
        pci_address=st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.0", fullmatch=True),
        power_limit_w=st.none() | st.integers(0, 2000).map(float),
        persistence_mode=st.none() | st.booleans(),
        temperature_c=st.none() | st.integers(-5, 120),
    ),
    min_size=1,
    max_size=9,
)


@given(GPUS, st.booleans(), st.booleans())
def test_rendered_records_are_read_back(records, units, header):
    columns = {
        "index": ("", lambda gpu: gpu[0]),
        "name": ("", lambda gpu: f'"{gpu[1].name}"' if "," in gpu[1].name else gpu[1].name),
        "memory.total": (" MiB", lambda gpu: gpu[1].memory_total_mib),
        "pci.bus_id": ("", lambda gpu: "0000" + gpu[1].pci_address.upper()),
        "power.limit": (" W", lambda gpu: gpu[1].power_limit_w),
        "persistence_mode": ("", lambda gpu: {True: "Enabled", False: "Disabled"}.get(
            gpu[1].persistence_mode)),
        "temperature.gpu": ("", lambda gpu: gpu[1].temperature_c),
    }  # fmt: skip
    lines = [
        ", ".join(
            "[N/A]" if (value := show(gpu)) is None else f"{value}{unit if units else ''}"
            for unit, show in columns.values()
        )
        for gpu in enumerate(records)
    ]
    head = ", ".join(name + (f" [{unit.strip()}]" if unit else "") for name, (unit, _)
                     in columns.items())  # fmt: skip
    output = "\n".join([head, *lines] if header else lines)
    read = parse_query_gpu(output, None if header else list(columns)).gpus
    expected = [(index, gpu) for index, gpu in enumerate(records)]
    assert [(it.index, it) for it in read] == [
        (index, GpuRecord(**{**vars(gpu), "index": index})) for index, gpu in expected
    ]
