"""Hosts for tests: what they answer, section by section, of a bare host unless said otherwise."""

import json
from pathlib import Path

from roles.driver import DriverSettings
from roles.driver.decision import DriverRequest
from roles.driver.state import PART, DriverState, parse_state
from roles.engine import EngineNeeds, VllmSettings, engine_needs
from roles.hardware import PART as HARDWARE
from roles.hardware import Gpu, declared_hardware, parse_report
from roles.host import parse_answers
from tests.unit.hardware import hosts as hardware_hosts

KEY_FILE = Path(__file__).with_name("stand-in-key.asc")
KEY_FINGERPRINT = "39E5D1E333EE4F43C16A7D836D6AA5F7D3A25A1E"
NEEDS = engine_needs(VllmSettings())
ROCM_NEEDS = engine_needs(VllmSettings(device="rocm"))
CPU_NEEDS = engine_needs(VllmSettings(device="cpu"))
OLDER_NEEDS = engine_needs(VllmSettings(requirement="vllm==0.19.1"))

DEBIAN = {
    "os": "debian 12 x86_64",
    "kernel": "6.1.0-37-amd64",
    "kernels": "6.1.0-37-amd64",
    "headers": "",
    "packages": "linux-image-6.1.0-37-amd64 6.1.140-1 ii \nlinux-image-amd64 6.1.140-1 ii ",
}
UBUNTU = {
    "os": "ubuntu 24.04 x86_64",
    "kernel": "6.8.0-79-generic",
    "kernels": "6.8.0-79-generic",
    "packages": "linux-image-6.8.0-79-generic 6.8.0-79.79 ii \nlinux-image-generic 6.8.0-79.79 ii ",
}
ROCKY = {
    "os": "rocky 9.6 x86_64",
    "kernel": "5.14.0-570.12.1.el9_6.x86_64",
    "next": "5.14.0-570.12.1.el9_6.x86_64",
    "packages": "kernel 5.14.0-570.12.1.el9_6 ii\nkernel-core 5.14.0-570.12.1.el9_6 ii",
}
# What `output` has where nobody says otherwise.
_BARE = {
    **dict.fromkeys(
        (
            *("kernels", "next", "headers", "packages", "held", "interrupted", "modules"),
            *("open-modules", "amdgpu-modules", "amdgpu-source", "amdgpu-loaded", "library"),
            *("rocm-smi", "kfd", "replicas", "container", "outside", "nouveau-blocked"),
            *("initramfs-old", "nvidia-persistenced", "own-key", "kernel-upgraded"),
            *("amdgpu-upgraded", "sources", "files", "keys"),
        ),
        "",
    ),
    "free": "/dev/sda1 81920000 /\n/dev/sda1 81920000 /\n/dev/sda1 81920000 /",
}
# What the hardware's answer says of a driver, by the names that `output` takes.
_REPORTED = {
    "kernel": "kernel",
    "module": "nvidia_installed",
    "loaded": "nvidia_loaded",
    "loaded-kind": "nvidia_loaded_kind",
    "in-kernel": "modules",
    "secure-boot": "secure_boot",
    "dpkg-audit": "dpkg_audit",
}


def output(*systems: dict[str, str], **parts: str) -> list[str]:
    """What a host answers; later parts replace earlier ones, `_` stands for `-` in a name.

    `os` has the machine at its end; `answers` is the version that nvidia-smi says, `amd-answers`
    how many GPUs amd-smi lists, `switches` are the addresses of NVSwitches.
    """
    message: dict[str, str] = {}
    for system in systems or (DEBIAN,):
        message |= system
    message |= {name.replace("_", "-"): text for name, text in parts.items()}
    own = {name: message.get(name, text) for name, text in _BARE.items()}
    lines = ["", f"@@@ {PART.name}"]
    lines += [line for name, text in own.items() for line in ("", f"@@ {name}", *text.split("\n"))]
    return [*hardware_hosts.output(**_reported(message)), *lines, "", "@@ end"]


def _reported(message: dict[str, str]) -> dict[str, str]:
    """The sections of the hardware's answer."""
    name, _, machine = message["os"].rpartition(" ")
    found = {label: message.get(own, "") for own, label in _REPORTED.items()}
    found |= {"os": name, "machine": machine, "pci": "", "lspci": ""}
    found["reboot_required"] = (
        f"yes\n{message['reboot-required']}" if message.get("reboot-required") else ""
    )
    unit = message.get("nvidia-fabricmanager") or "LoadState=not-found"
    found["fabric_manager"] = f"{unit}\n{message.get('fabric-manager-version', '')}"
    found["pci"] = "\n".join(
        f"{address} 0x068000 0x10de 0x22a3 numa=0 driver=nvidia width=2/2"
        for address in message.get("switches", "").split()
    )
    found |= _nvidia_smi(message) | _amd_smi(message.get("amd-answers", ""))
    return found


def _nvidia_smi(message: dict[str, str]) -> dict[str, str]:
    if message.get("answers"):
        row = hardware_hosts.row(0, driver=message["answers"])
        return {"query": hardware_hosts.query(row)}
    if message.get("nvidia-smi"):
        return {"query": "NVIDIA-SMI has failed", "query_status": "9"}
    return {"query": "", "query_status": "missing"}


def _amd_smi(count: str) -> dict[str, str]:
    if not count:
        return {}
    gpus = [{"gpu": index, "vram": {}} for index in range(int(count))]
    if not gpus:
        return {"amd_smi": "ERROR:root:Unable to get devices", "amd_smi_status": "255"}
    return {"amd_smi": json.dumps({"gpu_data": gpus})}


def state(*systems: dict[str, str], **parts: str) -> DriverState:
    """What is read of that."""
    answers = parse_answers(output(*systems, **parts))
    return parse_state(answers[PART.name], parse_report(answers[HARDWARE.name]))


def installed(version: str = "580.95.05", held: bool = True, **more: str) -> dict[str, str]:
    """A Debian host with a driver of NVIDIA's repository that serves, apart from `more`."""
    names = ("libcuda1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
    packages = "\n".join(f"{name} {version}-1 ii " for name in names)
    unit = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled"
    kernel = DEBIAN["packages"]
    return {
        **DEBIAN,
        "headers": DEBIAN["kernel"],
        "packages": f"{packages}\ndkms 3.0.10-8 ii \n{kernel}",
        "held": "\n".join((*names, "linux-image-6.1.0-37-amd64", "linux-image-amd64"))
        if held
        else "",
        "module": version,
        "modules": f"{DEBIAN['kernel']} {version}",
        "open-modules": DEBIAN["kernel"],
        "loaded": version,
        "in-kernel": "nvidia ",
        "library": version,
        "answers": version,
        "nvidia-smi": "/usr/bin/nvidia-smi",
        "nvidia-persistenced": unit,
        **{name.replace("_", "-"): text for name, text in more.items()},
    }


def gpus(*names: str) -> tuple[Gpu, ...]:
    """GPUs by their declaration: "2x NVIDIA L40S"."""
    return tuple(gpu for name in names for gpu in declared_hardware(name).gpus)


def needs_on(*names: str) -> EngineNeeds:
    """What the engine that is built for these GPUs needs."""
    return ROCM_NEEDS if "AMD" in " ".join(names) else NEEDS


def request(
    *names: str, upgrade: bool = False, needs: object = None, **settings: object
) -> DriverRequest:
    """What is wanted of a host with these GPUs, two L40S unless said."""
    wanted, needs = DriverSettings.model_validate(settings), needs or needs_on(*names)
    return DriverRequest(wanted, needs, gpus(*(names or ("2x NVIDIA L40S",))), upgrade)  # type: ignore[arg-type]
