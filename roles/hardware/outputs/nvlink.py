"""`nvidia-smi nvlink --status`: the NVLinks of each GPU and whether they are up."""

import re
from dataclasses import dataclass

from roles.hardware.outputs.text import Line, OutputError, read_lines

_GPU = re.compile(r"(?:.*\s)?GPU\s+(\d+):\s+(.+?)(?:\s+\(UUID:\s*([^)]*)\)?)?\s*")
_LINK = re.compile(
    r"(?:.*\s)?Link\s+(\d+):\s*(?:(\d+(?:\.\d+)?)\s*GB/s|<?\s*(inactive)\s*>?)\s*", re.I
)
_LINK_START = re.compile(r"(?:^|\s)Link\s+\d+", re.I)
_MESSAGE = re.compile(r"(?i)(?<!nvidia-smi )\bnvlink\b")


@dataclass(frozen=True)
class NvlinkGpu:
    """A GPU that was asked; `message` is what the driver said in place of links, as printed."""

    index: int
    name: str
    uuid: str | None
    message: str | None


@dataclass(frozen=True)
class NvlinkLink:
    """One NVLink of a GPU; `gb_s` is its speed one way in GB/s, None where it is down."""

    gpu: int
    link: int
    gb_s: float | None
    active: bool


@dataclass(frozen=True)
class NvlinkStatus:
    """The GPUs and their links, in the order of the output."""

    gpus: tuple[NvlinkGpu, ...]
    links: tuple[NvlinkLink, ...]


def parse_nvlink(text: str) -> NvlinkStatus:
    """Reads `nvidia-smi nvlink -s`; OutputError for another output or a link that has no state."""
    gpus: list[NvlinkGpu] = []
    links: list[NvlinkLink] = []
    for line in read_lines(text):
        if _LINK_START.search(line.text):
            links.append(_read_link(line, gpus, links))
        elif gpu := _GPU.fullmatch(line.text):
            if any(int(gpu[1]) == other.index for other in gpus):
                raise OutputError(f"GPU {gpu[1]} a second time: give one host's output", line)
            gpus.append(NvlinkGpu(int(gpu[1]), gpu[2], gpu[3] or None, None))
        elif gpus and not gpus[-1].message and _MESSAGE.search(line.text):
            last = gpus[-1]
            gpus[-1] = NvlinkGpu(last.index, last.name, last.uuid, line.text.strip())
    if not links and not any(gpu.message for gpu in gpus):
        raise OutputError("no NVLink state of a GPU: give the output of `nvidia-smi nvlink -s`")
    return NvlinkStatus(tuple(gpus), tuple(links))


def _read_link(line: Line, gpus: list[NvlinkGpu], links: list[NvlinkLink]) -> NvlinkLink:
    match = _LINK.fullmatch(line.text)
    if not match:
        raise OutputError("a link without '<speed> GB/s' or '<inactive>'", line)
    if not gpus:
        raise OutputError("a link before any 'GPU <index>: <name>'", line)
    number, speed = int(match[1]), match[2]
    if any((link.gpu, link.link) == (gpus[-1].index, number) for link in links):
        raise OutputError(f"link {number} of GPU {gpus[-1].index} a second time", line)
    gb_s = float(speed) if speed else None
    return NvlinkLink(gpus[-1].index, number, gb_s, gb_s is not None)
