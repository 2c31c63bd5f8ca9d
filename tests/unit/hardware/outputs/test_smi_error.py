import pytest

from roles.hardware.outputs.smi_error import FAULTS, fault_of, is_message, parse_smi_error
from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import text

HANDLE = "Unable to determine the device handle for"
NVML = "Failed to initialize NVML:"


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("bash-command-not-found_container", "driver-missing"),
        ("bash-command-not-found_miyabi", "driver-missing"),
        ("couldnt-communicate", "driver-not-loaded"),
        ("device-handle-unknown-error-3digit-domain", "device-handle"),
        ("device-handle-unknown-error-no-space", "device-handle"),
        ("libnvidia-ml-missing", "library-missing"),
        ("no-devices-found_open-gpu-862", "no-devices"),
        ("option-not-recognized_private-gpt-1480", "invalid-argument"),
        ("topo-i-flag-misuse", "invalid-argument"),
        ("ubuntu-cnf-utils-340-390", "driver-missing"),
        ("ubuntu-cnf-utils-580-595", "driver-missing"),
        ("vgpu-no-supported-devices_intersight-66", "no-vgpu"),
    ],
)
def test_real_errors(file, fault):
    error = parse_smi_error(text(f"smi-error/{file}.txt"))
    assert error.fault == fault
    assert error.line in text(f"smi-error/{file}.txt")
    assert error.remedy


# Further messages as they are reported in public threads.
@pytest.mark.parametrize(
    ("fault", "output"),
    [
        ("driver-library-mismatch",
         f"{NVML} Driver/library version mismatch\nNVML library version: 535.161\n"),
        ("driver-library-mismatch",
         "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch"),
        ("nvml-init-failed", f"{NVML} Unknown Error\n"),
        ("nvml-init-failed", f"{NVML} Not Supported\n"),
        ("driver-missing",
         "The program 'nvidia-smi' can be found in the following packages:\n * nvidia-340\n"
         "Try: sudo apt install <selected package>\n"),
        ("nvml-init-failed", f"{NVML} N/A\nFailed to properly shut down NVML: N/A\n"),
        ("insufficient-permissions", f"{NVML} Insufficient Permissions\n"),
        ("blocked-by-os", f"{NVML} GPU access blocked by the operating system\n"),
        ("driver-not-loaded", f"{NVML} Driver Not Loaded\n"),
        ("gpu-lost",
         f"{HANDLE} GPU 0000:02:00.0: GPU is lost.  Reboot the system to recover this GPU\n"),
        ("device-handle", f"{HANDLE} GPU 0000:01:00.0: Not Found\n"),
        ("insufficient-power",
         f"{HANDLE} GPU 0000:81:00.0: Unable to communicate with GPU because it is "
         "insufficiently powered.\nThis may be because not all required external power cables "
         "are\nattached, or the attached cables are not seated properly.\n"),
        ("insufficient-permissions",
         "NVIDIA-SMI has failed because you do not have suffient permissions. Please try running "
         "as an administrator.\n"),
        ("insufficient-permissions",
         "NVIDIA-SMI has failed because you are not:\n\ta) running as an administrator or\n"
         "\tb) there is not at least one TCC device in the system\n"),
        ("insufficient-permissions",
         "Unable to set persistence mode for GPU 00000000:08:00.0: Insufficient Permissions\n"
         "Terminating early due to previous errors.\n"),
        ("insufficient-permissions", "bash: /usr/bin/nvidia-smi: Permission denied\n"),
        ("invalid-argument", 'Field "cuda_version" is not a valid field to query.\n'),
        ("invalid-argument",
         "\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help.\n"),
        ("invalid-argument",
         "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n"),
        ("invalid-argument",
         "Provided power limit 150.00 W is not a valid power limit which should be between "
         "60.00 W and 70.00 W for GPU 00000000:00:04.0\n"),
        ("no-vgpu", "Not supported devices in vGPU mode\n"),
        ("no-mig", "No MIG-enabled devices found.\n"),
        ("in-use",
         "The following GPUs could not be reset:\n  GPU 00000000:07:00.0: In use by another "
         "client\n\n1 device is currently being used by one or more other processes (e.g., Fabric "
         "Manager, CUDA application, graphics application such as an X server, or a monitoring "
         "application such as another instance of nvidia-smi).\n"),
        ("not-supported",
         "The following GPUs could not be reset:\n  GPU 00000000:8B:00.0: Not Supported\n"),
        ("not-supported", "Failed to get the field: Function Not Found\n"),
        ("nvlink-inactive",
         "NVML: Unable to retrieve NVLink information as all links are inActive\n"),
        ("command-failed",
         "Unable to set persistence mode for GPU 00000000:11:00.0: Unknown Error\n"),
        ("driver-missing", "zsh: command not found: nvidia-smi\n"),
        ("driver-missing", "sh: 1: nvidia-smi: not found\n"),
        ("driver-missing", "-bash: nvidia-smi: Kommando nicht gefunden.\n"),
        ("driver-missing", "bash: /usr/bin/nvidia-smi: No such file or directory\n"),
        ("driver-missing",
         "'nvidia-smi' is not recognized as an internal or external command,\n"
         "operable program or batch file.\n"),
        ("driver-missing",
         "nvidia-smi : The term 'nvidia-smi' is not recognized as the name of a cmdlet.\n"
         "At line:1 char:1\n+ nvidia-smi\n+ ~~~~~~~~~~\n"
         "    + CategoryInfo          : ObjectNotFound: (nvidia-smi:String) []\n"),
        ("driver-missing", 'exec: "nvidia-smi": executable file not found in $PATH: unknown\n'),
        ("library-missing",
         "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: "
         "cannot open shared object file: no such file or directory\n"),
        ("container-runtime",
         'docker: Error response from daemon: could not select device driver "" with '
         "capabilities: [[gpu]].\n"),
    ],
)  # fmt: skip
def test_messages_of_other_hosts(fault, output):
    assert parse_smi_error(output).fault == fault
    assert parse_smi_error("$ nvidia-smi\n" + output).fault == fault


@pytest.mark.parametrize(
    ("output", "address", "index"),
    [
        (f"{HANDLE} GPU 000:BA:80.0: Unknown Error", "0000:ba:80.0", None),
        (f"{HANDLE} GPU0000:91:00.0: Unknown Error", "0000:91:00.0", None),
        (f"{HANDLE} GPU3: 0000:5F:00.0: Unknown Error", "0000:5f:00.0", 3),
        (f"{HANDLE} GPU2: Unknown Error", None, 2),
        ("No devices were found", None, None),
    ],
)
def test_the_gpu_is_told_where_the_line_names_it(output, address, index):
    error = parse_smi_error(output)
    assert (error.pci_address, error.gpu_index) == (address, index)


def test_of_several_errors_the_most_telling_is_first():
    error = parse_smi_error(
        f"{HANDLE} GPU1: 0000:25:00.0: Unknown Error\n{HANDLE} GPU0: 0000:24:00.0: GPU is lost.\n"
    )
    assert (error.fault, error.gpu_index) == ("gpu-lost", 0)
    assert [(it.fault, it.gpu_index) for it in error.others] == [("device-handle", 1)]


@pytest.mark.parametrize(
    "output",
    [
        "NVML library version: 535.161\n",
        f"{HANDLE} GPU0: 0000:24:00.0: GPU is lost.\n1, NVIDIA GeForce RTX 5070 Ti, 300.00 W\n",
        f"{HANDLE} GPU0: 0000:24:00.0: GPU is lost.\nGPU 1: NVIDIA A40 (UUID: GPU-a)\n",
        "index, name\n0, [GPU is lost]\n",
        "kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU is lost\n",
    ],
)
def test_answers_and_logs_are_no_errors(output):
    with pytest.raises(OutputError):
        parse_smi_error(output)


def test_single_lines():
    assert fault_of("[GPU requires reset]") == "gpu-requires-reset"
    assert fault_of("NVIDIA H200") is None
    assert is_message("GPU0: 0000:24:00.0: GPU is lost.")
    assert not is_message("GPU 0: NVIDIA H200 (UUID: GPU-a)")
    assert len(set(FAULTS)) == len(FAULTS)
