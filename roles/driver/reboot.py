"""The reasons to reboot a host for its driver. Pure."""

from roles.driver.packages import is_driver
from roles.driver.state import DriverState


def reboot_reasons(state: DriverState, amd_gpus: int = 0) -> tuple[str, ...]:
    """Why the installed driver serves only after a reboot; empty if it needs none or is missing.

    A module that is merely not loaded needs no reboot. `amd_gpus`: the number of AMD GPUs, 0 for
    NVIDIA's.
    """
    return tuple(_amd_reasons(state, amd_gpus) if amd_gpus else _nvidia_reasons(state))


def reboot_recommendations(state: DriverState, amd_gpus: int = 0) -> tuple[str, ...]:
    """Why a reboot is recommended for a driver that serves without one.

    `amd_gpus`: the number of AMD GPUs, 0 for NVIDIA's.
    """
    return (*_kernel_recommendation(state), *_amdgpu_recommendation(state, amd_gpus))


def reboot_blocker(state: DriverState) -> str:
    """Why a reboot would leave the host without its driver, "" if it would not."""
    next_kernel = state.next_kernel
    if next_kernel == state.kernel or not state.modules or next_kernel in state.modules:
        return ""
    return (
        f"kernel {next_kernel} boots next, and there is no module of the driver for it: install "
        "its headers (apt-get install linux-headers-…, dnf install kernel-devel-…) and run dkms "
        "autoinstall, or remove that kernel"
    )


def _kernel_recommendation(state: DriverState):
    # A newer kernel that was installed independently of the driver is not reported.
    if state.kernel_upgraded and state.next_kernel != state.kernel:
        yield f"kernel {state.next_kernel} was installed with the driver, {state.kernel} runs"


def _amdgpu_recommendation(state: DriverState, gpus: int):
    # Neither is an amdgpu that another program installed.
    if not gpus or not state.amdgpu_upgraded or state.amdgpu_loaded is None:
        return
    comes = state.next_kernel in state.amdgpu_built_for and not is_same_amdgpu(state)
    if comes and not reboot_reasons(state, gpus):
        yield f"amdgpu {state.amdgpu_upgraded} was installed, and the one before it is loaded"


def _nvidia_reasons(state: DriverState):
    if state.answers is not None or (not state.modules and state.module is None):
        # A driver that answers needs no reboot, and a missing driver gains nothing from one.
        return
    if "nouveau" in state.in_kernel:
        yield "the kernel's nouveau driver still holds the GPUs"
    if state.loaded and state.module and state.loaded != state.module:
        yield f"driver {state.loaded} is loaded, {state.module} is installed"
    elif state.loaded and state.library and state.loaded != state.library:
        yield f"driver {state.loaded} is loaded, its libraries are {state.library}"
    elif state.loaded and state.loaded_open is not None and state.module:
        is_open = state.kernel in state.open_modules
        if is_open != state.loaded_open:
            there, loaded = ("open", "proprietary") if is_open else ("proprietary", "open")
            yield f"its {loaded} kernel modules are loaded, the {there} ones are installed"
    elif not state.module and state.modules.get(state.next_kernel):
        yield (
            f"the driver is built for kernel {state.next_kernel}, which boots next, and not for "
            f"{state.kernel}, which runs"
        )
    asking = [name for name in state.reboot_required_by if is_driver(name)]
    if asking and state.loaded is not None:
        yield f"{', '.join(asking)} asked for a reboot"


def _amd_reasons(state: DriverState, gpus: int):
    if max(state.amd_gpus or 0, state.kfd_gpus) >= gpus:
        return
    if state.amdgpu_built and not is_same_amdgpu(state) and "amdgpu" in state.in_kernel:
        yield "another amdgpu is loaded than amdgpu-dkms has installed"
    elif not state.amdgpu_built and state.next_kernel in state.amdgpu_built_for:
        yield (
            f"amdgpu is built for kernel {state.next_kernel}, which boots next, and not for "
            f"{state.kernel}, which runs"
        )


def is_same_amdgpu(state: DriverState) -> bool:
    """Whether the loaded amdgpu is the one on the disk, so that a reboot changes nothing."""
    return state.amdgpu_loaded is not None and state.amdgpu_loaded == state.amdgpu_source
