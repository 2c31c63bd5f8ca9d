"""`nvidia-smi -L`: the GPUs of a host with their MIG devices."""

import re
from dataclasses import dataclass, replace

from roles.hardware.outputs.record import GpuRecord, MigDevice
from roles.hardware.outputs.smi_error import is_message
from roles.hardware.outputs.text import (
    MAX_GPUS,
    MAX_NAME_LENGTH,
    MAX_SLICES,
    Line,
    OutputError,
    read_lines,
)
from roles.hardware.outputs.values import is_absent, is_failure

_GPU = re.compile(r"\s*GPU ([0-9]{1,4}): (\S.*)")
_IDENTITY = re.compile(r"(UUID|S/N): ([^()]*)\)")
_MIG = re.compile(r"\s*MIG (\S+)\s+Device\s+([0-9]{1,4}): \(UUID: ([^()]*)\)")
# Before driver 470 a MIG device's UUID names its GPU and the ids of its two instances.
_OLD_MIG_UUID = re.compile(r"MIG-GPU-[^/]+/([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True)
class SmiList:
    """The GPUs in the order of their lines; `messages` are lines of error or warning."""

    gpus: tuple[GpuRecord, ...]
    messages: tuple[str, ...] = ()


def parse_smi_list(text: str) -> SmiList:
    """Read whole GPUs and MIG devices, with their UUIDs in the old or the new form.

    OutputError for text without a GPU, a line of anything else, or a GPU listed twice.
    """
    gpus: list[GpuRecord] = []
    messages: list[str] = []
    for line in read_lines(text):
        gpu, device = list_gpu(line.text), list_mig_device(line.text)
        if is_message(line.text):
            messages.append(line.text.strip())
        elif gpu is not None:
            _check_new_index(gpus, gpu, line)
            gpus.append(gpu)
        elif device is not None and gpus and len(gpus[-1].mig_devices) < MAX_SLICES:
            gpus[-1] = with_mig_device(gpus[-1], device)
        else:
            raise OutputError("expected a GPU or MIG device as nvidia-smi -L prints it", line)
    if not gpus:
        raise OutputError("no GPU as nvidia-smi -L prints it: is this its output?")
    return SmiList(tuple(gpus), tuple(messages))


def list_gpu(text: str) -> GpuRecord | None:
    """The GPU of a line such as "GPU 0: NVIDIA H200 (UUID: GPU-…)", None for any other line."""
    match = _GPU.fullmatch(text)
    if match is None:
        return None
    index, rest = match.groups()
    name, _, last = rest.rpartition("(")
    identity = _IDENTITY.fullmatch(last) if name[-1:].isspace() else None
    name = name.rstrip() if identity else rest
    if is_failure(name):
        return GpuRecord(index=int(index), unreadable=(f"name: {name}",))
    if identity is None or len(name) > MAX_NAME_LENGTH:
        return None
    kind, uuid = identity.groups()
    failed = (f"uuid: {uuid}",) if is_failure(uuid) else ()
    known = uuid if kind == "UUID" and not failed and not is_absent(uuid) else None
    return GpuRecord(index=int(index), name=name, uuid=known, unreadable=failed)


def list_mig_device(text: str) -> MigDevice | None:
    """The device of a line such as "  MIG 1g.10gb  Device  2: (UUID: MIG-…)"."""
    match = _MIG.fullmatch(text)
    if match is None:
        return None
    profile, index, uuid = match.groups()
    old = _OLD_MIG_UUID.fullmatch(uuid)
    return MigDevice(
        index=int(index),
        profile=profile,
        uuid=uuid,
        gpu_instance_id=int(old[1]) if old else None,
        compute_instance_id=int(old[2]) if old else None,
    )


def with_mig_device(gpu: GpuRecord, device: MigDevice) -> GpuRecord:
    """The GPU with one more MIG device, which says that its MIG mode is on."""
    return replace(gpu, mig_devices=(*gpu.mig_devices, device), mig_mode=True)


def _check_new_index(gpus: list[GpuRecord], gpu: GpuRecord, line: Line) -> None:
    if gpu.index in {known.index for known in gpus}:
        raise OutputError("this GPU is listed twice: give one output at a time", line)
    if len(gpus) == MAX_GPUS:
        raise OutputError(f"more than {MAX_GPUS} GPUs", line)
