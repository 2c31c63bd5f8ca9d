"""Which repository and which packages a choice means, on each system."""

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from roles.driver import Choice, DriverSettings, OperatingSystem
from roles.driver.facts import FetchedKey
from roles.driver.keys import armoured, fingerprint, own_key, vendor_key
from roles.driver.packages import is_driver, plan, upstream

from .hosts import KEY_FILE, KEY_FINGERPRINT, state

KERNELS = {
    "ubuntu": "6.8.0-79-generic",
    "debian": "6.1.0-37-cloud-amd64",
    "rhel": "5.14.0-570.12.1.el9_6.x86_64",
}
SYSTEMS = {
    "jammy": OperatingSystem("ubuntu", "22.04", "x86_64"),
    "noble": OperatingSystem("ubuntu", "24.04", "x86_64"),
    "bookworm": OperatingSystem("debian", "12", "x86_64"),
    "trixie": OperatingSystem("debian", "13", "x86_64"),
    "trixie-arm": OperatingSystem("debian", "13", "aarch64"),
    "rocky": OperatingSystem("rocky", "9.6", "x86_64"),
    "rhel": OperatingSystem("rhel", "9.6", "x86_64"),
}
FABRIC = {"fabric_manager": True}
B200 = {"fabric_manager": True, "nvlsm": True}


def chosen(source: Any, branch: int = 580, packaging: Any = "dkms", modules: Any = "open", **more):
    return Choice("nvidia", branch, more.pop("version", None), modules, packaging, source, **more)


def packages(choice: Choice, system: str, mirror: str | None = None):
    there = SYSTEMS[system]
    return plan(choice, there, KERNELS[there.family or ""], mirror)


@pytest.mark.parametrize(
    ("system", "choice", "driver", "fabric", "extra", "headers"),
    [
        (
            "noble",
            chosen("distribution", packaging="precompiled", **FABRIC),
            "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server",
            "nvidia-fabricmanager-580",
            "linux-modules-nvidia-580-server-open-6.8.0-79-generic "
            "linux-modules-nvidia-580-server-open-generic",
            "",
        ),
        (
            "jammy",
            chosen("distribution", packaging="precompiled", modules="proprietary"),
            "nvidia-headless-no-dkms-580-server nvidia-utils-580-server",
            "",
            "linux-modules-nvidia-580-server-6.8.0-79-generic "
            "linux-modules-nvidia-580-server-generic",
            "",
        ),
        (
            "noble",
            chosen("distribution", **B200),
            "nvidia-headless-no-dkms-580-server-open nvidia-utils-580-server "
            "nvidia-dkms-580-server-open",
            "nvidia-fabricmanager-580",
            "nvlsm infiniband-diags libibumad3 linux-modules-extra-6.8.0-79-generic",
            "linux-headers-6.8.0-79-generic",
        ),
        (
            "noble",
            chosen("nvidia", **B200),
            "libnvidia-compute-580 nvidia-dkms-580-open nvidia-utils-580 nvidia-compute-utils-580",
            "nvidia-fabricmanager",
            "dkms nvlsm infiniband-diags libibumad3 linux-modules-extra-6.8.0-79-generic",
            "linux-headers-6.8.0-79-generic",
        ),
        (
            "jammy",
            chosen("nvidia", branch=595),
            "libnvidia-compute nvidia-dkms-open nvidia-persistenced",
            "",
            "dkms",
            "linux-headers-6.8.0-79-generic",
        ),
        (
            "jammy",
            chosen("nvidia", branch=570, modules="proprietary", **FABRIC),
            "libnvidia-compute-570 nvidia-dkms-570 nvidia-utils-570 nvidia-compute-utils-570",
            "nvidia-fabricmanager-570",
            "dkms",
            "linux-headers-6.8.0-79-generic",
        ),
        (
            "bookworm",
            chosen("nvidia", **B200),
            "nvidia-driver-cuda nvidia-kernel-open-dkms nvidia-persistenced",
            "nvidia-fabricmanager",
            "dkms nvlsm infiniband-diags libibumad3",
            "linux-headers-6.1.0-37-cloud-amd64",
        ),
        (
            "trixie",
            chosen("nvidia", modules="proprietary"),
            "nvidia-driver-cuda nvidia-kernel-dkms nvidia-persistenced",
            "",
            "dkms",
            "linux-headers-6.1.0-37-cloud-amd64",
        ),
        (
            "rocky",
            chosen("nvidia", **B200),
            "nvidia-driver-cuda kmod-nvidia-open-dkms nvidia-persistenced",
            "nvidia-fabricmanager",
            "dkms nvlsm infiniband-diags libibumad",
            "kernel-devel-5.14.0-570.12.1.el9_6.x86_64",
        ),
        (
            "rhel",
            chosen("nvidia", branch=570, modules="proprietary", **FABRIC),
            "nvidia-driver-cuda kmod-nvidia-latest-dkms nvidia-persistenced",
            "nvidia-fabric-manager",
            "dkms",
            "kernel-devel-5.14.0-570.12.1.el9_6.x86_64",
        ),
        (
            "rhel",
            chosen("nvidia", modules="proprietary", packaging="precompiled"),
            "nvidia-driver-cuda nvidia-persistenced",
            "",
            "",
            "",
        ),
        (
            "noble",
            Choice("amd", None, None, "open", "dkms", "amd"),
            "amdgpu-dkms",
            "",
            "amd-smi-lib",
            "linux-headers-6.8.0-79-generic linux-modules-extra-6.8.0-79-generic",
        ),
        (
            "bookworm",
            Choice("amd", None, None, "open", "dkms", "amd"),
            "amdgpu-dkms",
            "",
            "amd-smi-lib",
            "linux-headers-6.1.0-37-cloud-amd64",
        ),
        (
            "rhel",
            Choice("amd", None, None, "open", "dkms", "amd"),
            "amdgpu-dkms",
            "",
            "amd-smi-lib",
            "kernel-devel-5.14.0-570.12.1.el9_6.x86_64",
        ),
    ],
)
def test_packages(system: str, choice: Choice, driver: str, fabric: str, extra: str, headers: str):
    found = packages(choice, system)
    assert found.driver == tuple(driver.split())
    assert found.fabric == tuple(fabric.split())
    assert found.extra == tuple(extra.split())
    assert found.headers == tuple(headers.split())
    assert all(is_driver(name) for name in found.versioned)


NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos"
AMD = "https://repo.radeon.com"


@pytest.mark.parametrize(
    ("system", "vendor", "mirror", "path", "content", "key_url"),
    [
        (
            "bookworm",
            "nvidia",
            None,
            "/etc/apt/sources.list.d/llm-nvidia.list",
            "deb [arch=amd64 signed-by=/etc/apt/keyrings/llm-nvidia.asc] "
            f"{NVIDIA}/debian12/x86_64 /\n",
            f"{NVIDIA}/debian12/x86_64/3bf863cc.pub",
        ),
        (
            "trixie-arm",
            "nvidia",
            None,
            "/etc/apt/sources.list.d/llm-nvidia.list",
            "deb [arch=arm64 signed-by=/etc/apt/keyrings/llm-nvidia.asc] "
            f"{NVIDIA}/debian13/sbsa /\n",
            f"{NVIDIA}/debian13/sbsa/8793F200.pub",
        ),
        (
            "noble",
            "nvidia",
            "http://mirror.example.com:8080/cuda/",
            "/etc/apt/sources.list.d/llm-nvidia.list",
            "deb [arch=amd64 signed-by=/etc/apt/keyrings/llm-nvidia.asc] "
            "http://mirror.example.com:8080/cuda/ubuntu2404/x86_64 /\n",
            "http://mirror.example.com:8080/cuda/ubuntu2404/x86_64/3bf863cc.pub",
        ),
        (
            "rocky",
            "nvidia",
            None,
            "/etc/yum.repos.d/llm-nvidia.repo",
            f"[llm-nvidia]\nname=llm-nvidia\nbaseurl={NVIDIA}/rhel9/x86_64\nenabled=1\n"
            "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-llm-nvidia\n",
            f"{NVIDIA}/rhel9/x86_64/D42D0685.pub",
        ),
        (
            "trixie",
            "amd",
            None,
            "/etc/apt/sources.list.d/llm-amd.list",
            "deb [arch=amd64 signed-by=/etc/apt/keyrings/llm-amd.asc] "
            f"{AMD}/amdgpu/30.30.3/ubuntu noble main\n"
            "deb [arch=amd64 signed-by=/etc/apt/keyrings/llm-amd.asc] "
            f"{AMD}/rocm/apt/7.2.3 noble main\n",
            f"{AMD}/rocm/rocm.gpg.key",
        ),
        (
            "rhel",
            "amd",
            "https://m.example.com",
            "/etc/yum.repos.d/llm-amd.repo",
            "[llm-amd]\nname=llm-amd\n"
            "baseurl=https://m.example.com/amdgpu/30.30.3/el/9.6/main/x86_64\nenabled=1\n"
            "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-llm-amd\n\n"
            "[llm-amd-1]\nname=llm-amd-1\n"
            "baseurl=https://m.example.com/rocm/el9/7.2.3/main\nenabled=1\n"
            "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-llm-amd\n",
            "https://m.example.com/rocm/rocm.gpg.key",
        ),
    ],
)
def test_repositories(
    system: str, vendor: Any, mirror: str | None, path: str, content: str, key_url: str
):
    amd = Choice("amd", None, None, "open", "dkms", "amd")
    found = packages(amd if vendor == "amd" else chosen("nvidia"), system, mirror).repository
    assert found is not None
    assert (found.path, found.content) == (path, f"# Written by pyinfra-llm.\n{content}")
    assert found.key_url == key_url
    assert len(found.key_fingerprint or "") == 40


def test_the_distribution_needs_no_repository_but_for_nvlsm():
    assert packages(chosen("distribution", packaging="precompiled"), "noble").repository is None
    found = packages(chosen("distribution", packaging="precompiled", **B200), "noble")
    assert found.repository is not None and found.preferences is not None
    assert found.preferences[1].splitlines()[1:] == [
        "Package: *",
        "Pin: release l=NVIDIA CUDA",
        "Pin-Priority: -1",
        "",
        "Package: nvlsm",
        "Pin: release l=NVIDIA CUDA",
        "Pin-Priority: 500",
    ]


@pytest.mark.parametrize(
    ("choice", "pin"),
    [
        (chosen("nvidia"), "Pin: version 580.*"),
        (chosen("nvidia", version="580.95.05"), "Pin: version 580.95.05-*"),
    ],
)
def test_apt_is_kept_to_the_branch(choice: Choice, pin: str):
    found = packages(choice, "bookworm").preferences
    assert found is not None and pin in found[1].splitlines()


@pytest.mark.parametrize(
    ("choice", "stream"),
    [
        (chosen("nvidia"), "nvidia-driver:580-open"),
        (chosen("nvidia", modules="proprietary"), "nvidia-driver:580-dkms"),
        (
            chosen("nvidia", modules="proprietary", packaging="precompiled"),
            "nvidia-driver:580",
        ),
    ],
)
def test_the_stream_of_dnf(choice: Choice, stream: str):
    assert packages(choice, "rocky").stream == stream


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("nvidia-driver-cuda", True),
        ("libnvidia-ml1", True),
        ("libcuda1", True),
        ("kmod-nvidia-open-dkms", True),
        ("linux-modules-nvidia-580-server-open-generic", True),
        ("nvidia-container-toolkit", False),
        ("libnvidia-container1", False),
        ("nvidia-docker2", False),
        ("linux-image-generic", False),
        ("amdgpu-dkms", True),
        ("dkms", False),
    ],
)
def test_what_is_a_package_of_a_driver(package: str, expected: bool):
    assert is_driver(package) is expected


@pytest.mark.parametrize(
    ("kernel", "packages_of_it"),
    [
        ("6.8.0-79-generic", ("linux-image-generic", "linux-headers-generic")),
        ("6.8.0-1030-aws", ("linux-image-aws", "linux-headers-aws")),
        ("6.5.0-1024-nvidia-64k", ("linux-image-nvidia-64k", "linux-headers-nvidia-64k")),
        ("6.1.0-37-amd64", ("linux-image-amd64", "linux-headers-amd64")),
        ("6.1.0-37-cloud-amd64", ("linux-image-cloud-amd64", "linux-headers-cloud-amd64")),
        ("6.12.43+deb13-amd64", ("linux-image-amd64", "linux-headers-amd64")),
        ("6.12.41+deb13-cloud-arm64", ("linux-image-cloud-arm64", "linux-headers-cloud-arm64")),
    ],
)
def test_the_kernels_packages(kernel: str, packages_of_it: tuple[str, ...]):
    assert plan(chosen("nvidia"), SYSTEMS["trixie"], kernel, None).kernel == packages_of_it


@pytest.mark.parametrize(
    "version", ["580.95.05-1", "3:580.95.05-1.el9", "580.95.05-0ubuntu0.24.04.1", "580.95.05"]
)
def test_nvidias_version(version: str):
    assert upstream(version) == "580.95.05"


def test_a_key_is_known_by_its_fingerprint_in_both_forms():
    text = KEY_FILE.read_bytes()
    binary = base64.b64decode(b"".join(text.split(b"\n\n", 1)[1].split(b"\n=")[0].split(b"\n")))
    assert fingerprint(text) == fingerprint(binary) == KEY_FINGERPRINT
    assert armoured(binary) == armoured(text)
    assert armoured(text).encode() == text
    assert vendor_key(binary, "http://x", KEY_FINGERPRINT).encode() == text


@pytest.mark.parametrize(
    "junk", [b"", b"<html>404</html>", b"-----BEGIN PGP x\n\n!!\n", b"\x99\x01"]
)
def test_what_is_no_key_is_said_so(junk: bytes, tmp_path):
    with pytest.raises(ValueError, match=r"driver: http://x/k: not a signing key"):
        vendor_key(junk, "http://x/k", KEY_FINGERPRINT)
    file = tmp_path / "key"
    file.write_bytes(junk)
    with pytest.raises(ValueError, match=r"driver\.mirror_key_file: .*/key: not a signing key"):
        own_key(file)


def test_another_key_is_refused():
    with pytest.raises(ValueError, match=f"has the key {KEY_FINGERPRINT}, ABC was expected"):
        vendor_key(KEY_FILE.read_bytes(), "http://x/k", "ABC")


def binary(text: bytes) -> bytes:
    return base64.b64decode(b"".join(text.split(b"\n\n", 1)[1].split(b"\n=")[0].split(b"\n")))


def other_key() -> bytes:
    """Another primary key with a user id, as an attacker would put it beside the vendor's."""
    body = b"\x04" + bytes(4) + b"\x01\x00\x08\xff\x00\x02\x03"
    return b"\x98" + bytes([len(body)]) + body + b"\xb4\x03a@b"


@pytest.mark.parametrize("place", ["before", "behind", "in a block of its own"])
def test_no_other_key_beside_the_vendors_is_trusted(place: str, tmp_path):
    text = KEY_FILE.read_bytes()
    files = {
        "before": other_key() + binary(text),
        "behind": binary(text) + other_key(),
        "in a block of its own": text + armoured(other_key()).encode(),
    }
    file = tmp_path / "key"
    file.write_bytes(files[place])
    assert vendor_key(files[place], "http://x", KEY_FINGERPRINT).encode() == text
    # On a host, or given by the user: there it would be trusted as a whole.
    with pytest.raises(ValueError, match="it holds 2 keys"):
        fingerprint(files[place])
    with pytest.raises(ValueError, match=r"driver\.mirror_key_file: .*it holds 2 keys"):
        own_key(file)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x9a" + (60_000).to_bytes(4, "big") + b"\x04" * 60_000 + b"\x9a",
        b"\x9a" + (70_000).to_bytes(4, "big") + b"\x04" * 70_000,
        b"\x9b" + b"\x04" * 100,
        b"\xc6\xe1" + b"\x04" * 100,
        b"\x04" * 3_000_000,
        b"\xb4\x03a@b",
        binary(KEY_FILE.read_bytes())[:-1],
    ],
)
def test_what_is_cut_or_too_large_is_no_key(junk: bytes):
    with pytest.raises(ValueError, match="not a signing key"):
        fingerprint(junk)
    with pytest.raises(ValueError, match="driver: http://x/k: not a signing key"):
        vendor_key(junk, "http://x/k", KEY_FINGERPRINT)


@given(st.binary(max_size=300), st.integers(0, 600))
def test_any_file_is_a_key_or_is_refused(junk: bytes, at: int):
    key = binary(KEY_FILE.read_bytes())
    for spoiled in (junk, key[:at] + junk, key[:at] + junk + key[at:]):
        with contextlib.suppress(ValueError):
            assert fingerprint(armoured(spoiled).encode()) == fingerprint(spoiled)


def test_a_key_that_came_cut_is_no_key():
    assert FetchedKey().process(["key QQ="]) == (False, "it came incomplete")
    assert state(keys="/k QQ=\n/l QQ==").keys == {"/l": "QQ=="}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("k" * 300, "longer than a path"),
        ("folder/key", "mirror's signing key"),
        ("folder", "mirror's signing key"),
    ],
)
def test_a_mirrors_key_that_cannot_be_read_is_said_so(name: str, why: str, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValidationError, match=rf"mirror_key_file\n.*{why}"):
        DriverSettings(mirror_key_file=tmp_path / name)
