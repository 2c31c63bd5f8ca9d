"""Checks of disk space, weights and memory. Pure.

The sizes of engines are estimates that the engines give. An engine is unpacked into the temporary
folder before it is installed.
"""

from collections.abc import Iterator, Sequence

from roles.checks import Check
from roles.driver import NEEDED_MIB
from roles.engine import strictest
from roles.host.paths import ADAPTERS, CACHE, ENGINES
from roles.preflight.answers import Files, Folder
from roles.preflight.context import (
    GIB,
    MIB,
    CheckContext,
    format_bytes,
    ok,
    skipped,
    stop,
    unique_names,
    warning,
)
from roles.preflight.driver_need import installs_driver
from roles.preflight.needs import HostNeeds, Weights
from roles.tuning import shm_wanted_mib

_ENGINE_INODES = 100_000
_DRIVER_BYTES = {folder: mib * MIB for folder, mib in NEEDED_MIB.items()}
_BALANCER_BYTES = 512 * MIB
# For a few packages and logs.
_MIN_BYTES, _MIN_INODES = 200 * MIB, 5_000
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".gguf")
# The largest file of most checkpoints: transformers splits weights at this size.
_SHARD_BYTES = 5 * GIB
# Folders that the engines' units cannot see (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


def folders(needs: HostNeeds) -> tuple[str, ...]:
    """The folders whose file systems are looked up."""
    own = ("/", "/var")
    if needs.driver:
        own += tuple(_DRIVER_BYTES)
    if engine := needs.installed_engine:
        hubs = tuple(one.kept_in for one in engine.weights if one.kept_in)
        own += (ENGINES, CACHE, "/tmp", *hubs, *((ADAPTERS,) if engine.adapters else ()))
    return own


def disk_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of disks and memory."""
    if context.answers.temporary_full:
        yield stop(
            "temporary-files",
            "neither /dev/shm nor /tmp takes a file (full, or read-only)",
            "make room there: df -h /dev/shm /tmp; df -i /tmp",
        )
    yield from mounts(context)
    yield inodes(context)
    yield from shared_disks(context)
    if context.engine:
        yield engine_disk(context)
        yield temporary_disk(context)
        yield from weights_checks(context, context.engine.weights)
        if context.engine.adapters:
            yield adapters_disk(context)
        yield memory(context)
        yield shared_memory(context)
    if context.needs.driver:
        yield from driver_disks(context)
    if balancer := context.needs.balancer:
        what = f"for {balancer.program} and its logs"
        yield _free_space(context, "disk-balancer", "/var", _BALANCER_BYTES, what)


def shared_disks(context: CheckContext) -> Iterator[Check]:
    """Whether everything that will be written to one file system fits there together."""
    sums: dict[str, dict[tuple[str, str], int]] = {}
    for folder, needed, what in _disk_demands(context):
        found = context.answers.folders.get(folder)
        if found and found.mount and found.free_bytes is not None and needed > 0:
            sums.setdefault(found.mount, {})[folder, what] = needed
    for mount, parts in sums.items():
        free = next(
            one.free_bytes or 0 for one in context.answers.folders.values() if one.mount == mount
        )
        total = sum(parts.values())
        fits_each = all(needed <= free for needed in parts.values())
        if len(parts) > 1 and fits_each and total > free:
            demands = " + ".join(
                f"{format_bytes(needed)} {what}" for (_, what), needed in parts.items()
            )
            yield stop(
                "disk-together",
                f"{format_bytes(free)} free on {mount}, {format_bytes(total)} are needed: "
                f"{demands}",
                f"make room on {mount}, or put {CACHE} on another disk",
            )


def _disk_demands(context: CheckContext) -> Iterator[tuple[str, int, str]]:
    engine = context.engine
    if engine and context.must_install_engine:
        yield ENGINES, engine.needs.installed_gib * GIB, f"for {engine.needs.name}"
    for one in engine.weights if engine else ():
        cached = cached_bytes(context, one)
        is_written = one.copy_folder or (one.hub_folder and one.hub)
        if one.kept_in and is_written and not is_complete(cached, one):
            yield one.kept_in, int(one.size_bytes * 1.1) - cached, f"for {one.source}"
    if needed := missing_adapter_bytes(context):
        yield ADAPTERS, needed, "for LoRA adapters"
    if installs_driver(context.report, context.needs):
        for folder, needed in _DRIVER_BYTES.items():
            yield folder, needed, f"for the driver in {folder}"


def weights_checks(context: CheckContext, all_weights: Sequence[Weights]) -> Iterator[Check]:
    """A check for each of the weights; two engines may load one source, each into its own cache."""
    names = unique_names(f"weights:{weights.source}" for weights in all_weights)
    for name, weights in zip(names, all_weights, strict=True):
        check = hub_disk if weights.hub_folder else weights_folder
        yield check(context, weights, name)
    for weights in all_weights:
        if weights.copy_folder:
            yield copy_disk(context, weights)


def _free_space(context: CheckContext, name: str, folder: str, needed: int, what: str) -> Check:
    found = context.answers.folders.get(folder)
    if found is None or found.free_bytes is None:
        return skipped(name, f"the file system of {folder} does not say")
    evidence = f"{format_bytes(found.free_bytes)} free on {found.mount} for {folder}"
    if found.free_bytes < needed:
        return stop(
            name,
            f"{evidence}, {format_bytes(needed)} are needed {what}",
            f"make room on {found.mount}, or mount a larger disk at {folder}",
        )
    return ok(name, evidence)


def engine_disk(context: CheckContext) -> Check:
    """Room for the engine's packages."""
    assert context.engine
    if not context.must_install_engine:
        return skipped("disk-engine", "the engine is installed")
    needed = context.engine.needs.installed_gib * GIB
    return _free_space(context, "disk-engine", ENGINES, needed, f"for {context.engine.needs.name}")


def temporary_disk(context: CheckContext) -> Check:
    """Whether /tmp has room for the wheels that uv unpacks there before it installs them."""
    assert context.engine
    if not context.must_install_engine:
        return skipped("disk-temporary", "the engine is installed")
    wheels = [one for one in dict.fromkeys(context.engine.engines) if one.package_indexes]
    if not wheels:
        return skipped("disk-temporary", f"what is installed is unpacked in {ENGINES}")
    needed = sum(one.installed_gib for one in wheels) * GIB
    folder, target = context.answers.folders.get("/tmp"), context.answers.folders.get(ENGINES)
    if folder and target and folder.mount == target.mount:
        # Files are linked, not copied, within one file system.
        return ok("disk-temporary", f"/tmp is on {folder.mount}, as {ENGINES}")
    found = _free_space(
        context, "disk-temporary", "/tmp", needed, f"to unpack {strictest(wheels).name}"
    )
    if found.outcome != "fail" or folder is None or folder.free_bytes is None:
        return found
    # The estimate of what is unpacked at once is rough, so a small lack is a warning only.
    make_check = stop if folder.free_bytes < needed / 2 else warning
    return make_check(
        found.name,
        found.evidence,
        "make /tmp larger (a tmpfs: sudo mount -o remount,size=16G /tmp; or sudo systemctl mask "
        "tmp.mount and reboot)",
    )


def hub_disk(context: CheckContext, weights: Weights, name: str) -> Check:
    """Whether the hub's cache has room for what is still to be downloaded."""
    folder = weights.hub_folder or ""
    present = cached_bytes(context, weights)
    needed = int(weights.size_bytes * 1.1) - present
    if is_complete(present, weights):
        return ok(name, f"{format_bytes(present)} in the hub's cache on the host")
    if weights.hub is None:
        return stop(
            name,
            f"the engine is set to stay offline, and {folder} holds {format_bytes(present)} of "
            f"about {format_bytes(weights.size_bytes)}",
            f"download the weights there first, set {weights.setting} to a folder on the host, or "
            "remove HF_HUB_OFFLINE from the engine's environment",
        )
    return _free_space(
        context, name, folder, needed, f"for {weights.source}, beside {format_bytes(present)}"
    )


def copy_disk(context: CheckContext, weights: Weights) -> Check:
    """Whether there is room for the engine's own copy of a file."""
    name, present = f"disk-copy:{weights.source}", cached_bytes(context, weights)
    if is_complete(present, weights):
        return ok(name, f"{format_bytes(present)} are copied")
    needed, folder = int(weights.size_bytes * 1.1) - present, weights.copy_folder or ""
    return _free_space(context, name, folder, needed, f"for a copy of {weights.source}")


def adapters_disk(context: CheckContext) -> Check:
    """Whether there is room for the LoRA adapters that a deploy copies."""
    assert context.engine
    if not context.answers.root:
        return skipped("disk-adapters", "not checked: it needs sudo")
    needed, count = missing_adapter_bytes(context), len(context.engine.adapters)
    if not needed:
        return ok("disk-adapters", f"{count} adapters are there")
    return _free_space(context, "disk-adapters", ADAPTERS, needed, "for LoRA adapters")


def missing_adapter_bytes(context: CheckContext) -> int:
    """The bytes of the adapters that a host lacks; a folder is there only if it is whole."""
    wanted = context.engine.adapters if context.engine and context.answers.root else {}
    there = context.answers.weights
    return sum(size for path, size in wanted.items() if path not in there or not there[path].real)


def cached_bytes(context: CheckContext, weights: Weights) -> int:
    """How many bytes of a model are kept on the host: in the hub's cache, or as a copy."""
    cached = context.answers.hub.get(weights.kept_in or "")
    return sum(bytes_ for _, bytes_ in cached.sizes) if cached else 0


def is_complete(present: int, weights: Weights) -> bool:
    """Whether this many bytes can be the whole model; file formats differ by a few percent."""
    return present >= weights.size_bytes * 0.95 > 0


def weights_folder(context: CheckContext, weights: Weights, name: str) -> Check:
    """Whether a folder with weights exists, is complete, and can be read by engines."""
    folder = weights.source
    found = context.answers.weights.get(folder)
    if not context.answers.root:
        return skipped(name, "not checked: it needs sudo")
    if found is None or found.real is None:
        return stop(
            name, f"{folder} is not on the host", "copy the weights there, or mount their disk"
        )
    if hidden := [place for place in _HIDDEN if _is_below(found.real, place)]:
        return stop(
            name,
            f"{folder} is in {hidden[0]}, which the engines' units do not see",
            f"move the weights, for instance to /srv/models, and change {weights.setting}",
        )
    return _weights_inside(name, found, weights)


def _weights_inside(name: str, found: Files, weights: Weights) -> Check:
    names = [file for file, _ in found.sizes]
    cached = sum(bytes_ for file, bytes_ in found.sizes if file.endswith(_WEIGHT_FILES))
    if "config.json" not in names and not any(file.endswith(".gguf") for file in names):
        return stop(
            name,
            f"{weights.source} has no config.json",
            "name the folder that holds config.json and the *.safetensors files",
        )
    if not cached:
        return stop(name, f"{weights.source} has no *.safetensors", "copy the weights there whole")
    if not found.readable:
        return stop(
            name,
            f"others than root cannot read {weights.source}",
            f"sudo chmod -R a+rX {weights.source} (and a+x on the folders above)",
        )
    evidence = f"{format_bytes(cached)} in {weights.source}"
    if not is_complete(cached, weights):
        return warning(
            name,
            f"{evidence}, about {format_bytes(weights.size_bytes)} are expected",
            "copy what is missing, unless a smaller model is there on purpose",
        )
    return ok(name, evidence)


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def mounts(context: CheckContext) -> Iterator[Check]:
    """Whether file systems that a deploy writes to are read-only, or forbid to run programs."""
    bad: dict[str, str] = {}
    for folder, found in context.answers.folders.items():
        if "ro" in found.options and not _is_below(folder, "/boot"):
            bad[f"{found.mount} is mounted read-only"] = (
                f"see why (dmesg), then: sudo mount -o remount,rw {found.mount}"
            )
        if "noexec" in found.options and folder in (ENGINES, CACHE):
            bad[f"{found.mount} is mounted noexec, engines run code from {folder}"] = (
                f"take noexec from {found.mount} in /etc/fstab, then: "
                f"sudo mount -o remount,exec {found.mount}"
            )
    for evidence, remedy in bad.items():
        yield stop("mounts", evidence, remedy)
    if not bad:
        yield ok("mounts", "writable")


def inodes(context: CheckContext) -> Check:
    """Whether file systems have free inodes: without them no file can be made."""
    for folder, found in context.answers.folders.items():
        is_engines = folder == ENGINES and context.must_install_engine
        least = _ENGINE_INODES if is_engines else _MIN_INODES
        if found.free_inodes is not None and found.free_inodes < least and not _is_boot(found):
            return stop(
                "inodes",
                f"{found.mount} has room for {found.free_inodes} more files",
                f"delete many small files there: sudo du --inodes -x {found.mount} | sort -n | "
                "tail",
            )
    return ok("inodes", "enough")


def _is_boot(found: Folder) -> bool:
    return (found.mount or "").startswith("/boot")


def driver_disks(context: CheckContext) -> Iterator[Check]:
    """Whether there is room for the driver's packages, and for the initramfs that is rebuilt."""
    needs_room = installs_driver(context.report, context.needs)
    for folder, needed in _DRIVER_BYTES.items():
        name = f"disk-driver:{folder}"
        if needs_room:
            yield _free_space(context, name, folder, needed, "for the driver")
        else:
            yield skipped(name, "no driver is to be installed")


def memory(context: CheckContext) -> Check:
    """Whether there is enough RAM: a replica loads its weights file by file, and needs some GiB
    beside. On a CPU all weights stay in RAM."""
    assert context.engine
    found = context.report.system.ram_mib
    if found is None:
        return skipped("memory", "the host does not say")
    copies = {one.copy_folder for one in context.engine.weights}
    hubs = [found for folder, found in context.answers.hub.items() if folder not in copies]
    folders = context.answers.weights.items()
    sizes = [*hubs, *(one for path, one in folders if path not in context.engine.adapters)]
    files = [bytes_ for one in sizes for _, bytes_ in one.sizes]
    largest = max(files, default=0) or _SHARD_BYTES
    needed = largest + 4 * GIB * max(1, context.engine.replicas)
    if context.engine.device == "cpu":
        cached = sum(files) or sum(one.size_bytes for one in context.engine.weights)
        needed = cached * max(1, context.engine.replicas)
    evidence = f"{format_bytes(found * MIB)}"
    if found * MIB < needed:
        return warning(
            "memory",
            f"{evidence}, about {format_bytes(needed)} are wanted to load the weights",
            "add memory, or expect slow loading and watch for the kernel's out-of-memory killer",
        )
    return ok("memory", evidence)


def shared_memory(context: CheckContext) -> Check:
    """The size of /dev/shm, which the processes of a replica share; the tuning enlarges it."""
    assert context.engine
    found = context.report.system.dev_shm_mib
    if context.engine.most_gpus < 2:
        return skipped("shared-memory", "no replica has more than one GPU")
    if found is None:
        return skipped("shared-memory", "the host does not say")
    memory_mib = context.report.system.ram_mib or 0
    wanted = shm_wanted_mib(context.engine.shm_gib, context.engine.most_gpus, memory_mib)
    grows = f"; the tuning makes it {format_bytes(wanted * MIB)}" if found < wanted else ""
    return ok("shared-memory", format_bytes(found * MIB) + grows)
