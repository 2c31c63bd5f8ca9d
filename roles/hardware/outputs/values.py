"""Parses single values of GPU tools: numbers with units, flags, PCI addresses, placeholders."""

import re

from roles.hardware.outputs.text import MAX_NAME_LENGTH

# Placeholders for a value that the GPU lacks or that was redacted.
_ABSENT = {
    "",
    "-",
    "n/a",
    "not supported",
    "not available",
    "not available in wddm driver model",
    "requested functionality has been deprecated",
    "no data",
    "redacted",
}
# NVML's error texts, printed instead of a value; see nvmlErrorString.
_FAILURES = {
    "err!",
    "error",
    "unknown error",
    "gpu is lost",
    "gpu requires reset",
    "insufficient permissions",
    "insufficient external power",
    "irq issue",
    "timeout",
    "not found",
    "not ready",
    "uninitialized",
    "driver not loaded",
    "corrupted inforom",
    "invalid argument",
    "insufficient memory",
    "insufficient size",
    "in use",
    "in use by another client",
    "driver/library version mismatch",
    "gpu access blocked by the operating system",
}
_PCI_ADDRESS = re.compile(
    r"(?:([0-9a-f]{3,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f])", re.IGNORECASE
)
_PCI_DEVICE_ID = re.compile(r"(?:0x)?([0-9a-f]{4})([0-9a-f]{4})", re.IGNORECASE)
_VERSION = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,3}(?=$|\s)")
_NUMBER = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([^\d\s].*)?")
_TRUE = {"yes", "enabled", "on", "true", "1", "enabled*"}
_FALSE = {"no", "disabled", "off", "false", "0", "disabled*"}


def bare(text: str) -> str:
    """The text without the square brackets that CSV puts around placeholders."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == "[" and stripped[-1] == "]":
        return stripped[1:-1].strip()
    return stripped


def is_absent(text: str) -> bool:
    """Whether the text is a placeholder for a missing value: "N/A", "[Not Supported]", blank…"""
    return bare(text).lower() in _ABSENT


def is_failure(text: str) -> bool:
    """Whether the text is an error in place of a value: "[Unknown Error]", "ERR!"…

    Any other text in square brackets counts, too: no value is printed in brackets.
    """
    inner = bare(text)
    return inner.lower() in _FAILURES or (inner != text.strip() and not is_absent(text))


def is_denied(text: str) -> bool:
    """Whether the user may not see the value, which is not a fault of the GPU."""
    return bare(text).lower() == "insufficient permissions"


def pci_address(text: str) -> str | None:
    """ "00000000:3B:00.0" or "3B:00.0" as "0000:3b:00.0", None for anything else."""
    match = _PCI_ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()


def pci_device_id(text: str) -> str | None:
    """ "0x26B910DE" (device, then vendor, as NVML has it) as "10de:26b9"."""
    match = _PCI_DEVICE_ID.fullmatch(text.strip())
    return None if match is None else f"{match[2]}:{match[1]}".lower()


def name_text(text: str) -> str | None:
    """The text without surrounding blanks; None if it is blank or longer than any name."""
    stripped = text.strip()
    return stripped if 0 < len(stripped) <= MAX_NAME_LENGTH else None


def flag(text: str) -> bool | None:
    """Yes, Enabled, On and the like, or their opposites."""
    lowered = text.strip().lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def version(text: str) -> str | None:
    """A version such as "580.65.06", even with a remark after it."""
    match = _VERSION.match(text.strip())
    return None if match is None else match[0]


def number(text: str, *units: str) -> float | None:
    """A number, alone or with one of the units; None for any other text."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[2] is not None and match[2].strip().lower() not in units):
        return None
    return float(match[1])


def whole(text: str, *units: str) -> int | None:
    """A whole number from 0, alone or with one of the units."""
    value = number(text, *units)
    return int(value) if value is not None and value >= 0 and value.is_integer() else None


def mebibytes(text: str) -> int | None:
    """ "81559 MiB" or "81559"; old drivers print "MB" and mean MiB."""
    return whole(text, "mib", "mb")
