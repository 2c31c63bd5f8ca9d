"""Parses GPU faults in the kernel log: NVIDIA's Xids, NVSwitch's SXids, and amdgpu's errors."""

import re
from dataclasses import dataclass

from roles.hardware.outputs.text import Line, OutputError, read_lines

_PCI = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?"
# In every version a message follows the number; a number at the end of a text may be cut.
_XID = re.compile(
    rf"\bXid \((?:PCI:)?(?P<pci>{_PCI})(?P<mig>(?: GPU-C?I:\d+)*)\): (?P<xid>\d{{1,4}}),"
    r"(?P<rest>.*)$",
    re.IGNORECASE,
)
_SXID = re.compile(
    r"(?:nvidia-nvswitch(?P<switch>\d{1,3}): )?"
    rf"\bSXid \(PCI:(?P<pci>{_PCI})\): (?P<sxid>\d{{1,6}}),"
    r"(?P<rest>.*)$",
    re.IGNORECASE,
)
_PID = re.compile(r"^\s*pid=(?:'?<?unknown>?'?|(\d{1,10})),")
_NAME = re.compile(r"^\s*name=(?:<unknown>|([^,]*)),")
_GPU_INSTANCE = re.compile(r" GPU-I:(\d{1,3})", re.IGNORECASE)
_UUID = re.compile(
    rf"GPU at (?:PCI:)?(?P<pci>{_PCI}): "
    r"(?P<uuid>GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE,
)

# Driver messages about a lost or hanging GPU without an Xid: (kind, pattern).
_NVIDIA_FAULTS = (
    (
        "init-failed",
        re.compile(r"RmInitAdapter failed|rm_init_adapter failed"),
    ),
    ("fallen-off-bus", re.compile(r"fallen off the bus")),
)
# The Xid of a GPU that fell off the bus; other messages about that GPU add nothing.
_FALLEN_OFF = 79
_AMD_FAULTS = (
    ("ring-timeout", re.compile(r"\bring \S+ timeout")),
    ("reset-failed", re.compile(r"GPU reset\(\d+\) failed|GPU Recovery Failed", re.IGNORECASE)),
    ("reset", re.compile(r"GPU reset begin")),
    # amdgpu also logs a count of 0 and "no uncorrectable hardware errors", which are not faults.
    ("ras-uncorrectable", re.compile(r"\b[1-9]\d* (?:new )?uncorrectable hardware errors")),
    ("page-fault", re.compile(r"\bpage fault \(")),
)
_NVIDIA_GPU = re.compile(rf"\bGPU (?:at )?(?:PCI:)?(?P<pci>{_PCI})", re.IGNORECASE)
_AMD_GPU = re.compile(rf"\bamdgpu (?P<pci>{_PCI})", re.IGNORECASE)

_SYSLOG_TIME = re.compile(r"^\W*([A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2})\b")
_ISO_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\S*)")
_CTIME = re.compile(r"\[([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4})\]")
_UPTIME = re.compile(r"\[\s*(\d+\.\d{6})\]")
# One of these makes a text a kernel log; the last is for logs without any time.
_KERNEL = re.compile(
    r"^\W*\[\s*\d+\.\d{6}\]|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]"
    r"|\bkernel:|^kern +:|NVRM:|\bS?Xid \((?:PCI:)?[0-9a-f]|nvidia-nvswitch\d|\bamdgpu[ :]"
    r"|^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}"
    r"|^(?:Linux version \d|Command line: |BIOS-"
    r"|ACPI: |pci |usb |nvidia[ :-]|\[drm|audit: |EXT4-fs)"
)


@dataclass(frozen=True)
class Xid:
    """One Xid: a fault that NVIDIA's driver reports of a GPU.

    `pci` is as printed, in lower case: "0000:10:1c" mostly has no function, and none is made up.
    `gpu_instance_id` is the MIG instance if the driver names it; `pid` and `process` are None if it
    does not know them. `time` is the log's, as printed, preferably the time of day.
    """

    pci: str
    xid: int
    message: str
    pid: int | None = None
    process: str | None = None
    gpu_instance_id: int | None = None
    time: str | None = None


@dataclass(frozen=True)
class Sxid:
    """One SXid: a fault of an NVSwitch. `fatal` is None if the line does not say."""

    pci: str
    sxid: int
    message: str
    switch: int | None = None
    fatal: bool | None = None
    link: int | None = None
    time: str | None = None


@dataclass(frozen=True)
class KernelFault:
    """A fault without an Xid; `pci` is None if the line does not name the GPU.

    `kind` is "fallen-off-bus" or "init-failed" of NVIDIA's driver; "ring-timeout", "reset",
    "reset-failed", "ras-uncorrectable" or "page-fault" of amdgpu.
    """

    kind: str
    pci: str | None
    message: str
    time: str | None = None


@dataclass(frozen=True)
class Dmesg:
    """The GPU events of a kernel log, in order; `uuids` are (PCI address, UUID) pairs."""

    xids: tuple[Xid, ...] = ()
    sxids: tuple[Sxid, ...] = ()
    nvidia_faults: tuple[KernelFault, ...] = ()
    amd_faults: tuple[KernelFault, ...] = ()
    uuids: tuple[tuple[str, str], ...] = ()


def parse_dmesg(text: str) -> Dmesg:
    """Read a kernel log or lines of it, in any form of dmesg, syslog or the journal.

    OutputError for text without any kernel line.
    """
    lines = read_lines(text)
    if not lines:
        raise OutputError("the kernel log is empty")
    if not any(_KERNEL.search(line.text) for line in lines):
        raise OutputError("this is no kernel log", lines[0])
    xids = tuple(_xid(m, line) for line in lines if (m := _XID.search(line.text)))
    lost = {_without_function(xid.pci) for xid in xids if xid.xid == _FALLEN_OFF}
    return Dmesg(
        xids,
        tuple(_sxid(m, line) for line in lines if (m := _SXID.search(line.text))),
        tuple(
            fault
            for fault in _nvidia_faults(lines)
            if _without_function(fault.pci or "") not in lost
        ),
        tuple(fault for line in lines if (fault := _amd_fault(line))),
        tuple(
            dict.fromkeys(
                (m["pci"].lower(), m["uuid"]) for line in lines if (m := _UUID.search(line.text))
            )
        ),
    )


def _without_function(pci: str) -> str:
    """An address without its function, which not every line has."""
    return pci.partition(".")[0]


def _xid(match: re.Match[str], line: Line) -> Xid:
    rest = match["rest"]
    pid = _PID.match(rest)
    rest = rest[pid.end() :] if pid else rest
    name = _NAME.match(rest) if pid else None
    rest = rest[name.end() :] if name else rest
    instance = _GPU_INSTANCE.search(match["mig"])
    return Xid(
        pci=match["pci"].lower(),
        xid=int(match["xid"]),
        message=rest.strip(" ,"),
        pid=int(pid[1]) if pid and pid[1] else None,
        process=name[1] if name and name[1] else None,
        gpu_instance_id=int(instance[1]) if instance else None,
        time=_time(line),
    )


def _sxid(match: re.Match[str], line: Line) -> Sxid:
    message = match["rest"].strip(" ,")
    severity = re.match(r"(Non-)?fatal\b", message, re.IGNORECASE)
    link = re.search(r"\bLink (\d{1,4}) ", message)
    return Sxid(
        pci=match["pci"].lower(),
        sxid=int(match["sxid"]),
        message=message,
        switch=int(match["switch"]) if match["switch"] else None,
        fatal=severity[1] is None if severity else None,
        link=int(link[1]) if link else None,
        time=_time(line),
    )


def _nvidia_faults(lines: list[Line]) -> list[KernelFault]:
    """Faults without an Xid. The line that names the GPU may be one or two lines above the
    fault."""
    faults: dict[tuple[str, str], KernelFault] = {}
    gpu: str | None = None
    time: str | None = None
    for line in lines:
        if _XID.search(line.text):
            gpu = None
            continue
        time = _time(line) or time
        if match := _NVIDIA_GPU.search(line.text):
            gpu = match["pci"].lower()
        kind = _kind(_NVIDIA_FAULTS, line.text)
        # The driver logs one fault in several lines.
        if kind and gpu is not None and (kind, gpu) not in faults:
            faults[kind, gpu] = KernelFault(kind, gpu, _message(line), time)
    return list(faults.values())


def _amd_fault(line: Line) -> KernelFault | None:
    kind = _kind(_AMD_FAULTS, line.text) if "amdgpu" in line.text else None
    if kind is None:
        return None
    gpu = _AMD_GPU.search(line.text)
    return KernelFault(kind, gpu["pci"].lower() if gpu else None, _message(line), _time(line))


def _kind(kinds: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> str | None:
    return next((kind for kind, pattern in kinds if pattern.search(text)), None)


def _message(line: Line) -> str:
    """The line from the driver's name on."""
    start = re.search(r"NVRM:|\[drm|amdgpu", line.text)
    return line.text[start.start() :] if start else line.text.strip()


def _time(line: Line) -> str | None:
    """The time of a line as printed."""
    matches = (p.search(line.text) for p in (_CTIME, _SYSLOG_TIME, _ISO_TIME, _UPTIME))
    return next((match[1] for match in matches if match), None)
