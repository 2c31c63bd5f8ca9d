"""Hosts for tests: what `ask.sh` prints, part by part, of a bare host unless said otherwise."""

from pathlib import Path

from roles.driver import DriverSettings
from roles.driver.decision import Request
from roles.driver.state import DriverState, parse_state
from roles.engine import EngineNeeds, EngineSettings, engine_needs
from roles.hardware import Gpu, declared_hardware

KEY_FILE = Path(__file__).with_name("stand-in-key.asc")
KEY_FINGERPRINT = "39E5D1E333EE4F43C16A7D836D6AA5F7D3A25A1E"
NEEDS = engine_needs(EngineSettings())
ROCM_NEEDS = engine_needs(EngineSettings(device="rocm"))
CPU_NEEDS = engine_needs(EngineSettings(device="cpu"))
OLDER_NEEDS = engine_needs(EngineSettings(requirement="vllm==0.19.1"))

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
            *("os", "kernel", "kernels", "next", "headers", "packages", "held", "interrupted"),
            *(
                "module",
                "modules",
                "amdgpu-modules",
                "loaded-kind",
                "amdgpu-source",
                "amdgpu-loaded",
                "loaded",
                "in-kernel",
            ),
            *("library", "answers", "amd-answers", "outside", "nouveau-blocked", "initramfs-old"),
            *("nvidia-persistenced", "nvidia-fabricmanager", "fabric-manager-version", "switches"),
            *("secure-boot", "own-key", "reboot-required", "kernel-upgraded", "sources", "files"),
            *(
                "amdgpu-upgraded",
                "keys",
                "nvidia-smi",
                "rocm-smi",
                "kfd",
                "replicas",
                "open-modules",
                "container",
            ),
        ),
        "",
    ),
    "free": "/dev/sda1 81920000 /\n/dev/sda1 81920000 /\n/dev/sda1 81920000 /",
}


def output(*systems: dict[str, str], **parts: str) -> list[str]:
    """The script's output; later parts replace earlier ones, `_` stands for `-` in a name."""
    told = dict(_BARE)
    for system in systems or (DEBIAN,):
        told |= system
    told |= {name.replace("_", "-"): text for name, text in parts.items()}
    lines = [line for name, text in told.items() for line in ("", f"@@ {name}", *text.split("\n"))]
    return [*lines, "", "@@ end"]


def state(*systems: dict[str, str], **parts: str) -> DriverState:
    """What is read of that."""
    return parse_state(output(*systems, **parts))


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
) -> Request:
    """What is wanted of a host with these GPUs, two L40S unless said."""
    wanted, needs = DriverSettings.model_validate(settings), needs or needs_on(*names)
    return Request(wanted, needs, gpus(*(names or ("2x NVIDIA L40S",))), upgrade)  # type: ignore[arg-type]
