"""Stand-ins for what a driver's installation takes from Debian and from NVIDIA; AMD's: `amd`.

Names, versions and dependencies are those of NVIDIA's repository for Debian 12 (developer.download.
nvidia.com/compute/cuda/repos/debian12/x86_64): every library and tool needs exactly its own version
of the others, while the kernel modules (`nvidia-kernel-open-dkms`, `nvidia-kernel-dkms`) can have
another one, so upgrades can stop half-way. Neither blocks nouveau nor enables a service: that is
the installer's work. Contents are simulated; dpkg, apt, depmod, modinfo and the signature are real.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from . import amd, debs
from .debs import Deb
from .paths import HERE, cached, sh
from .scripts import dkms_scripts, script
from .standins.dkms import SIGNED, module_file, source_version

VERSIONS = ("580.95.05", "580.105.08", "590.48.01")
KERNEL = os.uname().release
KERNEL_VERSION = "6.1.0-lab1"
NEWER_KERNEL = re.sub(r"\d+", lambda found: str(int(found[0]) + 1), KERNEL, count=1)
"""A kernel that the repository has and no host runs: what an unwanted upgrade would bring."""
PATH_OF_DRIVERS = "cuda/repos/debian12/x86_64"
MADE_BY = ("debs.py", "scripts.py", "amd.py", "drivers.py")
STANDINS = HERE / "standins"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem")

POSTINST_HEADERS = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
! command -v dkms >/dev/null || dkms autoinstall -k @KERNEL@
"""
POSTINST_IMAGE = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
depmod @KERNEL@
update-initramfs -c -k @KERNEL@
"""
DAEMON_UNIT = """[Unit]
Description=@DESCRIPTION@
After=network.target

[Service]
Type=forking
PIDFile=/run/@NAME@.pid
ExecStart=/usr/bin/@PROGRAM@

[Install]
WantedBy=multi-user.target
"""


def repositories() -> Path:
    """The folder with Debian's stand-ins (`debian`) and NVIDIA's (PATH_OF_DRIVERS), signed."""
    debs.make_repository_key()
    sources = [*sorted(STANDINS.glob("*")), *(HERE / name for name in MADE_BY)]
    texts = [source.read_text() for source in sources if source.is_file()]
    recipe = repr((KERNEL, texts, debs.REPOSITORY_KEY.read_text()))
    return cached("drivers", recipe, _make_repositories)


def _make_repositories(partial: Path) -> None:
    debs.build_repository(debian_debs(), partial / "debian")
    drivers = partial / PATH_OF_DRIVERS
    found = [deb for version in VERSIONS for deb in driver_debs(version)]
    found += [pinning(name) for name in (*VERSIONS, *sorted({v.split(".")[0] for v in VERSIONS}))]
    found.append(Deb("nvlsm", "2025.06.6-1", files={"opt/nvidia/nvlsm/sbin/nvlsm": (0o755, "")}))
    debs.build_repository(found, drivers)
    debs.sign_repository(drivers, "NVIDIA", "NVIDIA CUDA")
    for path, packages in amd.repositories().items():
        suite = debs.build_suite(packages, partial / path, amd.SUITE)
        debs.sign_repository(suite, "repo.radeon.com", "AMD", amd.SUITE)


def installed_debs(repositories: Path) -> list[Path]:
    """The packages that a bare host has already: its kernel and what makes its initramfs."""
    names = ("initramfs-tools", f"linux-image-{KERNEL}", "linux-image-amd64")
    found = [f"{name}_{KERNEL_VERSION}_*.deb" for name in names]
    return [next((repositories / "debian").glob(pattern)) for pattern in found]


def debian_debs() -> list[Deb]:
    """The kernel, a newer one, its headers, dkms and initramfs-tools."""
    found = [
        Deb(
            "dkms",
            "3.0.10-8+deb12u1",
            "kmod",
            files={
                "usr/sbin/dkms": (0o755, (STANDINS / "dkms.py").read_text()),
                "etc/dkms/framework.conf": (0o644, ""),
            },
            architecture="all",
        ),
        Deb(
            "initramfs-tools",
            KERNEL_VERSION,
            "kmod",
            files={
                "usr/sbin/update-initramfs": (0o755, (STANDINS / "update-initramfs").read_text())
            },
            architecture="all",
        ),
    ]
    for kernel, version in ((KERNEL, KERNEL_VERSION), (NEWER_KERNEL, f"{KERNEL_VERSION}+1")):
        found += kernel_debs(kernel, version)
    return found


def kernel_debs(kernel: str, version: str) -> list[Deb]:
    """A kernel's image with nouveau and amdgpu, its headers, and what draws in the newest."""
    image, headers = f"linux-image-{kernel}", f"linux-headers-{kernel}"
    fields = {"license": "GPL and additional rights", "name": "nouveau"}
    nouveau = module_file(fields | {"vermagic": f"{kernel} SMP"}) + SIGNED
    fields |= {"name": "amdgpu", "srcversion": source_version("amdgpu", "")}
    amdgpu = module_file(fields | {"vermagic": f"{kernel} SMP"}) + SIGNED
    base = f"lib/modules/{kernel}"
    graphics = f"{base}/kernel/drivers/gpu/drm"
    files = {
        f"boot/vmlinuz-{kernel}": (0o644, "a kernel\n"),
        f"boot/config-{kernel}": (0o644, "CONFIG_MODULES=y\n"),
        f"{graphics}/nouveau/nouveau.ko": (0o644, nouveau),
        f"{graphics}/amd/amdgpu/amdgpu.ko": (0o644, amdgpu),
    } | {f"{base}/modules.{name}": (0o644, "") for name in ("order", "builtin")}
    source = f"usr/src/{headers}/Makefile"
    return [
        Deb(
            image,
            version,
            "initramfs-tools, kmod",
            files=files,
            scripts={"postinst": script(POSTINST_IMAGE, KERNEL=kernel)},
        ),
        Deb(
            headers,
            version,
            files={source: (0o644, "")},
            links={f"{base}/build": f"/usr/src/{headers}"},
            scripts={"postinst": script(POSTINST_HEADERS, KERNEL=kernel)},
        ),
        Deb("linux-image-amd64", version, f"{image} (= {version})"),
        Deb("linux-headers-amd64", version, f"{headers} (= {version})"),
    ]


def driver_debs(version: str) -> list[Deb]:
    """All packages of one driver version."""
    full = f"{version}-1"

    def same(*names: str) -> str:
        return ", ".join(f"{name} (= {full})" for name in names)

    libraries = {
        "libnvidia-ml1": ("libnvidia-ml.so", ""),
        "libnvidia-ptxjitcompiler1": ("libnvidia-ptxjitcompiler.so", ""),
        "libnvidia-cfg1": ("libnvidia-cfg.so", ""),
        "libcuda1": ("libcuda.so", same("libnvidia-ptxjitcompiler1")),
    }
    found = [library(name, version, *rest) for name, rest in libraries.items()]
    smi = f'#!/bin/sh\nexec python3 /usr/lib/lab-gpu/installed_smi.py {version} "$@"\n'
    found += [
        Deb("firmware-nvidia-gsp", full, files=firmware(version)),
        Deb("nvidia-kernel-support", full, f"nvidia-modprobe (>= {full})"),
        Deb("nvidia-modprobe", full, files={"usr/bin/nvidia-modprobe": (0o755, MODPROBE)}),
        Deb(
            "nvidia-driver-cuda",
            full,
            same("libcuda1", "libnvidia-ml1", "nvidia-persistenced", "nvidia-modprobe"),
            fields={
                "Recommends": f"nvidia-kernel-dkms (= {full}) | nvidia-kernel-open-dkms (= {full})"
            },
            files={"usr/bin/nvidia-smi": (0o755, smi)},
        ),
        daemon("nvidia-persistenced", version, same("libnvidia-cfg1")),
        daemon("nvidia-fabricmanager", version, ""),
        *(module_deb(flavour, version) for flavour in ("nvidia-kernel-open", "nvidia-kernel")),
        Deb("nvidia-open", full, same("nvidia-kernel-open-dkms", "nvidia-driver-cuda")),
        Deb("cuda-drivers", full, same("nvidia-kernel-dkms", "nvidia-driver-cuda")),
    ]
    return found


MODPROBE = "#!/bin/sh\n# Creates device nodes; the lab's GPUs have none.\nexit 0\n"


def library(name: str, version: str, file: str, depends: str) -> Deb:
    """A library's package: a file with the version in its name, and the link to it."""
    path = f"{LIBRARIES}/{file}"
    content = libcuda(version) if name == "libcuda1" else f"{name} {version}\n"
    return Deb(
        name,
        f"{version}-1",
        depends,
        files={f"{path}.{version}": (0o644, content)},
        links={f"{path}.1": f"{file}.{version}"},
    )


def libcuda(version: str) -> bytes:
    """CUDA's own library, which asks the lab's GPUs."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "libcuda.so")
        # Without the C library's headers: a compiler alone is enough.
        options = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcuda.so.1"]
        source = STANDINS / "libcuda.c"
        sh(["gcc", *options, f'-DVERSION="{version}"', "-o", made, source])
        return made.read_bytes()


def firmware(version: str) -> dict[str, tuple[int, str | bytes]]:
    return {f"usr/lib/firmware/nvidia/{version}/gsp_ga10x.bin": (0o644, bytes(4096))}


def daemon(name: str, version: str, depends: str) -> Deb:
    """A package with a daemon and its unit, which is not enabled."""
    program = {"nvidia-fabricmanager": "nv-fabricmanager"}.get(name, name)
    unit = script(
        DAEMON_UNIT,
        DESCRIPTION={"nv-fabricmanager": "NVIDIA fabric manager service"}.get(
            program, "NVIDIA Persistence Daemon"
        ),
        NAME=f"{name}/{program}",
        PROGRAM=program,
    )
    text = script((STANDINS / program).read_text(), VERSION=version)
    reload = "#!/bin/sh\nset -e\n[ ! -d /run/systemd/system ] || systemctl daemon-reload\n"
    return Deb(
        name,
        f"{version}-1",
        depends,
        files={
            f"usr/bin/{program}": (0o755, text),
            f"lib/systemd/system/{name}.service": (0o644, unit),
        },
        scripts={"postinst": reload},
    )


def module_deb(flavour: str, version: str) -> Deb:
    """The kernel modules as source for dkms, open or proprietary; never both."""
    is_open = flavour == "nvidia-kernel-open"
    other = "nvidia-kernel-dkms" if is_open else "nvidia-kernel-open-dkms"
    names = "".join(f'BUILT_MODULE_NAME[{i}]="{name}"\n' for i, name in enumerate(MODULES))
    conf = f'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="{version}"\nAUTOINSTALL="yes"\n{names}'
    licence = "Dual MIT/GPL" if is_open else "NVIDIA"
    source = f"usr/src/nvidia-{version}"
    needed = [
        f"{name} (= {version}-1)" for name in ("firmware-nvidia-gsp", "nvidia-kernel-support")
    ]
    return Deb(
        f"{flavour}-dkms",
        f"{version}-1",
        ", ".join(["dkms (>= 3.0)", *needed]),
        fields={"Conflicts": other, "Replaces": other},
        files={
            f"{source}/dkms.conf": (0o644, conf),
            f"{source}/modinfo": (0o644, f"license={licence}\nsupported=external\n"),
            # As much as a small disk notices: the real source has 90 MB.
            f"{source}/nv-kernel.o_binary": (0o644, os.urandom(1 << 20)),
        },
        scripts=dkms_scripts("nvidia", version),
    )


def pinning(wanted: str) -> Deb:
    """The package that keeps apt on a branch (`580`) or a version (`580.95.05`)."""
    name = f"nvidia-driver-pinning-{wanted}"
    version = (
        f"{wanted}-1"
        if wanted in VERSIONS
        else max((v for v in VERSIONS if v.startswith(f"{wanted}.")), key=VERSIONS.index) + "-1"
    )
    others = [f"nvidia-driver-pinning-{v}" for v in (*VERSIONS, "580", "590") if v != wanted]
    packages = " ".join(sorted({deb.name for deb in driver_debs(VERSIONS[0])}))
    pattern = f"{wanted}-*" if wanted in VERSIONS else f"{wanted}.*"
    text = f"Package: {packages}\nPin: version {pattern}\nPin-Priority: 1001\n"
    return Deb(
        name,
        version,
        fields={"Conflicts": ", ".join(others)},
        files={f"etc/apt/preferences.d/{name}": (0o644, text)},
        architecture="all",
    )
