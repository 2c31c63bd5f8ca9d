"""`nvidia-smi nvlink --status`: the NVLinks of each GPU and whether they are up."""

import re
from dataclasses import dataclass

from roles.hardware.outputs.text import MAX_GPUS, Line, OutputError, read_lines

_GPU = re.compile(r"(?:^|\s)GPU\s+(\d{1,4}):\s+(?=\S)")
_LINK = re.compile(
    r"(?:.*\s)?Link\s+(\d{1,4}):\s*"
    r"(?:(\d{1,6}(?:\.\d{1,6})?)\s*GB/s|(?:<\s*)?(inactive)(?:\s*>)?)\s*",
    re.I,
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
    """One NVLink of a GPU; `gb_s` is its speed one way in GB/s, None if it is down."""

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
    links: dict[tuple[int, int], NvlinkLink] = {}
    for line in read_lines(text):
        if _LINK_START.search(line.text):
            link = _read_link(line, gpus)
            if (link.gpu, link.link) in links:
                raise OutputError(f"link {link.link} of GPU {link.gpu} a second time", line)
            links[link.gpu, link.link] = link
        elif gpu := _read_gpu(line):
            if gpu.index in {other.index for other in gpus}:
                raise OutputError(f"GPU {gpu.index} a second time: give one host's output", line)
            if len(gpus) == MAX_GPUS:
                raise OutputError(f"more than {MAX_GPUS} GPUs", line)
            gpus.append(gpu)
        elif gpus and not gpus[-1].message and _MESSAGE.search(line.text):
            last = gpus[-1]
            gpus[-1] = NvlinkGpu(last.index, last.name, last.uuid, line.text.strip())
    if not links and not any(gpu.message for gpu in gpus):
        raise OutputError("no NVLink state of a GPU: give the output of `nvidia-smi nvlink -s`")
    return NvlinkStatus(tuple(gpus), tuple(links.values()))


def _read_gpu(line: Line) -> NvlinkGpu | None:
    """The GPU of a line such as "GPU 0: NVIDIA H200 (UUID: GPU-…)", also behind a log's words."""
    starts = list(_GPU.finditer(line.text))
    if not starts:
        return None
    rest = line.text[starts[-1].end() :].strip()
    name, _, uuid = rest.rpartition("(UUID:")
    uuid = uuid.strip().removesuffix(")")
    if not name[-1:].isspace() or ")" in uuid:
        name, uuid = rest, ""
    return NvlinkGpu(int(starts[-1][1]), name.rstrip(), uuid or None, None)


def _read_link(line: Line, gpus: list[NvlinkGpu]) -> NvlinkLink:
    match = _LINK.fullmatch(line.text)
    if not match:
        raise OutputError("a link without '<speed> GB/s' or '<inactive>'", line)
    if not gpus:
        raise OutputError("a link before any 'GPU <index>: <name>'", line)
    number, speed = int(match[1]), match[2]
    gb_s = float(speed) if speed else None
    return NvlinkLink(gpus[-1].index, number, gb_s, gb_s is not None)
