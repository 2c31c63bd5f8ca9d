import pytest

from roles.hardware.outputs.record import GpuRecord, MigDevice
from roles.hardware.outputs.smi_list import parse_smi_list
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("1x-rtx-3090-ti_vllm-12005", ["NVIDIA GeForce RTX 3090 Ti"]),
        ("1x-rtx-pro-6000-server_vm", ["NVIDIA RTX PRO 6000 Blackwell Server Edition"]),
        ("4x-a100-mixed-mig_telegraf-5812", ["NVIDIA A100-SXM4-80GB"] * 4),
        ("8x-rtx-pro-6000-server_hami", ["NVIDIA RTX PRO 6000 Blackwell Server Edition"] * 8),
        ("a100-pcie-old-mig-uuid", ["A100-PCIE-40GB"]),
        ("linux-x86_64_nvidia-h200_590.48.01", ["NVIDIA H200"]),
        ("linux-x86_64_nvidia-l40s_595.80", ["NVIDIA L40S"]),
        ("linux-x86_64_nvidia-h100-80gb-hbm3_590.48.01", ["NVIDIA H100 80GB HBM3"]),
    ],
)
def test_names_in_the_order_of_the_index(file, names):
    gpus = parse_smi_list(text(f"smi-L/{file}.txt")).gpus
    assert [gpu.name for gpu in gpus] == names
    assert [gpu.index for gpu in gpus] == list(range(len(names)))


def test_mig_devices_of_one_gpu_of_four():
    gpus = parse_smi_list(text("smi-L/4x-a100-mixed-mig_telegraf-5812.txt")).gpus
    assert [len(gpu.mig_devices) for gpu in gpus] == [4, 0, 0, 0]
    assert gpus[0].mig_devices[3] == MigDevice(
        index=3, profile="1g.20gb", uuid="MIG-930574a9-d43a-5d2b-95da-3e68384c8d6b"
    )
    assert [gpu.mig_mode for gpu in gpus] == [True, None, None, None]
    assert gpus[2].uuid == "GPU-5e375e7e-b41f-155b-dcdc-534524c356fc"


def test_profiles_and_the_old_uuid():
    (h200,) = parse_smi_list(text("smi-L/linux-x86_64_nvidia-h200-mig_590.48.01.txt")).gpus
    assert [it.profile for it in h200.mig_devices] == [
        "1c.3g.71gb",
        "2c.3g.71gb",
        "2g.35gb",
        "1g.18gb",
        "1g.18gb",
    ]
    (old,) = parse_smi_list(text("smi-L/a100-sxm4-old-mig-uuid_gpu-operator.txt")).gpus
    assert [it.gpu_instance_id for it in old.mig_devices] == [7, 8, 9, 11, 12, 13, 14]
    assert {it.compute_instance_id for it in old.mig_devices} == {0}


def test_a_lost_gpu_leaves_a_gap():
    read = parse_smi_list(
        "Unable to determine the device handle for GPU1: 0000:5F:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU\n"
        "GPU 0: NVIDIA A40 (UUID: GPU-a)\n"
        "GPU 2: NVIDIA A40 (UUID: [Unknown Error])\n"
        "GPU 3: GPU is lost\n"
        "GPU 4: Tesla M2050 (S/N: 0322210081453)\n"
    )
    assert read.gpus == (
        GpuRecord(index=0, name="NVIDIA A40", uuid="GPU-a"),
        GpuRecord(index=2, name="NVIDIA A40", unreadable=("uuid: [Unknown Error]",)),
        GpuRecord(index=3, unreadable=("name: GPU is lost",)),
        GpuRecord(index=4, name="Tesla M2050"),
    )
    assert len(read.messages) == 1


@pytest.mark.parametrize(
    "output",
    [
        "GPU 0: NVIDIA A40 (UUID: GPU-a)\nGPU 0: NVIDIA A40 (UUID: GPU-b)\n",
        "  MIG 1g.5gb Device 0: (UUID: MIG-a)\n",
        "GPU 0: NVIDIA A40 (UUID: GPU-a)\n\t Link 0: 14.062 GB/s\n",
        "GPU 0: NVIDIA A40 (UUID: GPU-a\n",
        "No devices were found\n",
    ],
)
def test_what_is_no_list_is_refused(output):
    with pytest.raises(OutputError):
        parse_smi_list(output)
