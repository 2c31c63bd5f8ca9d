"""The repository and packages of a chosen driver on an operating system. Pure.

Sources: NVIDIA's Driver Installation Guide, release 615, 2026-09-09 (compute-only packages of
Debian, Ubuntu and RHEL; from 590 on Ubuntu's packages in NVIDIA's repository have no branch in
their names; module streams NNN-open, NNN-dkms and NNN of RHEL 9); NVIDIA's
yum-packaging-dkms-nvidia (a stream NNN-open holds kmod-nvidia-open-dkms) and gpu-driver-container
(nvidia-fabricmanager has the branch in its name below 580; nvlsm and infiniband-diags go without a
version); packages.ubuntu.com (nvidia-headless-no-dkms-580-server-open, linux-modules-nvidia-…,
nvidia-fabricmanager-580); AMD's amdgpu-docs 30.30.3 (repo.radeon.com/amdgpu, amdgpu-dkms; Debian
takes Ubuntu's packages). Key fingerprints: NVIDIA's forum post on its signing keys (2022) and
repositories that pin them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from roles.driver.choice import Choice
from roles.driver.system import OperatingSystem

NVIDIA_REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos"
AMD_REPOSITORIES = "https://repo.radeon.com"
AMD_DRIVER, AMD_ROCM = "30.30.3", "7.2.3"

_APT_KEY = ("3bf863cc.pub", "EB693B3035CD5710E231E123A4B469963BF863CC")
_NVIDIA_KEYS = {
    "ubuntu22.04": _APT_KEY,
    "ubuntu24.04": _APT_KEY,
    "debian12": _APT_KEY,
    "debian13": ("8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
    "rhel9": ("D42D0685.pub", "610C7B14E068A878070DA4E99CD0A493D42D0685"),
}
_AMD_KEY = ("rocm/rocm.gpg.key", "CA8BB4727A47B4D09B4EE8969386B48A1A693C5C")
_AMD_APT = {
    ("ubuntu", "22.04"): "jammy",
    ("ubuntu", "24.04"): "noble",
    ("debian", "12"): "jammy",
    ("debian", "13"): "noble",
}

# Matches a driver's packages, which are held and versioned together; not container tools.
DRIVER_PACKAGE = re.compile(
    r"(?!.*(?:container|docker))(?:(?:lib|kmod-|firmware-|xserver-xorg-video-|dnf-plugin-)?nvidia[-0-9a-z.+]*"
    r"|libcuda1|libcudadebugger1|libnvcuvid1|libnvoptix1|libnvsdm|cuda-drivers[-0-9a-z]*|nvlsm"
    r"|linux-(?:modules|objects|signatures)-nvidia-.*|amdgpu-dkms[-a-z]*|amdgpu-core|amd-smi-lib)"
    r"(?::[a-z0-9]+)?"
)


@dataclass(frozen=True)
class Repository:
    """A repository of packages: its file, and the key that signs it.

    `check_url` is a file that every such repository has. `key_fingerprint` is None if the user
    supplies the key.
    """

    path: str
    content: str
    url: str
    check_url: str
    key_path: str
    key_url: str
    key_fingerprint: str | None


@dataclass(frozen=True)
class PackagePlan:
    """The packages of a chosen driver.

    `driver` and `fabric` must have the driver's version; `extra` may have any. `preferences` is
    apt's file (path, content) that pins the branch. `stream` is the dnf module stream to enable.
    `epel`: packages of `extra` are in EPEL.
    """

    repository: Repository | None
    driver: tuple[str, ...]
    fabric: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    dkms: bool = False
    preferences: tuple[str, str] | None = None
    stream: str | None = None
    epel: bool = False

    @property
    def versioned(self) -> tuple[str, ...]:
        """The packages that must have one and the same version."""
        return (*self.driver, *self.fabric)


def plan(
    choice: Choice,
    system: OperatingSystem,
    kernel: str,
    mirror: str | None,
    own_key: bool = False,
    kinds: Sequence[str] = (),
) -> PackagePlan:
    """The packages of a chosen driver for a running kernel; `own_key`: the user supplies the key.

    `kinds`: the kinds of kernel that installed packages bring ("generic-hwe-24.04").
    """
    if choice.vendor == "amd":
        return _amd(choice, system, kernel, mirror, own_key)
    if system.family == "rhel":
        return _redhat(choice, system, kernel, mirror, own_key)
    if choice.source == "distribution":
        whole = _ubuntu(choice, system, kernel, mirror, own_key)
        return whole if whole.dkms else _with_signed(whole, choice, kernel, kinds)
    return _nvidia_apt(choice, system, kernel, mirror, own_key)


def upstream(version: str) -> str:
    """NVIDIA's part of a package's version: "580.95.05" of "3:580.95.05-1.el9" or "580.95.05-1"."""
    return version.rpartition(":")[2].partition("-")[0]


def numbers(version: str) -> list[int]:
    """The numbers of a version, as a key that sorts older versions first."""
    return [int(number) for number in re.findall(r"\d{1,18}", version)]


def is_driver(package: str) -> bool:
    """Whether a package belongs to a driver."""
    return DRIVER_PACKAGE.fullmatch(package) is not None


def nvidia_repository(
    system: OperatingSystem, mirror: str | None, own_key: bool = False
) -> Repository:
    """NVIDIA's repository for a system, or the mirror's."""
    distribution = {"ubuntu": "ubuntu" + system.version.replace(".", "")}.get(
        system.id, f"{system.family}{system.release}"
    )
    arch = "sbsa" if system.arch == "aarch64" else system.arch
    url = f"{(mirror or NVIDIA_REPOSITORIES).rstrip('/')}/{distribution}/{arch}"
    name, fingerprint = _NVIDIA_KEYS[f"{system.family}{system.release}"]
    return _repository(
        "nvidia", system, [(url, "/")], f"{url}/{name}", None if own_key else fingerprint
    )


def _repository(
    name: str,
    system: OperatingSystem,
    sources: list[tuple[str, str]],
    key_url: str,
    fingerprint: str | None,
) -> Repository:
    if system.uses_apt:
        key = f"/etc/apt/keyrings/llm-{name}.asc"
        arch = "arm64" if system.arch == "aarch64" else "amd64"
        lines = [f"deb [arch={arch} signed-by={key}] {url} {suite}" for url, suite in sources]
        path = f"/etc/apt/sources.list.d/llm-{name}.list"
        first, suite = sources[0]
        check = f"{first}/" if suite == "/" else f"{first}/dists/{suite.split()[0]}/"
        return Repository(path, _text(lines), first, f"{check}InRelease", key, key_url, fingerprint)
    key = f"/etc/pki/rpm-gpg/RPM-GPG-KEY-llm-{name}"
    lines = []
    for number, (url, _) in enumerate(sources):
        title = f"llm-{name}{f'-{number}' if number else ''}"
        lines += [f"[{title}]", f"name={title}", f"baseurl={url}", "enabled=1", "gpgcheck=1"]
        lines += [f"gpgkey=file://{key}", ""]
    first = sources[0][0]
    check = f"{first}/repodata/repomd.xml"
    path = f"/etc/yum.repos.d/llm-{name}.repo"
    return Repository(path, _text(lines[:-1]), first, check, key, key_url, fingerprint)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in ("# Written by pyinfra-llm.", *lines))


def _nvidia_apt(
    choice: Choice, system: OperatingSystem, kernel: str, mirror: str | None, own_key: bool
) -> PackagePlan:
    assert choice.branch is not None
    open_ = choice.modules == "open"
    if system.family == "debian":
        modules = "nvidia-kernel-open-dkms" if open_ else "nvidia-kernel-dkms"
        driver = ("nvidia-driver-cuda", modules, "nvidia-persistenced")
    elif choice.branch >= 590:
        modules = "nvidia-dkms-open" if open_ else "nvidia-dkms"
        driver = ("libnvidia-compute", modules, "nvidia-persistenced")
    else:
        end = f"{choice.branch}-open" if open_ else str(choice.branch)
        # nvidia-smi is in the utils, the persistence daemon in the compute-utils.
        driver = tuple(
            f"{name}-{end if name == 'nvidia-dkms' else choice.branch}"
            for name in ("libnvidia-compute", "nvidia-dkms", "nvidia-utils", "nvidia-compute-utils")
        )
    return PackagePlan(
        repository=nvidia_repository(system, mirror, own_key),
        driver=driver,
        fabric=_fabric_manager(choice, distribution=False),
        extra=("dkms", *_nvlsm(choice, system, kernel)),
        headers=(f"linux-headers-{kernel}",),
        kernel=kernel_packages(system, kernel),
        dkms=True,
        preferences=("/etc/apt/preferences.d/llm-nvidia", _preferences(choice)),
    )


def _preferences(choice: Choice) -> str:
    """apt preferences that pin every package of the driver to the branch or the version.

    Without them dependencies would come from the newest branch. NVIDIA's own packages for this,
    nvidia-driver-pinning-NNN, do not exist for every branch and system.
    """
    packages = "/nvidia/ /^lib(cuda1|cudadebugger1|nvcuvid1|nvoptix1|nvsdm|xnvctrl0)$/"
    version = f"{choice.version}-*" if choice.version else f"{choice.branch}.*"
    lines = (f"Package: {packages}", f"Pin: version {version}", "Pin-Priority: 1001")
    return _text(lines)


def _ubuntu(
    choice: Choice, system: OperatingSystem, kernel: str, mirror: str | None, own_key: bool
) -> PackagePlan:
    server = f"{choice.branch}-server"
    end = f"{server}-open" if choice.modules == "open" else server
    dkms = choice.packaging == "dkms"
    driver = (f"nvidia-headless-no-dkms-{end}", f"nvidia-utils-{server}")
    return PackagePlan(
        # nvlsm is in NVIDIA's repository alone; nothing else is taken from there.
        repository=nvidia_repository(system, mirror, own_key) if choice.nvlsm else None,
        driver=(*driver, f"nvidia-dkms-{end}") if dkms else driver,
        fabric=_fabric_manager(choice, distribution=True),
        extra=_nvlsm(choice, system, kernel),
        headers=(f"linux-headers-{kernel}",) if dkms else (),
        kernel=kernel_packages(system, kernel),
        dkms=dkms,
        preferences=("/etc/apt/preferences.d/llm-nvidia", _only_nvlsm()) if choice.nvlsm else None,
    )


def _with_signed(
    whole: PackagePlan, choice: Choice, kernel: str, kinds: Sequence[str]
) -> PackagePlan:
    """Add the signed modules for the running kernel, and the packages that follow newer kernels.

    Their version is the kernel's. Packages of another kind would bring a kernel of that kind.
    """
    end = f"{choice.branch}-server{'-open' if choice.modules == 'open' else ''}"
    own = _flavour(kernel)
    fitting = [kind for kind in kinds if kind == own or kind.startswith(f"{own}-")] or [own]
    signed = tuple(f"linux-modules-nvidia-{end}-{kind}" for kind in (kernel, *fitting))
    return replace(whole, extra=(*signed, *whole.extra))


def is_of_one_kernel(package: str) -> bool:
    """Whether a package belongs to one kernel version ("linux-image-6.8.0-79-generic")."""
    return re.search(r"-[0-9]+\.[0-9]+\.[0-9]+", package) is not None


def _only_nvlsm() -> str:
    """apt preferences that take only nvlsm from NVIDIA's repository, identified by its label."""
    label = "Pin: release l=NVIDIA CUDA"
    lines = ("Package: *", label, "Pin-Priority: -1", "")
    return _text((*lines, "Package: nvlsm", label, "Pin-Priority: 500"))


def _redhat(
    choice: Choice, system: OperatingSystem, kernel: str, mirror: str | None, own_key: bool
) -> PackagePlan:
    dkms = choice.packaging == "dkms"
    ending = {"open": "-open", "proprietary": "-dkms"}[choice.modules] if dkms else ""
    modules = "kmod-nvidia-open-dkms" if choice.modules == "open" else "kmod-nvidia-latest-dkms"
    return PackagePlan(
        repository=nvidia_repository(system, mirror, own_key),
        # Without DKMS the libraries depend on the modules that fit the kernel.
        driver=("nvidia-driver-cuda", *((modules,) if dkms else ()), "nvidia-persistenced"),
        fabric=_fabric_manager(choice, distribution=False, redhat=True),
        extra=(*(("dkms",) if dkms else ()), *_nvlsm(choice, system, kernel)),
        headers=(f"kernel-devel-{kernel}",) if dkms else (),
        kernel=kernel_packages(system, kernel),
        dkms=dkms,
        stream=f"nvidia-driver:{choice.branch}{ending}",
        epel=dkms,
    )


def _fabric_manager(choice: Choice, distribution: bool, redhat: bool = False) -> tuple[str, ...]:
    if not choice.fabric_manager or choice.branch is None:
        return ()
    if distribution:
        return (f"nvidia-fabricmanager-{choice.branch}",)
    if choice.branch >= 580:
        return ("nvidia-fabricmanager",)
    return ("nvidia-fabric-manager",) if redhat else (f"nvidia-fabricmanager-{choice.branch}",)


def _nvlsm(choice: Choice, system: OperatingSystem, kernel: str) -> tuple[str, ...]:
    """The subnet manager of NVLink 5, which the fabric manager starts, and the tool that it
    uses."""
    if not choice.nvlsm:
        return ()
    module = (f"linux-modules-extra-{kernel}",) if system.family == "ubuntu" else ()
    library = "libibumad" if system.family == "rhel" else "libibumad3"
    return ("nvlsm", "infiniband-diags", library, *module)


def kernel_packages(system: OperatingSystem, kernel: str) -> tuple[str, ...]:
    """The packages that bring the newest kernel of the running one's kind, and its headers."""
    if system.family == "rhel":
        return ("kernel", "kernel-core", "kernel-modules", "kernel-devel-matched")
    flavour = _flavour(kernel)
    return (f"linux-image-{flavour}", f"linux-headers-{flavour}")


def _flavour(kernel: str) -> str:
    """The kind of a kernel: "generic" of 6.8.0-79-generic, "cloud-amd64" of 6.1.0-9-cloud-amd64."""
    match = re.fullmatch(r"[0-9.]+(?:-[0-9]+|\+(?:deb|bpo)[0-9.]*)*-(.+)", kernel)
    return re.sub(r"^(?:[0-9.]+-)+", "", match[1]) if match else "generic"


def _amd(
    choice: Choice, system: OperatingSystem, kernel: str, mirror: str | None, own_key: bool
) -> PackagePlan:
    base = (mirror or AMD_REPOSITORIES).rstrip("/")
    key, fingerprint = _AMD_KEY
    if system.uses_apt:
        suite = f"{_AMD_APT[system.family or '', system.release]} main"
        sources = [
            (f"{base}/amdgpu/{AMD_DRIVER}/ubuntu", suite),
            (f"{base}/rocm/apt/{AMD_ROCM}", suite),
        ]
        headers = [f"linux-headers-{kernel}"]
        if system.family == "ubuntu":
            headers.append(f"linux-modules-extra-{kernel}")
    else:
        sources = [
            (f"{base}/amdgpu/{AMD_DRIVER}/el/{system.version}/main/x86_64", ""),
            (f"{base}/rocm/el{system.release}/{AMD_ROCM}/main", ""),
        ]
        headers = [f"kernel-devel-{kernel}"]
    return PackagePlan(
        repository=_repository(
            "amd", system, sources, f"{base}/{key}", None if own_key else fingerprint
        ),
        driver=("amdgpu-dkms",),
        extra=("amd-smi-lib",),
        headers=tuple(headers),
        kernel=kernel_packages(system, kernel),
        dkms=True,
        epel=not system.uses_apt,
    )
