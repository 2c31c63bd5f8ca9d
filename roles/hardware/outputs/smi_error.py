"""Recognises the errors that nvidia-smi, or the shell, prints instead of an answer."""

import re
from dataclasses import dataclass, replace

from roles.hardware.outputs.text import Line, OutputError, read_lines
from roles.hardware.outputs.values import pci_address


@dataclass(frozen=True)
class SmiError:
    """The error instead of an answer.

    `fault` is one of `FAULTS`, `line` the line that shows it, as printed. The GPU's address or
    index is set if the line names it. `others` are the text's further errors, such as those of
    further GPUs.
    """

    fault: str
    line: str
    remedy: str
    pci_address: str | None = None
    gpu_index: int | None = None
    others: tuple["SmiError", ...] = ()


_REBOOT = "reboot the host; if it recurs, check the GPU's seat, power and cooling, and dmesg"

# The most specific first: if several lines or rules match, the first rule determines the fault.
_RULES = (
    (
        "driver-library-mismatch",
        r"driver/library version mismatch",
        "the driver was updated while the old one stayed loaded: reboot the host",
    ),
    (
        "gpu-lost",
        r"gpu is lost",
        "the GPU fell off the PCI bus: " + _REBOOT,
    ),
    (
        "gpu-requires-reset",
        r"gpu requires reset|requires a reset",
        "stop what uses the GPU and reset it (nvidia-smi --gpu-reset), or reboot the host",
    ),
    (
        "insufficient-power",
        r"insufficiently powered|insufficient external power",
        "connect all of the GPU's power cables, seat them well, and start the host again",
    ),
    (
        "gpu-interrupts",
        r"issue with gpu interrupts|irq issue",
        "the GPU's interrupts do not arrive: check the BIOS's PCI settings, reboot the host",
    ),
    (
        "blocked-by-os",
        r"gpu access blocked by the operating system",
        "under WSL, run wsl --shutdown and start again; in a container, give it the GPU",
    ),
    (
        "container-runtime",
        r"^docker: error response from daemon: .*could not select device driver"
        r"|^.*could not select device driver \S{0,80} with capabilities: \[\[gpu\]\]",
        "install the NVIDIA container toolkit and set it up for this container engine",
    ),
    (
        "library-missing",
        r"couldn't find (?:libnvidia-ml|nvml)|libnvidia-ml\S{0,80}: cannot open shared object"
        r"|load library failed: libnvidia-ml|shared library not found",
        "the driver is incomplete, or the container was started without the NVIDIA runtime: "
        "install the driver again, or give the container the GPU",
    ),
    (
        "in-use",
        r"in use by another client|currently being used by one or more other processes"
        r"|is the primary gpu",
        "stop every process on the GPU, monitors and the fabric manager included, then retry",
    ),
    (
        "insufficient-permissions",
        r"insufficient permissions?|do not have suff\w{0,20} permissions"
        r"|you are not:|does not have permission|nvidia-smi: permission denied"
        r"|nvidia-smi'?: permission denied",
        "run it as root; if that does not help, check /dev/nvidia*, or the container's rights",
    ),
    (
        "driver-missing",
        # A shell's complaint of it, in whatever language.
        r"^-?(?:\S{0,300}/)?(?:ba|z|da|k|c|tc)?sh: (?:(?:line )?[0-9]+: )?nvidia-smi\s?[:：]"
        r"|nvidia-smi\S{0,80}: (?:command )?not found|command not found: nvidia-smi"
        r"|unknown command:? '?nvidia-smi|command 'nvidia-smi' not found"
        r"|'?nvidia-smi\S{0,80} ?(?:: the term '\S{1,80}')? ?is not recognized as "
        r"(?:an internal|the name|a )"
        r"|the program 'nvidia-smi' (?:can be found in|is currently not installed)"
        r"|the nvidia-smi command was not found"
        r"|\"nvidia-smi\": executable file not found|nvidia-smi\S{0,80}: no such file or directory"
        r"|no such file or directory:? '?nvidia-smi",
        "the driver is not installed: install it",
    ),
    (
        "driver-not-loaded",
        r"couldn't communicate with the nvidia driver|could not communicate with the nvidia driver"
        r"|couldn't communicate with the driver|driver not loaded"
        r"|nvidia (?:driver|kernel module) is not loaded",
        "the driver's kernel module is not loaded: install the driver for the running kernel, "
        "or reboot into the kernel that has it",
    ),
    (
        "no-vgpu",
        r"^(?:no|not) supported devices in vgpu mode",
        "the host runs no vGPU manager for its GPUs: ask this of the hypervisor, or leave it out",
    ),
    (
        "no-mig",
        r"^no mig-(?:supported|enabled|capable) devices (?:were )?found",
        "MIG is off or the GPUs have none: turn it on (nvidia-smi -mig 1) if it is needed",
    ),
    (
        "no-devices",
        r"^no devices (?:were )?found|no adapters were found|no cuda-capable device is detected",
        "the driver sees no GPU: check the GPU's seat and power, and dmesg",
    ),
    (
        "inforom-corrupted",
        r"inforom is corrupted",
        "the GPU's settings storage is damaged: reset the GPU; if it stays, replace the GPU",
    ),
    (
        "device-handle",
        r"^unable to determine the device handle for",
        "the GPU does not answer: " + _REBOOT,
    ),
    (
        "invalid-argument",
        r"is not a valid field to query|option .{0,200}is not recognized|is missing its value"
        r"|^missing value for .* argument|switch is missing\. please run"
        r"|is not a valid \S{1,80} ?\S{0,80} which should be"
        r"|invalid combination of input arguments|^the \S{1,80} command line argument"
        r"|^(?:error: )?invalid argument|please run 'nvidia-smi (?:\S{1,80} )?-h'",
        "this version of nvidia-smi does not take the question: correct its options and fields",
    ),
    (
        "nvlink-inactive",
        r"unable to retrieve nvlink information as all links are inactive",
        "no NVLink is up: without bridges that is as it should be; on HGX, look at the fabric "
        "manager",
    ),
    (
        "not-supported",
        r"^(?:error: )?not supported\.?$"
        r"|^(?!failed to initialize nvml)(?:unable|failed|gpu [0-9a-f]).*: not supported\.?$"
        r"|this (?:feature|operation|command) is not supported|: function not found\.?$",
        "the GPU or its driver does not have this function: leave it out",
    ),
    (
        "nvml-init-failed",
        r"failed to initialize nvml|failed to properly shut ?down nvml|nvidia-smi has failed"
        r"|nvidia-container-cli: initialization error",
        "the driver does not start: look at dmesg, reboot the host; in a container, start it again",
    ),
    (
        "command-failed",
        r"^unable to (?:set|enable|disable|create|destroy|retrieve|query|get|reset) "
        r"|^failed to (?:set|enable|disable|create|destroy|retrieve|query|get|display|reset) ",
        "the GPU or its driver refuses: look at dmesg; if nothing is there, reset the GPU",
    ),
)  # fmt: skip
_COMPILED = tuple(
    (fault, re.compile(sign, re.IGNORECASE), remedy) for fault, sign, remedy in _RULES
)
FAULTS = tuple(fault for fault, _, _ in _RULES)

# Lines of these starts are never values.
_MESSAGE = re.compile(
    r"(?:warning|error|unable to |failed to |nvidia-smi (?:has|couldn't)|no devices "
    r"|nvidia-container-cli:|terminating early|(?:the )?gpu ?[0-9a-f]{0,8}:? ?"
    r"[0-9a-f]{3,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]: )",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\s*\||\s*\+[-=]{3}|\s*GPU [0-9]{1,4}: .*\(UUID|\s*MIG \S+\s+Device|\s*<"
    r"|[0-9]{1,4}(?:, |/[0-9])|(?:NVIDIA(?!-SMI)|Tesla|GeForce|Quadro)[^,:]*, "
    r"|[a-z_.]+(?: \[[^]]*\])?, [a-z_.]+(?: \[[^]]*\])?(?:,|$)|=+\s*NVSMI LOG"
    r"|.*\b(?:NVRM:|kernel:|NCCL (?:INFO|WARN)|Xid \(PCI)|\s*\[ *[0-9]+\.[0-9]+\]"
    r"|\s*[^\s+][^:]{2,}\s\s: ",
    re.IGNORECASE,
)
_PCI = re.compile(r"[0-9a-f]{3,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.IGNORECASE)
_INDEX = re.compile(r"\bGPU ?([0-9]{1,2})(?=: )")
_MAX_LINES = 30


def parse_smi_error(text: str) -> SmiError:
    """Name the fault of text that nvidia-smi or the shell prints instead of an answer.

    OutputError for any other text: an answer, even one with an error line in it, or a log.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("nothing is printed: this tells no error")
    answer = next((line for line in lines if _ANSWER.match(line.text)), None)
    if answer is not None:
        raise OutputError("this is an answer, or a log, and no error of nvidia-smi", answer)
    few = lines if len(lines) <= _MAX_LINES else []
    found = [(rank, line) for line in few if (rank := _rank(line.text)) is not None]
    if not found:
        raise OutputError("this is no error that nvidia-smi is known to print", lines[0])
    first, *others = sorted(found, key=lambda item: (item[0], item[1].number))
    return replace(_error(*first), others=tuple(_error(*item) for item in others))


def is_message(text: str) -> bool:
    """Whether a line among values is a message of error or warning, and no value."""
    return _MESSAGE.match(text.strip()) is not None


def fault_of(text: str) -> str | None:
    """The fault that a line of error or a printed value such as "[GPU is lost]" names."""
    rank = _rank(text)
    return None if rank is None else FAULTS[rank]


def _rank(text: str) -> int | None:
    stripped = text.strip()
    return next((rank for rank, rule in enumerate(_COMPILED) if rule[1].search(stripped)), None)


def _error(rank: int, line: Line) -> SmiError:
    fault, _, remedy = _COMPILED[rank]
    address, index = _PCI.search(line.text), _INDEX.search(line.text)
    return SmiError(
        fault,
        line.text.strip(),
        remedy,
        pci_address(address[0]) if address else None,
        int(index[1]) if index else None,
    )
