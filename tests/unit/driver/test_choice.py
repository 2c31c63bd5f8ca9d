"""Which driver a host gets, and what is refused in which words."""

import pytest

from roles.driver import (
    DriverSettings,
    OperatingSystem,
    choose,
    good_enough,
    problems_of_declaration,
)
from roles.engine import LlamaCppSettings, engine_needs

from .hosts import CPU_NEEDS, KEY_FILE, NEEDS, OLDER_NEEDS, ROCM_NEEDS, gpus, needs_on

LLAMA_NEEDS = engine_needs(LlamaCppSettings(archive="/srv/llama-cuda-13.1.tar.gz", sha256="a" * 64))
DEBIAN_12 = OperatingSystem("debian", "12", "x86_64")
UBUNTU_24 = OperatingSystem("ubuntu", "24.04", "x86_64")
ROCKY_9 = OperatingSystem("rocky", "9.6", "x86_64")


def message(*names: str, system: OperatingSystem = DEBIAN_12, needs=None, **more) -> str:
    """A choice in one line, or the problems."""
    there = {key: more.pop(key) for key in list(more) if key not in DriverSettings.model_fields}
    settings = DriverSettings.model_validate(more)
    try:
        chosen = choose(settings, needs or needs_on(*names), gpus(*names), system, **there)
    except ValueError as error:
        return str(error)
    parts = (chosen.branch, chosen.version, chosen.modules, chosen.packaging, chosen.source)
    extra = ("fabric_manager",) * chosen.fabric_manager + ("nvlsm",) * chosen.nvlsm
    return " ".join(str(part) for part in (*parts, *extra) if part)


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (("8x NVIDIA H100 80GB HBM3",), {}, "580 open dkms nvidia"),
        (("1x Tesla T4",), {}, "580 open dkms nvidia"),
        (("1x NVIDIA GeForce RTX 5090",), {}, "580 open dkms nvidia"),
        (("1x Tesla V100-SXM2-16GB",), {"needs": OLDER_NEEDS}, "580 proprietary dkms nvidia"),
        (("1x Tesla V100-SXM2-16GB", "1x Tesla T4"), {"needs": OLDER_NEEDS}, "580 proprietary"),
        # An engine on the CPU asks nothing of the driver.
        (("2x NVIDIA L40S",), {"needs": CPU_NEEDS}, "580 open dkms nvidia"),
        (("2x NVIDIA L40S",), {"branch": 595}, "595 open dkms nvidia"),
        (("2x NVIDIA L40S",), {"version": "580.95.05"}, "580 580.95.05 open dkms nvidia"),
        (("2x NVIDIA L40S",), {"kernel_modules": "proprietary"}, "580 proprietary dkms nvidia"),
        (("2x NVIDIA L40S",), {"system": UBUNTU_24}, "580 open precompiled distribution"),
        (("2x NVIDIA L40S",), {"system": UBUNTU_24, "packaging": "dkms"}, "580 open dkms distrib"),
        (("2x NVIDIA L40S",), {"system": UBUNTU_24, "source": "nvidia"}, "580 open dkms nvidia"),
        (("2x NVIDIA L40S",), {"system": UBUNTU_24, "branch": 610}, "610 open dkms nvidia"),
        (("2x NVIDIA L40S",), {"system": UBUNTU_24, "mirror": "http://m/x"}, "580 open dkms nv"),
        (
            ("2x NVIDIA L40S",),
            {"system": UBUNTU_24, "secure_boot": True},
            "580 open precompiled distribution",
        ),
        (
            ("2x NVIDIA L40S",),
            {"secure_boot": True, "own_key_enrolled": True},
            "580 open dkms nvidia",
        ),
        (("2x NVIDIA L40S",), {"system": ROCKY_9}, "580 open dkms nvidia"),
        (
            ("2x NVIDIA L40S",),
            {"system": ROCKY_9, "packaging": "precompiled", "kernel_modules": "proprietary"},
            "580 proprietary precompiled nvidia",
        ),
        (("8x NVIDIA H100 80GB HBM3",), {"nvswitches": 4}, "580 open dkms nvidia fabric_manager"),
        # Their NVSwitches are not on the PCI bus.
        (("8x NVIDIA B200",), {}, "580 open dkms nvidia fabric_manager nvlsm"),
        (("1x NVIDIA B200",), {}, "580 open dkms nvidia"),
        (("4x NVIDIA GB200",), {}, "580 open dkms nvidia"),
        (("8x AMD Instinct MI300X",), {}, "open dkms amd"),
    ],
)
def test_what_is_chosen(names: tuple[str, ...], more: dict, expected: str):
    found = message(*names, **more)
    assert found.startswith(expected)
    assert ("fabric" in found, "nvlsm" in found) == ("fabric" in expected, "nvlsm" in expected)


ALL = (
    "535 (long-term, no longer maintained), 550 (production, no longer maintained), "
    "570 (production, no longer maintained), 580 (long-term), "
    "590 (new-feature, no longer maintained), 595 (production), "
    "610 (new-feature, no longer maintained), 615 (new-feature)"
)
STEPS = (
    "use Ubuntu 22.04 or 24.04, whose own repository has signed modules (driver.source: "
    "distribution); or disable Secure Boot in the host's firmware; or enrol a key by hand: install "
    "dkms and mokutil, run mokutil --import /var/lib/dkms/mok.pub (Ubuntu: "
    "/var/lib/shim-signed/mok/MOK.der), reboot, confirm it at the host's console, and deploy again"
)


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (
            ("2x NVIDIA L40S",),
            {"branch": 599},
            f"driver.branch: branch 599 does not exist; there are {ALL}",
        ),
        (
            ("2x NVIDIA L40S",),
            {"version": "575.57.08"},
            f"driver.version: branch 575 does not exist; there are {ALL}",
        ),
        (
            ("2x NVIDIA L40S",),
            {"branch": 570},
            "driver.branch: 570 is older than vllm 0.33.0 needs (CUDA 13.0: driver 580 or newer); "
            f"choose one of {ALL[ALL.index('580') :]}",
        ),
        (
            ("2x NVIDIA L40S",),
            {"version": "570.172.08"},
            "driver.version: 570.172.08 is older than vllm 0.33.0 needs (CUDA 13.0: driver 580 or "
            f"newer); choose one of {ALL[ALL.index('580') :]}",
        ),
        (
            ("2x NVIDIA L40S",),
            {"branch": 580, "version": "595.71.05"},
            "driver.version: 595.71.05 is not of branch 580; leave driver.branch out, or choose a "
            "version of it",
        ),
        (
            ("1x Tesla V100-SXM2-16GB",),
            {},
            "gpus: Tesla V100-SXM2-16GB has compute capability 7.0, and vllm 0.33.0 (CUDA 13.0) "
            "needs 7.5: no driver changes that; an engine built for CUDA 12 does, for instance "
            "vLLM 0.32 as +cu129, or 0.19",
        ),
        (
            ("1x Tesla P100-PCIE-16GB",),
            {},
            "gpus: Tesla P100-PCIE-16GB has compute capability 6.0, and vllm 0.33.0 (CUDA 13.0) "
            "needs 7.5: no driver changes that; there is no build of it for this GPU: choose "
            "another engine, or take the GPU out of the host or of the inventory",
        ),
        (
            ("1x Tesla P100-PCIE-16GB",),
            {"needs": LLAMA_NEEDS},
            "gpus: Tesla P100-PCIE-16GB has compute capability 6.0, and llama.cpp b11434 (CUDA "
            "13.1) needs 7.5: no driver changes that; an engine built for CUDA 12 does, for "
            "instance llama.cpp's archive for CUDA 12",
        ),
        (
            ("1x Tesla V100-SXM2-16GB", "1x NVIDIA B200"),
            {"needs": OLDER_NEEDS},
            "gpus: no kernel modules serve them all (proprietary: Tesla V100-SXM2-16GB (Volta); "
            "open: NVIDIA B200 (Blackwell)); keep them in different hosts",
        ),
        (
            ("1x NVIDIA B200",),
            {"kernel_modules": "proprietary"},
            "driver.kernel_modules: proprietary modules do not serve NVIDIA B200 (Blackwell); say "
            "open or auto",
        ),
        (
            ("1x Tesla V100-SXM2-16GB",),
            {"kernel_modules": "open", "needs": OLDER_NEEDS},
            "driver.kernel_modules: open modules do not serve Tesla V100-SXM2-16GB (Volta); say "
            "proprietary or auto",
        ),
        (
            ("1x Tesla V100-SXM2-16GB",),
            {"branch": 595, "needs": OLDER_NEEDS},
            "driver.branch: branch 595 does not serve Tesla V100-SXM2-16GB (Volta): 580 is the "
            "last branch that does; choose it or leave the branch out",
        ),
        (
            ("1x NVIDIA B200",),
            {"branch": 550, "needs": OLDER_NEEDS},
            "driver.branch: branch 550 does not serve NVIDIA B200 (Blackwell); choose one of "
            f"{ALL[ALL.index('570') :]}",
        ),
        (
            ("1x NVIDIA L40S", "1x AMD Instinct MI300X"),
            {},
            "gpus: NVIDIA and AMD in one host: no engine uses both; keep them in two hosts",
        ),
        (
            ("8x AMD Instinct MI300X",),
            {"branch": 580, "packaging": "precompiled"},
            "driver.branch: is NVIDIA's, and the GPUs are AMD's; leave it out\n"
            "driver.packaging: AMD's driver comes as DKMS only; leave it out",
        ),
        (
            ("2x NVIDIA L40S",),
            {"system": OperatingSystem("fedora", "42", "x86_64")},
            "driver: fedora 42 (x86_64) is not supported; supported are Ubuntu 22.04 and 24.04, "
            "Debian 12 and 13, RHEL, Rocky Linux and AlmaLinux 9",
        ),
        (
            ("2x NVIDIA L40S",),
            {"system": OperatingSystem("debian", "12", "ppc64le")},
            "driver: NVIDIA has packages for x86_64 and aarch64, not for ppc64le",
        ),
        (
            ("2x NVIDIA L40S",),
            {"source": "distribution"},
            "driver.source: Debian 12 has driver 535 only, which is older than 580; say "
            "driver.source: nvidia",
        ),
        (
            ("2x NVIDIA L40S",),
            {"source": "distribution", "system": ROCKY_9},
            "driver.source: rocky 9 has no NVIDIA driver of its own; say driver.source: nvidia",
        ),
        (
            ("2x NVIDIA L40S",),
            {"source": "distribution", "system": UBUNTU_24, "branch": 610},
            "driver.source: Ubuntu has no server driver of branch 610, only of 580, 590, 595; "
            "choose one of them, or say driver.source: nvidia",
        ),
        (
            ("2x NVIDIA L40S",),
            {"packaging": "precompiled"},
            "driver.packaging: nvidia has no precompiled open modules for debian 12; say dkms or "
            "auto",
        ),
        (
            ("2x NVIDIA L40S",),
            {"packaging": "precompiled", "system": ROCKY_9},
            "driver.packaging: nvidia has no precompiled open modules for rocky 9.6; say dkms or "
            "auto",
        ),
        (
            ("2x NVIDIA L40S",),
            {"secure_boot": True},
            "driver: Secure Boot is on, and the kernel would reject modules that are not signed by "
            f"a key it knows (dkms from nvidia); {STEPS}",
        ),
        (
            ("2x NVIDIA L40S",),
            {
                "secure_boot": True,
                "system": ROCKY_9,
                "packaging": "precompiled",
                "kernel_modules": "proprietary",
            },
            "driver: Secure Boot is on, and the kernel would reject modules that are not signed by "
            f"a key it knows (precompiled from nvidia); {STEPS}",
        ),
        (
            ("8x AMD Instinct MI300X",),
            {"secure_boot": True},
            "driver: Secure Boot is on, and the kernel would reject modules that are not signed by "
            f"a key it knows (dkms from amd); {STEPS}",
        ),
    ],
)
def test_what_is_refused(names: tuple[str, ...], more: dict, expected: str):
    assert message(*names, **more) == expected


def test_an_inventory_is_checked_without_its_hosts():
    settings = DriverSettings(branch=570, kernel_modules="proprietary")
    found = problems_of_declaration(settings, NEEDS, gpus("1x NVIDIA B200"))
    assert [problem.partition(":")[0] for problem in found] == [
        "driver.branch",
        "driver.kernel_modules",
    ]
    assert problems_of_declaration(DriverSettings(), NEEDS, gpus("2x NVIDIA L40S")) == []
    # Before the hardware is recorded, pins can be checked all the same.
    assert problems_of_declaration(DriverSettings(branch=999), NEEDS, ()) == [
        f"driver.branch: branch 999 does not exist; there are {ALL}"
    ]
    assert problems_of_declaration(DriverSettings(), NEEDS, ()) == []


@pytest.mark.parametrize(
    ("names", "needs", "problems"),
    [
        (
            "2x AMD Instinct MI300X",
            NEEDS,
            ["engine.device: cuda does not run on AMD Instinct MI300X, which are AMD's; say rocm"],
        ),
        (
            "2x NVIDIA L40S",
            ROCM_NEEDS,
            ["engine.device: rocm does not run on NVIDIA L40S, which are NVIDIA's; say cuda"],
        ),
        ("2x AMD Instinct MI300X", CPU_NEEDS, []),
        ("2x AMD Instinct MI300X", ROCM_NEEDS, []),
        ("2x NVIDIA L40S", CPU_NEEDS, []),
    ],
)
def test_an_engine_for_the_other_vendors_gpus_is_refused(names: str, needs, problems: list[str]):
    assert problems_of_declaration(DriverSettings(), needs, gpus(names)) == problems
    assert problems_of_declaration(DriverSettings(), needs, ()) == []


def test_a_mirrors_key_is_checked_before_any_host_is_asked(tmp_path):
    junk = tmp_path / "key"
    junk.write_text("<html>")
    good = DriverSettings(mirror="http://m", mirror_key_file=KEY_FILE)
    assert problems_of_declaration(good, NEEDS, ()) == []
    alone = DriverSettings(mirror_key_file=KEY_FILE)
    assert problems_of_declaration(alone, NEEDS, ()) == [
        "driver.mirror_key_file: is of a mirror; give driver.mirror too, or leave it out"
    ]
    bad = DriverSettings(mirror="http://m", mirror_key_file=junk)
    assert problems_of_declaration(bad, NEEDS, ()) == [
        f"driver.mirror_key_file: {junk}: not a signing key (OpenPGP, as text or binary); put the "
        "mirror's public signing key into it"
    ]


def test_a_card_that_nobody_knows_gets_what_its_compute_capability_says():
    from roles.hardware import Gpu

    new = Gpu(0, "NVIDIA R1000", 1 << 19, compute_capability=14.0)
    old = Gpu(0, "NVIDIA K1", 1 << 14, compute_capability=3.5)
    settings = DriverSettings(kernel_modules="proprietary")
    (told_of,) = problems_of_declaration(settings, NEEDS, (new,))
    assert told_of.startswith("driver.kernel_modules: proprietary modules do not serve NVIDIA R10")
    found = problems_of_declaration(DriverSettings(), CPU_NEEDS, (old,))
    assert found == [
        "gpus: no kernel modules serve them all (none: NVIDIA K1); keep them in different hosts"
    ]


@pytest.mark.parametrize("url", ["https://user:secret@m/repos", "http://token@m:8080/repos"])
def test_a_mirrors_address_holds_no_secret(url: str):
    with pytest.raises(ValueError, match="holds credentials") as caught:
        DriverSettings(mirror=url)
    assert "auth.conf.d" in str(caught.value)
    # A path may hold the sign.
    assert DriverSettings(mirror="https://m/a@b/repos").mirror == "https://m/a@b/repos"


@pytest.mark.parametrize(
    ("version", "settings", "good"),
    [
        (None, {}, False),
        ("580.95.05", {}, True),
        ("595.45.04", {}, True),
        ("570.172.08", {}, False),
        ("595.45.04", {"branch": 580}, False),
        ("580.95.05", {"version": "580.105.08"}, False),
    ],
)
def test_a_version_that_engine_and_settings_accept(version: str | None, settings: dict, good: bool):
    assert good_enough(DriverSettings.model_validate(settings), NEEDS, version) is good
