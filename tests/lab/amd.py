"""Stand-ins for AMD's packages: amdgpu as DKMS builds it, and amd-smi.

Names, versions and places are those of repo.radeon.com (amdgpu 30.30.3 and ROCm 7.2.3, for Ubuntu
22.04, which Debian 12 takes too). Contents are simulated, as in `drivers`. The repository keeps an
older amdgpu as well, that of 30.10.
"""

from __future__ import annotations

from .debs import Deb
from .scripts import dkms_scripts

DRIVER, ROCM = "30.30.3", "7.2.3"
OLD_MODULE_VERSION, MODULE_VERSION = "6.14.14", "6.16.13"
OLD_PACKAGE, PACKAGE = (
    f"1:{OLD_MODULE_VERSION}.30100000-2193512.22.04",
    f"1:{MODULE_VERSION}.30300300-2278356.22.04",
)
SUITE = "jammy"


def repositories() -> dict[str, list[Deb]]:
    """The packages of each repository, by its path on the mirror."""
    return {
        f"amd/amdgpu/{DRIVER}/ubuntu": [
            *_driver(OLD_MODULE_VERSION, OLD_PACKAGE),
            *_driver(MODULE_VERSION, PACKAGE),
        ],
        f"amd/rocm/apt/{ROCM}": [_smi()],
    }


def _driver(version: str, package: str) -> list[Deb]:
    dkms = f"{version}-{package.rpartition('-')[2]}"
    source = f"usr/src/amdgpu-{dkms}"
    conf = f'PACKAGE_NAME="amdgpu"\nPACKAGE_VERSION="{dkms}"\nBUILT_MODULE_NAME[0]="amdgpu"\n'
    fields = f"license=GPL and additional rights\nversion={version}\n"
    firmware = {"usr/lib/firmware/updates/amdgpu/gc_9_4_3_rlc.bin": (0o644, bytes(4096))}
    return [
        Deb(
            "amdgpu-dkms",
            package,
            f"dkms (>= 1.95), amdgpu-dkms-firmware (= {package})",
            files={f"{source}/dkms.conf": (0o644, conf), f"{source}/modinfo": (0o644, fields)},
            scripts=dkms_scripts("amdgpu", dkms),
            architecture="all",
        ),
        Deb("amdgpu-dkms-firmware", package, files=firmware, architecture="all"),
    ]


def _smi() -> Deb:
    script = '#!/bin/sh\nexec python3 /usr/lib/lab-gpu/amd_smi.py "$@"\n'
    return Deb(
        "amd-smi-lib",
        f"26.2.2.{ROCM.replace('.', '0')}-81~22.04",
        files={f"opt/rocm-{ROCM}/bin/amd-smi": (0o755, script)},
        links={"opt/rocm": f"rocm-{ROCM}"},
    )
