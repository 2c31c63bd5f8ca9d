"""What is decided of a host's driver: what stays, what has only to be loaded, what is upgraded."""

from typing import Any

import pytest

from roles.driver.decision import decide, lost_module

from .hosts import DEBIAN, UBUNTU, installed, request, state

KERNEL, NEXT = UBUNTU["kernel"], "6.8.0-85-generic"


def providers(version: str = "580.95.05", **more: str) -> dict[str, str]:
    """A host with a provider's packages, which are not those that would be chosen."""
    names = ("nvidia-driver-580-open", "nvidia-dkms-580-open", "libnvidia-compute-580")
    packages = "\n".join(f"{name} {version}-0ubuntu1 ii " for name in names)
    return {
        **UBUNTU,
        "packages": f"{packages}\n{UBUNTU['packages']}",
        "nvidia-smi": "/usr/bin/nvidia-smi",
        "module": version,
        "modules": f"{KERNEL} {version}",
        "open-modules": KERNEL,
        "library": version,
        **{name.replace("_", "-"): text for name, text in more.items()},
    }


NEXT_ALONE = {
    "kernels": f"{KERNEL}\n{NEXT}",
    "module": "",
    "modules": f"{NEXT} 580.95.05",
    "open_modules": NEXT,
}


@pytest.mark.parametrize(
    ("parts", "settings"),
    [
        ({}, {}),
        ({}, {"branch": 580}),
        ({}, {"version": "580.95.05"}),
        # A reboot does it: nouveau, the old module, another kernel.
        ({"in_kernel": "nouveau "}, {}),
        ({"loaded": "570.172.08", "in_kernel": "nvidia "}, {}),
        (NEXT_ALONE, {}),
        # What somebody left undone is nothing of the driver's.
        ({"interrupted": "vim"}, {}),
        # A kernel that waits, and for which the provider built nothing.
        ({"kernels": f"{KERNEL}\n{NEXT}"}, {}),
    ],
)
def test_an_installed_driver_that_waits_is_not_replaced(parts: dict[str, str], settings: Any):
    found = decide(request(**settings), state(providers(), **parts))
    assert found.plan is None
    assert found.why == "driver 580.95.05 is installed, and has to be loaded"


@pytest.mark.parametrize("host", [providers(), installed()])
def test_a_driver_that_is_silent_once_is_left_alone(host: dict[str, str]):
    silent = {"loaded": "580.95.05", "in_kernel": "nvidia ", "answers": ""}
    # Not even a module for the kernel that boots next is a reason.
    newer = f"{host['kernel']}\n{host['kernel'].replace('.0-', '.1-')}"
    found = decide(request(), state(host, **silent, kernels=newer, headers=newer))
    assert (found.plan, found.why) == (None, "driver 580.95.05 is loaded, and does not answer")


@pytest.mark.parametrize(
    ("parts", "names", "settings"),
    [
        ({"library": "570.172.08"}, (), {}),
        ({"nvidia_smi": ""}, (), {}),
        ({"modules": "", "module": ""}, (), {}),
        ({}, (), {"branch": 595}),
        ({}, (), {"version": "580.105.08"}),
        ({}, (), {"kernel_modules": "proprietary"}),
        # Blackwell needs the open modules, Volta the others.
        ({"open_modules": ""}, ("8x NVIDIA B200",), {}),
        # After the reboot that nouveau needs there would be no module.
        ({"kernels": f"{KERNEL}\n{NEXT}", "in_kernel": "nouveau "}, (), {}),
    ],
)
def test_a_driver_that_cannot_serve_is_replaced(
    parts: dict[str, str], names: tuple[str, ...], settings: Any
):
    found = decide(request(*names, **settings), state(providers(), **parts))
    assert found.plan is not None and not found.keep


LOST: dict[str, str] = {"module": "", "modules": "", "open_modules": ""}
ANOTHER = {"module": "580.105.08", "modules": f"{DEBIAN['kernel']} 580.105.08"}
WAITING_KERNEL = {"kernels": f"{DEBIAN['kernel']}\n6.1.0-40-amd64"}


@pytest.mark.parametrize("parts", [{}, WAITING_KERNEL])
def test_a_serving_drivers_module_that_no_kernel_has_is_lost(parts: dict[str, str]):
    """As an upgrade on a full disk leaves it: dkms has removed the old module, dpkg has kept it."""
    seen = state(installed(), **LOST, **parts)
    assert lost_module(request(), seen) == "580.95.05"
    # That is no reason for other packages.
    assert decide(request(), seen).plan is None


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        (installed(), {}),
        # Only a kernel that somebody else brought has none.
        (installed(), {**WAITING_KERNEL, "headers": f"{DEBIAN['kernel']}\n6.1.0-40-amd64"}),
        (installed(), {**WAITING_KERNEL, **LOST, "modules": "6.1.0-40-amd64 580.95.05"}),
        # Nothing can be built, or would be loaded.
        (installed(), {**LOST, "headers": ""}),
        (installed(), {**LOST, "secure_boot": "SecureBoot enabled"}),
        (installed(), {**LOST, "container": "lxc"}),
        (installed(), {**LOST, "outside": "/usr/bin/nvidia-uninstall"}),
        (DEBIAN, {"answers": "580.95.05", "loaded": "580.95.05", "in_kernel": "nvidia "}),
        # Not by packages whose sources are there, or not by them alone.
        (installed(), {**LOST, "packages": "linux-modules-nvidia-580-server 580.95.05-1 ii "}),
        (
            installed(),
            {
                **LOST,
                "packages": "nvidia-kernel-open-dkms 580.105.08-1 iU \nlibcuda1 580.95.05-1 ii ",
            },
        ),
        # One that does not serve is installed anew.
        (installed(), {**LOST, "answers": ""}),
    ],
)
def test_no_module_is_lost_where_nothing_could_or_need_be_built(
    host: dict[str, str], parts: dict[str, str]
):
    assert lost_module(request(), state(host, **parts)) is None


def test_a_container_gets_no_fabric_manager():
    serving = {"answers": "580.95.05", "loaded": "580.95.05", "switches": "0000:05:00.0"}
    h100 = request("8x NVIDIA H100 80GB HBM3")
    assert decide(h100, state(installed(), **serving)).keep
    assert decide(h100, state(installed(), **serving, container="lxc")).plan is None


def test_a_driver_that_was_replaced_by_half_is_brought_to_its_end():
    found = decide(request(), state(installed(), **ANOTHER))
    assert found.plan is not None and not found.keep
    # Another's packages are not ours to repair.
    serving = {"answers": "580.95.05", "loaded": "580.95.05", "in_kernel": "nvidia "}
    another = {**ANOTHER, "modules": f"{KERNEL} 580.105.08"}
    assert decide(request(), state(providers(**serving), **another)).plan is None


def test_an_old_driver_that_waits_is_replaced():
    found = decide(request(), state(providers("570.172.08")))
    assert found.choice is not None and found.choice.branch == 580


def test_a_silent_driver_of_the_run_installer_stays_while_it_is_loaded():
    run_file = {
        **DEBIAN,
        "outside": "/usr/bin/nvidia-uninstall",
        "nvidia-smi": "/usr/bin/nvidia-smi",
        "module": "580.95.05",
        "modules": f"{DEBIAN['kernel']} 580.95.05",
        "library": "580.95.05",
        "loaded": "580.95.05",
    }
    assert decide(request(), state(run_file)).plan is None
    with pytest.raises(ValueError, match="was installed outside of packages"):
        decide(request(), state(run_file, loaded="550.54.15"))


def test_a_waiting_driver_gets_its_fabric_manager():
    switches = "0000:05:00.0\n0000:06:00.0"
    found = decide(request("8x NVIDIA H100 80GB HBM3"), state(providers(), switches=switches))
    assert found.keep and found.plan is not None and found.choice is not None
    assert (found.plan.fabric, found.choice.version) == (("nvidia-fabricmanager-580",), "580.95.05")


@pytest.mark.parametrize(
    ("version", "names", "settings", "branch"),
    [
        ("595.45.04", (), {}, 595),
        ("590.48.01", (), {}, 590),
        ("580.95.05", (), {}, 580),
        # What the engine does not take is left behind, what is pinned is done.
        ("570.172.08", (), {}, 580),
        ("595.45.04", (), {"branch": 580}, 580),
    ],
)
def test_an_upgrade_stays_in_its_branch(
    version: str, names: tuple[str, ...], settings: Any, branch: int
):
    found = decide(request(*names, upgrade=True, **settings), state(installed(version)))
    assert found.choice is not None and found.choice.branch == branch


@pytest.mark.parametrize("silent", [{}, {"answers": ""}])
def test_an_upgrade_never_goes_back(silent: dict[str, str]):
    found = decide(request(upgrade=True), state(installed("620.10.01"), **silent))
    assert found.plan is None
    assert found.why.startswith("driver 620.10.01 is newer than what is known here (535 (long-term")


MI300X = "8x AMD Instinct MI300X"
OFFERED = {
    "in_kernel": "amdgpu ",
    "kfd": "\n".join(["29857 206141652992"] * 8),
}


def test_a_kernels_own_amdgpu_that_offers_all_gpus_stays():
    found = decide(request(MI300X), state(UBUNTU, **OFFERED, rocm_smi="/opt/rocm/bin/rocm-smi"))
    assert (found.plan, found.why) == (None, "amdgpu offers 8 GPUs")
    # Without a tool nothing could list them; Secure Boot is no matter of a tool.
    found = decide(request(MI300X), state(UBUNTU, **OFFERED, secure_boot="SecureBoot enabled"))
    assert found.keep and found.plan is not None
    assert (found.plan.driver, found.plan.extra) == ((), ("amd-smi-lib",))


def test_an_amdgpu_that_offers_too_few_gpus_is_replaced():
    few = {**OFFERED, "kfd": "29857 206141652992"}
    found = decide(request(MI300X), state(UBUNTU, **few, rocm_smi="/opt/rocm/bin/rocm-smi"))
    assert found.plan is not None and found.plan.driver == ("amdgpu-dkms",)


def test_a_loaded_driver_that_is_silent_stays_where_nothing_else_is_known_of_it():
    seen = state(loaded="580.95.05", nvidia_smi="/usr/bin/nvidia-smi")
    decision = decide(request(), seen)
    assert (
        decision.plan is None and decision.why == "driver 580.95.05 is loaded, and does not answer"
    )
    old = state(loaded="570.86.15", nvidia_smi="/usr/bin/nvidia-smi")
    assert decide(request(), old).plan is not None


@pytest.mark.parametrize("kind", ["lxc", "wsl"])
def test_a_container_gets_no_driver(kind: str):
    with pytest.raises(ValueError, match=rf"is a container \({kind}\).*install the driver there"):
        decide(request(), state(container=kind))
    # The lab's hosts, and virtual machines, are none of these.
    assert decide(request(), state(container="systemd-nspawn")).plan is not None
    serving = state(container=kind, answers="580.95.05", nvidia_smi="/usr/bin/nvidia-smi")
    assert decide(request(), serving).plan is None
