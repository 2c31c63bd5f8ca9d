#!/usr/bin/python3
"""dkms of the lab: builds no C, but kernel module files that the real modinfo and depmod can read.

Knows add, build, install, remove, autoinstall and status, keeps the real one's folders under
/var/lib/dkms and /usr/src, and like it builds nothing without the kernel's headers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

TREE = Path("/var/lib/dkms")
SOURCES = Path("/usr/src")
MODULES = Path("/lib/modules")
INSTALLED = "updates/dkms"
"""Where Debian's dkms puts modules, under the kernel's folder."""
SIGNED = b"~Module signature appended~\n"
"""The last bytes of a signed module file."""


class DkmsError(Exception):
    """What the tool prints after `Error! `."""


def module_file(fields: dict[str, str]) -> bytes:
    """A relocatable ELF file for x86-64 with nothing but a .modinfo section of these fields."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in fields.items())
    names = b"\0.modinfo\0.shstrtab\0"
    at_info = 64
    at_names = at_info + len(info)
    at_sections = (at_names + len(names) + 7) // 8 * 8
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 1, 62, 1, 0, 0, at_sections, 0, 64, 0, 0, 64, 3, 2
    )
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, at_info, len(info), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, at_names, len(names), 0, 0, 1, 0)
    body = header + info + names
    return body.ljust(at_sections, b"\0") + sections


def source_version(name: str, version: str) -> str:
    """What modinfo calls srcversion: a sum over what the module was built from."""
    return hashlib.md5(f"{name} {version}".encode()).hexdigest()[:23].upper()


def folder(module: str, version: str) -> Path:
    return TREE / module / version


def source(module: str, version: str) -> Path:
    return SOURCES / f"{module}-{version}"


def add(module: str, version: str) -> None:
    """Make a source known."""
    if not (source(module, version) / "dkms.conf").is_file():
        raise DkmsError(
            f"Could not find module source directory.\nDirectory: {source(module, version)}"
        )
    if folder(module, version).exists():
        raise DkmsError(f"DKMS tree already contains: {module}/{version}")
    folder(module, version).mkdir(parents=True)
    (folder(module, version) / "source").symlink_to(source(module, version))


def build(module: str, version: str, kernel: str) -> None:
    """Make the module files for a kernel."""
    if not folder(module, version).exists():
        add(module, version)
    headers = MODULES / kernel / "build"
    if not headers.exists():
        raise DkmsError(
            f"Your kernel headers for kernel {kernel} cannot be found at {headers} or "
            f"{MODULES / kernel / 'source'}.\nPlease install the linux-headers-{kernel} package "
            "or use the --kernelsourcedir option to tell DKMS where it's located."
        )
    conf = (source(module, version) / "dkms.conf").read_text()
    common = (source(module, version) / "modinfo").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in common)
    built = folder(module, version) / kernel / "x86_64" / "module"
    built.mkdir(parents=True, exist_ok=True)
    for name in re.findall(r'^BUILT_MODULE_NAME\[\d+\]="(.+)"', conf, re.MULTILINE):
        all_fields = {"version": version, **fields, "name": name.replace("-", "_")}
        all_fields["srcversion"] = source_version(name, all_fields["version"])
        if name != module:
            all_fields["depends"] = module
        all_fields["vermagic"] = f"{kernel} SMP preempt mod_unload modversions "
        (built / f"{name}.ko").write_bytes(module_file(all_fields))


def install(module: str, version: str, kernel: str) -> None:
    """Put the module files where the kernel finds them."""
    built = folder(module, version) / kernel / "x86_64" / "module"
    if not built.exists():
        build(module, version, kernel)
    target = MODULES / kernel / INSTALLED
    target.mkdir(parents=True, exist_ok=True)
    for file in built.glob("*.ko"):
        partial = target / f".{file.name}"
        shutil.copy(file, partial)
        partial.rename(target / file.name)
    subprocess.run(["depmod", kernel], check=True)


def remove(module: str, version: str) -> None:
    """Forget a source and take its module files away, of all kernels."""
    if not folder(module, version).exists():
        raise DkmsError(
            f"The module/version combo: {module}-{version} is not located in the DKMS tree."
        )
    for built in folder(module, version).glob("*/x86_64/module"):
        kernel = built.parents[1].name
        for file in built.glob("*.ko"):
            (MODULES / kernel / INSTALLED / file.name).unlink(missing_ok=True)
        subprocess.run(["depmod", kernel], check=True)
    shutil.rmtree(folder(module, version))


def autoinstall(kernel: str) -> None:
    """Build and install every known source that this kernel lacks."""
    for known in sorted(TREE.glob("*/*/source")):
        if not (known.parent / kernel).exists():
            install(known.parents[1].name, known.parent.name, kernel)


def status(module: str | None) -> None:
    """One line for each source and kernel, as dkms 3 prints it."""
    for known in sorted(TREE.glob("*/*/source")):
        name, version = known.parents[1].name, known.parent.name
        if module and name != module:
            continue
        kernels = [built.parents[1].name for built in known.parent.glob("*/x86_64/module")]
        for kernel in kernels:
            files = [file.name for file in (known.parent / kernel / "x86_64/module").glob("*.ko")]
            there = all((MODULES / kernel / INSTALLED / file).exists() for file in files)
            print(f"{name}/{version}, {kernel}, x86_64: {'installed' if there else 'built'}")
        if not kernels:
            print(f"{name}/{version}: added")


def main(arguments: list[str]) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="dkms", allow_abbrev=False)
    parser.add_argument("command")
    parser.add_argument("combo", nargs="?")
    parser.add_argument("-m")
    parser.add_argument("-v")
    parser.add_argument("-k", default=os.uname().release)
    parser.add_argument("-a", "--arch")
    for flag in ("--all", "--force", "-q", "--rpm_safe_upgrade"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args(arguments)
    module, _, version = (given.combo or "").partition("/")
    module, version = given.m or module, given.v or version
    try:
        match given.command:
            case "add":
                add(module, version)
            case "build":
                build(module, version, given.k)
            case "install":
                install(module, version, given.k)
            case "remove" | "uninstall":
                remove(module, version)
            case "autoinstall":
                autoinstall(given.k)
            case "status":
                status(module or None)
            case unknown:
                raise DkmsError(f"Unknown action specified: {unknown}")
    except (DkmsError, OSError) as error:
        print(f"Error! {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
