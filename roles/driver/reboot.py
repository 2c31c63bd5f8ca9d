"""Why a host has to be rebooted for its driver. Pure."""

from roles.driver.packages import is_driver
from roles.driver.state import DriverState


def reboot_reasons(state: DriverState, amd_gpus: int = 0) -> tuple[str, ...]:
    """Why the installed driver serves only after a reboot; empty where it does, or there is none.

    A module that is only not loaded is loaded without a reboot. `amd_gpus`: how many GPUs the host
    has, where they are AMD's.
    """
    return tuple(_amd_reasons(state, amd_gpus) if amd_gpus else _nvidia_reasons(state))


def reboot_wishes(state: DriverState) -> tuple[str, ...]:
    """Why a reboot would be good for the driver, which serves without one too."""
    # A newer kernel that waits since before is nobody's business here.
    if not state.kernel_upgraded or state.next_kernel == state.kernel:
        return ()
    return (f"kernel {state.next_kernel} was installed with the driver, {state.kernel} runs",)


def _nvidia_reasons(state: DriverState):
    if not state.modules and state.module is None:
        # Without an installed driver no reboot helps.
        return
    if "nouveau" in state.in_kernel:
        yield "the kernel's nouveau driver still holds the GPUs"
    if state.loaded and state.module and state.loaded != state.module:
        yield f"driver {state.loaded} is loaded, {state.module} is installed"
    elif state.loaded and state.library and state.loaded != state.library:
        yield f"driver {state.loaded} is loaded, its libraries are {state.library}"
    elif not state.answers and not state.module and state.modules.get(state.next_kernel):
        yield (
            f"the driver is built for kernel {state.next_kernel}, which boots next, and not for "
            f"{state.kernel}, which runs"
        )
    asking = [name for name in state.reboot_required_by if is_driver(name)]
    if asking and state.loaded is not None and state.answers is None:
        yield f"{', '.join(asking)} asked for a reboot"


def _amd_reasons(state: DriverState, gpus: int):
    built = state.amdgpu_module is not None and "/dkms/" in state.amdgpu_module
    # What rocm-smi alone can list serves as well.
    by_rocm_smi = state.kfd_gpus if state.has_rocm_smi else 0
    serves = max(state.amd_gpus or 0, by_rocm_smi) >= gpus
    if built and not serves and "amdgpu" in state.in_kernel:
        yield "amdgpu of the kernel is loaded, the one of amdgpu-dkms is installed"
