"""What a host reports about itself in one command: the script and what its output means."""

from collections.abc import Sequence
from dataclasses import dataclass

from roles.hardware.gpus import Gpu
from roles.hardware.lspci import PciGpu, parse_lspci
from roles.hardware.nvidia_smi import QUERY, SmiReport, parse_query
from roles.hardware.terminal import clean_lines

SMI_TIMEOUT_S = 30
_MARK = "@@ "
_MISSING = "missing"

# POSIX sh. It asks as the ordinary user, from no terminal, so that nothing can wait for an answer;
# `-k` because a driver that hangs does not always let go at the first signal. lspci is in /usr/sbin
# on some systems, nvidia-smi in /usr/lib/wsl/lib under WSL; neither may be on an ssh user's PATH.
SCRIPT = f"""\
exec 2>/dev/null </dev/null
PATH="$PATH:/usr/sbin:/sbin:/usr/lib/wsl/lib"
export PATH LC_ALL=C
has() {{ command -v "$1" >/dev/null; }}
limit() {{ if has timeout; then timeout -k 5 "$@"; else shift; "$@"; fi; }}
echo "{_MARK}user"; id -u
echo "{_MARK}sudo"; limit 10 sudo -n true >/dev/null && echo yes
echo "{_MARK}os"; (. /etc/os-release && echo "$ID $VERSION_ID")
echo "{_MARK}nvidia-smi"; status={_MISSING}
if has nvidia-smi; then
limit {SMI_TIMEOUT_S} {QUERY} 2>&1; status=$?; echo
fi
echo "{_MARK}nvidia-smi-status"; echo "$status"
echo "{_MARK}lspci"
if has lspci; then limit 20 lspci -D -nn; else echo {_MISSING}; fi
echo "{_MARK}end"
exit 0
"""


@dataclass(frozen=True)
class HostReport:
    """What a host says of its user, its system and its GPUs.

    `gpus` is None where no driver could be asked; `pci_gpus` is what the PCI bus shows then;
    `faults` says in words what is wrong and what to do about it.
    """

    passwordless_sudo: bool
    root: bool
    os: str
    gpus: tuple[Gpu, ...] | None
    driver_version: str | None
    pci_gpus: tuple[PciGpu, ...]
    faults: tuple[str, ...]


NO_REPORT = HostReport(False, False, "", None, None, (), ("the host gave no report of itself",))


def parse_report(lines: Sequence[str]) -> HostReport:
    """Read the output of `SCRIPT`; ValueError where it is cut short or says what nobody expects."""
    parts = _parts(lines)
    pci_gpus = parse_lspci(parts["lspci"])
    smi = _smi(parts["nvidia-smi"], parts["nvidia-smi-status"].strip(), parts["lspci"], pci_gpus)
    return HostReport(
        passwordless_sudo=parts["sudo"].strip() == "yes",
        root=parts["user"].strip() == "0",
        os=" ".join(clean_lines(parts["os"])),
        gpus=smi.gpus,
        driver_version=smi.driver_version,
        pci_gpus=pci_gpus,
        faults=smi.faults,
    )


def _parts(lines: Sequence[str]) -> dict[str, str]:
    """The text below each label."""
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith(_MARK):
            # What stands above the first label is a login's banner.
            current = parts.setdefault(line.removeprefix(_MARK).strip(), [])
        else:
            current.append(line)
    missing = {"user", "sudo", "os", "nvidia-smi", "nvidia-smi-status", "lspci", "end"} - set(parts)
    if missing:
        raise ValueError(f"the host's report is cut short: {', '.join(sorted(missing))} missing")
    return {label: "\n".join(part) for label, part in parts.items()}


def _smi(text: str, status: str, lspci: str, pci_gpus: tuple[PciGpu, ...]) -> SmiReport:
    if status == _MISSING:
        return SmiReport(None, faults=(_no_driver(lspci, pci_gpus),))
    if status in ("124", "137"):
        fault = f"nvidia-smi gave no answer in {SMI_TIMEOUT_S} s: the driver hangs; see dmesg "
        return SmiReport(None, faults=(f"{fault}for Xid errors and reboot the host",))
    try:
        smi = parse_query(text)
    except ValueError as error:
        if status == "0":
            raise
        fault = f"nvidia-smi failed with status {status}: {error}"
        return SmiReport(None, faults=(fault,))
    if status == "0" or smi.faults:
        return smi
    fault = f"nvidia-smi answered but ended with status {status}: run it on the host and see"
    return SmiReport(smi.gpus, smi.driver_version, (fault,))


def _no_driver(lspci: str, pci_gpus: tuple[PciGpu, ...]) -> str:
    if lspci.strip() == _MISSING:
        return "no nvidia-smi and no lspci: install the NVIDIA driver and pciutils"
    if any(gpu.device_id.startswith("10de:") for gpu in pci_gpus):
        return "no nvidia-smi: the NVIDIA driver is not installed; install it"
    return "no nvidia-smi, and no NVIDIA GPU on the PCI bus: check that the host has its cards"
