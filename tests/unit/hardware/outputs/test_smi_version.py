import pytest

from roles.hardware.outputs.smi_version import SmiVersion, parse_smi_version
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("linux-x86_64_nvidia-l40s_595.80", SmiVersion("595.80", "13.2", "595.80", "595.80")),
        (
            "linux-x86_64_nvidia-geforce-rtx-2080-super_610.57.04",
            SmiVersion("610.57.04", "13.3", "610.57", "610.57.04"),
        ),
        (
            "windows-x86_64_nvidia-geforce-rtx-2080-super_610.62",
            SmiVersion("610.62", "13.3", "610.62", "610.62"),
        ),
    ],
)
def test_versions(file, expected):
    assert parse_smi_version(text(f"smi-version/{file}.txt")) == expected


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024",
         "535.161.07"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build",
         "595.91.07"),
    ],
)  # fmt: skip
def test_the_kernel_module_tells_its_version(line, driver):
    read = parse_smi_version(f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1)\n")
    assert read == SmiVersion(driver=driver)


@pytest.mark.parametrize(
    "output", ["CUDA Version : 13.2\nDriver Version : 595.80\n", "NVIDIA-SMI version  : new\n"]
)
def test_what_tells_no_version_is_refused(output):
    with pytest.raises(OutputError):
        parse_smi_version(output)
