"""The files that a driver's installation writes on a host."""

from roles.host import HostFile

NOUVEAU = HostFile(
    "/etc/modprobe.d/llm-nouveau.conf",
    "# Written by pyinfra-llm: nouveau would hold the GPUs.\n"
    "blacklist nouveau\noptions nouveau modeset=0\n",
)
# nvlsm needs this module to reach the NVSwitches of B200 and B300.
IB_UMAD = HostFile(
    "/etc/modules-load.d/llm-nvlsm.conf", "# Written by pyinfra-llm, for nvlsm.\nib_umad\n"
)
OURS = (
    NOUVEAU.path,
    IB_UMAD.path,
    "/etc/apt/preferences.d/llm-nvidia",
    "/etc/apt/sources.list.d/llm-nvidia.list",
    "/etc/apt/sources.list.d/llm-amd.list",
    "/etc/yum.repos.d/llm-nvidia.repo",
    "/etc/yum.repos.d/llm-amd.repo",
)
