#!/usr/bin/python3
"""The simulated kernel of a bare host: its PCI bus, and which driver modules are loaded.

`boot` runs before systemd. It shows the profile's devices under /sys/bus/pci/devices, the loaded
modules under /sys/module (and in /proc/modules, where this machine's kernel has such a file to put
it over) and what amdgpu offers under /sys/class/kfd. It decides as a real boot does, from the
host's own disk: nouveau is loaded from the initramfs unless it was blocked when that was made; else
a driver module that is there for this kernel is. As `modprobe`, `rmmod` and `lsmod` it does these
tools' work for these modules, and hands all others to the real ones. No module of this machine is
ever touched.

Secure Boot is a setting of the firmware (the file `secure-boot` among what the lab shows the host):
with it, modules without a signature are refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

STATE = Path("/usr/lib/lab-gpu")
SELF = Path("/run/lab-kernel")
"""What this boot's kernel knows; gone with it."""
RELEASE = os.uname().release
MODULES = Path("/lib/modules") / RELEASE
INITRAMFS = Path(f"/boot/initrd.img-{RELEASE}")
NEEDS: dict[str, str | None] = {
    "nvidia": None,
    "nvidia_modeset": "nvidia",
    "nvidia_drm": "nvidia_modeset",
    "nvidia_uvm": "nvidia",
    "nvidia_peermem": "nvidia",
    "nouveau": None,
    "amdgpu": None,
}
"""The simulated modules, and what each needs."""
SIZES = {"nvidia": 14376960, "nvidia_uvm": 2076672, "nouveau": 3321856, "amdgpu": 20013056}
AT_BOOT = ("nvidia", "nvidia_modeset", "nvidia_drm")
SIGNED = b"~Module signature appended~\n"
EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
KNOWN_TO_STOCK_AMDGPU = ("164e", "740c", "740f")
"""Of the profiles' devices, and their like: Linux 6.1 knows neither MI300X nor RDNA4."""
TOO_NEW_FOR_NOUVEAU = ("23", "29", "2b")
"""Hopper and Blackwell: Debian 12's nouveau does not drive them."""
USERS = (
    Path("/run/nvidia-persistenced/nvidia-persistenced.pid"),
    Path("/run/nvidia-fabricmanager/nv-fabricmanager.pid"),
)


class KernelError(Exception):
    """Why a module cannot be loaded or unloaded, in the kernel's or modprobe's words."""


def profile() -> dict:
    return json.loads((STATE / "profile.json").read_text())


def loaded() -> dict[str, str]:
    """The loaded modules, in the order of loading, with their versions (may be empty)."""
    return json.loads((SELF / "loaded.json").read_text())


def nvidia_gpus() -> list[dict]:
    return [d for d in profile()["pci"] if d["ids"].startswith("10de:") and d["class"][:2] == "03"]


def amd_gpus(modules: dict[str, str]) -> list[dict]:
    """The AMD devices that amdgpu drives: the kernel's own has no version, and knows older ones."""
    if "amdgpu" not in modules:
        return []
    mine = [d for d in profile()["pci"] if d["ids"].startswith("1002:")]
    if modules["amdgpu"] or (STATE / "newer-amdgpu").exists():
        return mine
    return [device for device in mine if device["ids"][5:] in KNOWN_TO_STOCK_AMDGPU]


def module_path(name: str) -> Path | None:
    """The module's file for the running kernel; `-` and `_` are the same in modules' names."""
    # What DKMS built goes before what the kernel came with.
    files = sorted(MODULES.rglob("*.ko"), key=lambda file: ("updates" not in file.parts, file))
    for file in files:
        if file.stem.replace("-", "_") == name:
            return file
    return None


def module_version(path: Path) -> str:
    found = re.search(rb"\0version=([^\0]*)\0", path.read_bytes())
    return found[1].decode() if found else ""


def blocked(text: str, name: str) -> bool:
    """True if these modprobe settings keep the kernel from loading the module by itself."""
    pattern = rf"^\s*(blacklist\s+{name}|install\s+{name}\s+\S*(false|true)|alias\s+{name}\s+off)\b"
    return re.search(pattern, text, re.MULTILINE) is not None


def settings_on_disk() -> str:
    files = [*Path("/etc/modprobe.d").glob("*.conf"), *Path("/lib/modprobe.d").glob("*.conf")]
    return "\n".join(file.read_text() for file in files)


def secure_boot() -> bool:
    return (SELF / "secure-boot").exists()


def insert(name: str) -> None:
    """Load one module and what it needs."""
    if name in loaded():
        return
    path = module_path(name)
    if path is None:
        raise KernelError(f"FATAL: Module {name} not found in directory {MODULES}")
    needed = NEEDS[name]
    if needed:
        insert(needed)
    could_not = f"ERROR: could not insert '{name}'"
    if secure_boot() and not path.read_bytes().endswith(SIGNED):
        raise KernelError(f"{could_not}: Key was rejected by service")
    rival = {"nvidia": "nouveau", "nouveau": "nvidia"}.get(name)
    if rival in loaded() or (name == "nvidia" and not nvidia_gpus()):
        raise KernelError(f"{could_not}: No such device")
    show(loaded() | {name: module_version(path)})


def remove(name: str) -> None:
    """Unload one module."""
    now = loaded()
    if name not in now:
        raise KernelError(f"FATAL: Module {name} is not currently loaded")
    if name == "nouveau" or any(NEEDS[other] == name for other in now) or in_use(name):
        raise KernelError(f"FATAL: Module {name} is in use.")
    show({other: version for other, version in now.items() if other != name})


def in_use(name: str) -> bool:
    """True if a daemon holds the driver's devices open."""
    pids = [file.read_text().strip() for file in USERS if file.exists()]
    return name == "nvidia" and any(Path(f"/proc/{pid}").exists() for pid in pids)


def show(modules: dict[str, str]) -> None:
    """Make these the loaded modules, everywhere where a host looks."""
    for name in NEEDS:
        folder = SELF / "module" / name
        shutil.rmtree(folder, ignore_errors=True)
        if name not in modules:
            continue
        folder.mkdir()
        (folder / "initstate").write_text("live\n")
        (folder / "refcnt").write_text(f"{len(users(name, modules))}\n")
        if modules[name]:
            (folder / "version").write_text(f"{modules[name]}\n")
        # As the stand-in for dkms has it in the module's file.
        sources = hashlib.md5(f"{name} {modules[name]}".encode()).hexdigest()[:23].upper()
        (folder / "srcversion").write_text(f"{sources}\n")
    show_compute_nodes(amd_gpus(modules))
    (SELF / "modules").write_text("".join(f"{line}\n" for line in table(modules)))
    for device in profile()["pci"]:
        link = SELF / "pci" / f"0000:{device['address']}" / "driver"
        link.unlink(missing_ok=True)
        if driver := driver_of(device, modules):
            link.symlink_to(f"../../../bus/pci/drivers/{driver}")
    # By a rename: amd-smi and lsmod read without the lock.
    new = SELF / "loaded.new"
    new.write_text(json.dumps(modules))
    new.rename(SELF / "loaded.json")


def show_compute_nodes(devices: list[dict]) -> None:
    """What amdgpu offers to compute on: the CPU and each device, as /sys/class/kfd has it."""
    root = SELF / "class/kfd/kfd"
    for folder in (root, SELF / "class/drm"):
        shutil.rmtree(folder, ignore_errors=True)
    if not devices:
        return
    output = {gpu["address"]: gpu for gpu in profile()["amd"]}
    nodes = [(0, 0, 0), *((int(d["ids"][5:], 16), *sizes(output[d["address"]])) for d in devices)]
    for number, (device_id, simd_count, size) in enumerate(nodes):
        node = root / "topology/nodes" / str(number)
        (node / "mem_banks/0").mkdir(parents=True)
        text = f"simd_count {simd_count}\nvendor_id {4098 if device_id else 0}\n"
        text += f"device_id {device_id}\ndrm_render_minor {127 + number if device_id else 0}\n"
        (node / "properties").write_text(f"cpu_cores_count 0\n{text}")
        # Of a processor's graphics newer kernels show the system's memory here.
        bank = max(size, 32 << 30)
        (node / "mem_banks/0/properties").write_text(f"heap_type 1\nsize_in_bytes {bank}\n")
        card = SELF / "class/drm" / f"renderD{127 + number}/device"
        card.mkdir(parents=True)
        (card / "mem_info_vram_total").write_text(f"{size}\n")


def sizes(gpu: dict) -> tuple[int, int]:
    return gpu["simd_count"], gpu["memory_mib"] << 20


def users(name: str, modules: dict[str, str]) -> list[str]:
    return [other for other in modules if NEEDS[other] == name]


def table(modules: dict[str, str]) -> list[str]:
    """The lines of /proc/modules."""
    lines = []
    for name in reversed(modules):
        by = "".join(f"{user}," for user in users(name, modules)) or "-"
        taint = " (POE)" if name.startswith("nvidia") else ""
        count = len(users(name, modules))
        size = SIZES.get(name, 131072)
        lines.append(f"{name} {size} {count} {by} Live 0x0000000000000000{taint}")
    return lines


def driver_of(device: dict, modules: dict[str, str]) -> str | None:
    """The name of the driver that has taken the device."""
    if device in amd_gpus(modules):
        return "amdgpu"
    if not device["ids"].startswith("10de:"):
        return None
    if device["class"][:2] == "03":
        return next((name for name in ("nvidia", "nouveau") if name in modules), None)
    return "nvidia-nvswitch" if device["class"] == "0680" and "nvidia" in modules else None


def make_pci() -> None:
    """The devices' folders, with the files of real ones."""
    known = profile()
    for device in known["pci"]:
        folder = SELF / "pci" / f"0000:{device['address']}"
        folder.mkdir(parents=True)
        vendor, number = device["ids"].split(":")
        files = {
            "class": f"0x{device['class']}00",
            "vendor": f"0x{vendor}",
            "device": f"0x{number}",
            "revision": f"0x{device['rev']}",
            "numa_node": device.get("numa_node", known["numa_node"]),
        }
        if device["class"][:2] == "03" and vendor == "10de":
            fields = known["fields"]
            files["current_link_width"] = fields["pcie.link.width.current"]
            files["max_link_width"] = fields["pcie.link.width.max"]
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")


def make_class() -> None:
    """A /sys/class with a place for kfd, which the real one, of this machine's kernel, has not."""
    real, shown = Path("/sys/class"), SELF / "class"
    (shown / "kfd").mkdir(parents=True)
    aside = real.with_name("class.real")
    aside.mkdir()
    bind(real, str(aside))
    for entry in aside.iterdir():
        if entry.name == "drm":
            continue
        (shown / entry.name).symlink_to(f"../{aside.name}/{entry.name}")
    bind(shown, str(real))


def bind(source: Path, target: str) -> None:
    subprocess.run(["mount", "--bind", str(source), target], check=True)


def boot() -> None:
    """Show the hardware, and load what this boot loads."""
    SELF.mkdir(mode=0o755)
    make_pci()
    (SELF / "module").mkdir()
    is_secure = (STATE / "secure-boot").exists()
    if is_secure:
        (SELF / "secure-boot").touch()
    variables = SELF / "firmware/efi/efivars"
    variables.mkdir(parents=True)
    (variables / f"SecureBoot-{EFI_GLOBAL}").write_bytes(bytes([6, 0, 0, 0, is_secure]))
    show({})
    # nspawn makes /sys of the folders that a host without hardware needs; these are not of them.
    subprocess.run(["mount", "-o", "remount,bind,rw", "/sys"], check=True)
    for name in ("module", "firmware"):
        Path("/sys", name).mkdir(exist_ok=True)
    if "amd" in profile():
        make_class()
    bind(SELF / "module", "/sys/module")
    bind(SELF / "pci", "/sys/bus/pci/devices")
    bind(SELF / "firmware", "/sys/firmware")
    subprocess.run(["mount", "-o", "remount,bind,ro", "/sys"], check=True)
    if Path("/proc/modules").exists():
        bind(SELF / "modules", "/proc/modules")
    load_at_boot()


def load_at_boot() -> None:
    """Load nouveau or the driver, as the devices and the disk have it."""
    early = INITRAMFS.read_text() if INITRAMFS.exists() else ""
    late = settings_on_disk()
    ids = [device["ids"].split(":")[1] for device in nvidia_gpus()]
    wanted = []
    if any(not number.startswith(TOO_NEW_FOR_NOUVEAU) for number in ids):
        # It is loaded unless both say no: from the initramfs, or later from the disk.
        wanted = [] if blocked(early, "nouveau") and blocked(late, "nouveau") else ["nouveau"]
    wanted += [n for n in AT_BOOT if ids and module_path(n) and not blocked(late, n)]
    path = module_path("amdgpu")
    if path and amd_gpus({"amdgpu": module_version(path)}) and not blocked(late, "amdgpu"):
        wanted.append("amdgpu")
    for name in wanted:
        try:
            insert(name)
        except KernelError as error:
            print(f"kernel: {error}", flush=True)


def modprobe(arguments: list[str]) -> int:
    """modprobe of the simulated modules; the real one does the rest."""
    names = [part.replace("-", "_") for part in arguments if not part.startswith("-")]
    flags = [part for part in arguments if part.startswith("-")]
    known = {"-r", "--remove", "-q", "--quiet", "-v", "--verbose", "-a", "--all", "-b", "-f"}
    if not names or set(flags) - known or set(names) - set(NEEDS):
        os.execv("/bin/kmod", ["modprobe", *arguments])
    is_removal = bool({"-r", "--remove"} & set(flags))
    is_quiet = bool({"-q", "--quiet"} & set(flags))
    return change("modprobe", names, is_removal, is_quiet)


def change(tool: str, names: list[str], is_removal: bool, is_quiet: bool = False) -> int:
    if os.geteuid() != 0:
        print(f"{tool}: ERROR: Operation not permitted", file=sys.stderr)
        return 1
    with (SELF / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            try:
                remove(name) if is_removal else insert(name)
            except KernelError as error:
                if not is_quiet:
                    print(f"{tool}: {error}", file=sys.stderr)
                return 1
    return 0


def lsmod() -> int:
    """lsmod, which reads /proc/modules where there is one."""
    print(f"{'Module':<24}{'Size':>8}  Used by")
    for line in (SELF / "modules").read_text().splitlines():
        name, size, count, by = line.split()[:4]
        print(f"{name:<24}{size:>8}  {count} {by.strip(',-')}".rstrip())
    return 0


def main() -> int:
    """Boot, or act as the tool of this name."""
    tool, *arguments = sys.argv[1:]
    match tool:
        case "boot":
            boot()
            return 0
        case "modprobe":
            return modprobe(arguments)
        case "rmmod":
            return change("rmmod", [name.replace("-", "_") for name in arguments], True)
        case _:
            return lsmod()


if __name__ == "__main__":
    sys.exit(main())
