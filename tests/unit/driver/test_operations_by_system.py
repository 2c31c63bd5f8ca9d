"""What the operations do on Ubuntu, on RHEL's family, and with AMD's cards."""

import base64
from typing import Any

import pytest

from roles.driver import scripts
from roles.driver.packages import nvidia_repository
from roles.host import HostFile

from .hosts import KEY_FILE, ROCKY, UBUNTU, request, state
from .operating import APT, MIRROR, STEPS, Host, available, run


def test_an_amdgpu_that_is_too_old_for_its_cards_is_upgraded():
    packages = "amdgpu-dkms 1:6.3.6-1 ii \namd-smi-lib 26 ii "
    same = {"amdgpu_source": "A5", "amdgpu_loaded": "A5", "in_kernel": "amdgpu "}
    module = f"{UBUNTU['kernel']} /lib/modules/x/updates/dkms/amdgpu.ko"
    seen = state(UBUNTU, packages=packages, amdgpu_modules=module, headers=UBUNTU["kernel"], **same)
    offered = {"amdgpu-dkms": ["1:6.16.13-1"], "amd-smi-lib": ["26"]}
    names = "linux-headers-6.8.0-79-generic", "linux-modules-extra-6.8.0-79-generic"
    host = Host(seen, AvailablePackages=available(offered | {name: ["1"] for name in names}))
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.startswith("echo 1:6.16.13-1 >/run/llm-amdgpu-upgraded\n")
    assert "amdgpu-dkms=1:6.16.13-1" in script and "amd-smi-lib" not in script
    # Headers may be there without the rest of what it takes.
    assert f"{APT} linux-modules-extra-6.8.0-79-generic" in script
    # Where that is the newest, nothing is done.
    for other in ("1:6.3.6-1", "1:6.3.5-9"):
        newest = Host(seen, AvailablePackages=available(offered | {"amdgpu-dkms": [other]}))
        assert run(newest, request("8x AMD Instinct MI300X", upgrade=True), "installed") == []


UBUNTU_OFFERED = {
    name: ["580.95.05-0ubuntu0.24.04.1"]
    for name in (
        *("nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"),
        "nvidia-dkms-580-server-open",
    )
} | {"linux-headers-6.8.0-79-generic": ["6.8.0-79.79"]}


SIGNED = {
    f"linux-modules-nvidia-580-server-open-{end}": ["6.8.0-79.79"]
    for end in ("6.8.0-79-generic", "generic")
}


def ubuntu(
    offered: dict[str, list[str]],
    secure_boot: str = "SecureBoot disabled",
    refusal: str | None = None,
    **settings: Any,
):
    seen = state(UBUNTU, secure_boot=secure_boot)
    host = Host(seen, AvailablePackages=available(offered), Refusal=refusal)
    return run(host, request(**settings), *STEPS[:5])


def test_ubuntu_gets_the_signed_modules_of_its_own_repository():
    (script,) = ubuntu(UBUNTU_OFFERED | SIGNED, "SecureBoot enabled")
    assert script.splitlines()[0] == (
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-utils-580-server=580.95.05-0ubuntu0.24.04.1 "
        "linux-modules-nvidia-580-server-open-6.8.0-79-generic "
        "linux-modules-nvidia-580-server-open-generic"
    )


def test_ubuntu_builds_modules_where_there_are_none_for_the_kernel():
    (script,) = ubuntu(UBUNTU_OFFERED)
    assert script.splitlines()[:2] == [
        f"{APT} linux-headers-6.8.0-79-generic",
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-utils-580-server=580.95.05-0ubuntu0.24.04.1 "
        "nvidia-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1",
    ]
    for more in ({"secure_boot": "SecureBoot enabled"}, {"packaging": "precompiled"}):
        (error,) = ubuntu(UBUNTU_OFFERED, **more)
        assert error.startswith(
            "driver: the distribution has no signed modules for kernel 6.8.0-79-generic "
        )


# The modules of a kernel that is not current fit the driver of their time.
REFUSAL = "linux-modules-nvidia-580-server-open-6.8.0-79-generic : Depends: nvidia-kernel-common"


def test_modules_are_built_where_the_signed_ones_fit_an_older_driver():
    (script,) = ubuntu(UBUNTU_OFFERED | SIGNED, refusal=REFUSAL)
    assert script.splitlines()[1].endswith(
        " nvidia-dkms-580-server-open=580.95.05-0ubuntu0.24.04.1"
    )
    for more in ({"secure_boot": "SecureBoot enabled"}, {"packaging": "precompiled"}):
        (error,) = ubuntu(UBUNTU_OFFERED | SIGNED, refusal=REFUSAL, **more)
        assert REFUSAL in error
        assert "(apt-get install linux-image-generic linux-headers-generic), reboot, and" in error


def signed(version: str = "580.95.05", kind: str = "generic", **more: str) -> dict[str, str]:
    """An Ubuntu host that serves with the distribution's signed modules."""
    kernel = UBUNTU["kernel"]
    end = "580-server-open"
    names = [f"{name} {version}-0ubuntu1 ii " for name in UBUNTU_OFFERED if "dkms-580" not in name]
    names = [name for name in names if not name.startswith("linux")]
    names.append(f"nvidia-headless-no-dkms-{end} {version}-0ubuntu1 ii ")
    modules = (f"linux-modules-nvidia-{end}-{kernel}", f"linux-modules-nvidia-{end}-{kind}")
    names += [f"{name} 6.8.0-79.79 ii " for name in (*modules, f"linux-image-{kind}")]
    return {
        **UBUNTU,
        "packages": "\n".join([*names, f"linux-image-{kernel} 6.8.0-79.79 ii "]),
        "nvidia-smi": "/usr/bin/nvidia-smi",
        **{"module": version, "modules": f"{kernel} {version}", "loaded": version},
        **{"library": version, "answers": version, "in-kernel": "nvidia "},
        **{name.replace("_", "-"): text for name, text in more.items()},
    }


NEWER = {
    name: ["580.105.08-0ubuntu1"]
    for name in ("nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server")
}


@pytest.mark.parametrize("kind", ["generic", "generic-hwe-24.04"])
def test_signed_modules_are_upgraded_with_kernel_and_driver(kind: str):
    modules = f"linux-modules-nvidia-580-server-open-{kind}"
    offered = NEWER | {modules: ["6.8.0-85.85"], f"linux-image-{kind}": ["6.8.0-85.85"]}
    host = Host(state(signed(kind=kind)), AvailablePackages=available(offered), Refusal=None)
    (script,) = run(host, request(upgrade=True), "installed")
    lines = script.splitlines()
    # One go: the modules of one kernel fit one version of the driver.
    assert lines[0] == (
        f"{APT} nvidia-headless-no-dkms-580-server-open=580.105.08-0ubuntu1 "
        f"nvidia-utils-580-server=580.105.08-0ubuntu1 {modules} linux-image-{kind}"
    )
    assert "/run/llm-kernel-upgraded" in lines[1]
    assert "for kernel $n, which boots next" in lines[-1]


def test_a_newer_driver_for_the_same_kernel_comes_with_its_modules():
    ends = ("6.8.0-79-generic", "generic")
    modules = {f"linux-modules-nvidia-580-server-open-{end}": ["6.8.0-79.79+1"] for end in ends}
    host = Host(state(signed()), AvailablePackages=available(NEWER | modules), Refusal=None)
    (script,) = run(host, request(upgrade=True), "installed")
    assert script.splitlines()[0].endswith(" ".join(["", *modules]))
    host = Host(
        state(signed()), AvailablePackages=available(NEWER | modules), Refusal="does not fit"
    )
    # Signed modules are never given up for built ones.
    (error,) = run(host, request(upgrade=True), "installed")
    assert "(does not fit); upgrade the kernel (apt-get install linux-image-generic" in error


def test_modules_that_were_built_stay_so():
    names = {**UBUNTU_OFFERED, "dkms": [""]}
    packages = "\n".join(f"{name} {(v or ['1'])[0] or 1} ii " for name, v in names.items())
    seen = state(
        UBUNTU,
        packages=packages,
        module="580.95.05",
        modules="6.8.0-79-generic 580.95.05",
        nouveau_blocked="/usr/lib/modprobe.d/nvidia.conf",
    )
    assert run(Host(seen), request(), *STEPS[:5]) == []


def test_rocky_gets_a_stream_with_epel_and_version_locks():
    kernel = "5.14.0-570.12.1.el9_6.x86_64"
    repository = nvidia_repository(state(ROCKY).system, "http://m/repos", own_key=True)
    known = {
        "files": f"{HostFile(repository.path, repository.content).state} {repository.path}",
        "keys": f"{repository.key_path} {base64.b64encode(KEY_FILE.read_bytes()).decode()}",
    }
    names = ("nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced")
    offered: dict[str, list[str]] = {name: ["580.95.05-1.el9", "570.1.1-1.el9"] for name in names}
    headers = (f"kernel-devel-{kernel}",)
    offered |= {name: ["5.14.0-570.12.1.el9_6"] for name in headers} | {"dkms": ["3.1-1.el9"]}
    host = Host(state(ROCKY, **known), AvailablePackages=available(offered))
    (script,) = run(host, request(**MIRROR), *STEPS[:5])
    assert host.asked[-1][1]["stream"] == "nvidia-driver:580-open"
    assert script.splitlines()[2:4] == [
        f"run {scripts.DNF} install {' '.join(headers)}",
        f"run {scripts.DNF} install --setopt=install_weak_deps=False --allowerasing "
        "nvidia-driver-cuda-580.95.05-1.el9 kmod-nvidia-open-dkms-580.95.05-1.el9 "
        "nvidia-persistenced-580.95.05-1.el9 dkms",
    ]
    there = "\n".join(f"{name} 580.95.05-1.el9 ii" for name in names)
    seen = state(
        ROCKY,
        packages=f"{ROCKY['packages']}\n{there}\ndkms 3 ii",
        module="580.95.05",
        modules=f"{kernel} 580.95.05",
        loaded="580.95.05",
        in_kernel="nvidia ",
        answers="580.95.05",
        held="kernel-0:5.14.0-570.12.1.el9_6.*",
        **known,
    )
    (script,) = run(Host(seen), request(**MIRROR))
    assert script.splitlines()[-1] == (
        f"run {scripts.DNF} versionlock add kernel-core kmod-nvidia-open-dkms nvidia-driver-cuda "
        "nvidia-persistenced"
    )


def test_amd_gets_its_driver_where_amd_smi_does_not_list_the_gpus():
    offered = {name: ["1"] for name in ("amdgpu-dkms", "amd-smi-lib")} | {
        name: ["1"] for name in ("linux-headers-6.8.0-79-generic",)
    }
    offered["linux-modules-extra-6.8.0-79-generic"] = ["1"]
    host = Host(state(UBUNTU), AvailablePackages=available(offered))
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.splitlines() == [
        f"{APT} linux-headers-6.8.0-79-generic linux-modules-extra-6.8.0-79-generic",
        f"{APT} amdgpu-dkms=1 amd-smi-lib=1",
    ]
    # The kernel's own driver does as well.
    served = state(UBUNTU, amd_answers="8", in_kernel="amdgpu ")
    assert run(Host(served), request("8x AMD Instinct MI300X")) == []


def test_amd_smi_comes_alone_where_amdgpu_offers_the_gpus():
    kfd = "\n".join(["29857 206141652992"] * 8)
    host = Host(
        state(UBUNTU, in_kernel="amdgpu ", kfd=kfd),
        AvailablePackages=available({"amd-smi-lib": ["1"]}),
    )
    (script,) = run(host, request("8x AMD Instinct MI300X"), "installed")
    assert script.splitlines() == [f"{APT} amd-smi-lib=1"]
    there = f"{UBUNTU['packages']}\namd-smi-lib 1 ii "
    seen = state(UBUNTU, in_kernel="amdgpu ", kfd=kfd, packages=there)
    assert run(Host(seen), request("8x AMD Instinct MI300X"), *STEPS[:5]) == []
