"""Parses `nvidia-smi -q -x`: the XML form of -q, document types 10 to 13 and without a type."""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from roles.hardware.outputs.record import GpuRecord, Process
from roles.hardware.outputs.smi_error import is_message
from roles.hardware.outputs.smi_q import SmiQuery, joined
from roles.hardware.outputs.smi_tree import Leaf, mig_device, process, record_of
from roles.hardware.outputs.text import Line, OutputError, read_lines
from roles.hardware.outputs.values import pci_address, version, whole

_START = re.compile(r"\s*<nvidia_smi_log\b")
_END = re.compile(r".*</nvidia_smi_log>\s*")
_PROLOGUE = re.compile(r"\s*<(?:\?xml|!DOCTYPE)[^<>]*>")
_MAX_NESTING = 20
_INTERNAL = re.compile(r"<!ENTITY|<!ELEMENT|<!DOCTYPE[^<>\[]*\[", re.IGNORECASE)


def parse_smi_q_x(text: str) -> SmiQuery:
    """Parse the XML form, also after warning lines. The index is as in `parse_smi_q`.

    OutputError for XML that is cut or broken, defines entities of its own, or has no GPU.
    """
    lines = read_lines(text)
    for line in lines:
        if _INTERNAL.search(line.text):
            raise OutputError("nvidia-smi's XML defines nothing of its own, this does", line)
    logs = [_read_log(group) for group in _documents(lines)]
    if not logs:
        raise OutputError("no XML of nvidia-smi -q -x", lines[0] if lines else None)
    last = logs[-1]
    for log in reversed(logs[:-1]):
        last = joined(log, last)
    return last


def _documents(lines: Sequence[Line]) -> Iterator[tuple[list[str], list[Line]]]:
    """Each document's lines, with the error and warning lines before it."""
    messages: list[str] = []
    document: list[Line] = []
    for line in lines:
        if document or _START.match(line.text):
            document.append(line)
        elif is_message(line.text):
            messages.append(line.text.strip())
        elif not _PROLOGUE.fullmatch(line.text):
            raise OutputError("expected the XML of nvidia-smi -q -x", line)
        if document and _END.fullmatch(line.text):
            yield messages, document
            messages, document = [], []
    if document:
        raise OutputError("the XML is cut: its end is missing", document[-1])


def _read_log(document: tuple[list[str], list[Line]]) -> SmiQuery:
    messages, lines = document
    root = _root(lines)
    elements = root.findall("gpu")
    attached = whole(root.findtext("attached_gpus") or "")
    if not elements and attached != 0:
        raise OutputError("this log has no GPU", lines[0])
    driver = version(root.findtext("driver_version") or root.findtext("kmd_version") or "")
    is_whole = attached == len(elements)
    read = [
        _gpu(element, index if is_whole else None, driver) for index, element in enumerate(elements)
    ]
    return SmiQuery(
        tuple(gpu for gpu, _ in read),
        driver,
        version(root.findtext("cuda_version") or root.findtext("cuda_umd_version") or ""),
        attached,
        tuple(it for _, processes in read for it in processes),
        tuple(messages),
    )


def _root(lines: Sequence[Line]) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring("\n".join(line.text for line in lines))
    except (ElementTree.ParseError, ValueError) as error:
        number = getattr(error, "position", (1, 0))[0]
        line = lines[min(max(number, 1), len(lines)) - 1]
        raise OutputError(f"the XML is broken here: {error}", line) from None
    if root.tag != "nvidia_smi_log":
        raise OutputError("expected the XML of nvidia-smi -q -x", lines[0])
    return root


def _gpu(
    element: ElementTree.Element, index: int | None, driver: str | None
) -> tuple[GpuRecord, list[Process]]:
    devices = [mig_device(list(_leaves(it))) for it in element.findall("mig_devices/mig_device")]
    gpu = record_of(
        list(_leaves(element)),
        tuple(device for device in devices if device is not None),
        index=index,
        pci_address=pci_address(element.get("id", "")),
        driver_version=driver,
    )
    found = [process(list(_leaves(it)), gpu) for it in element.findall("processes/process_info")]
    return gpu, [it for it in found if it is not None]


def _leaves(element: ElementTree.Element) -> Iterator[Leaf]:
    """The values in the order of the document, up to the depth of nvidia-smi's documents."""
    pending: list[tuple[tuple[str, ...], ElementTree.Element]] = [
        ((child.tag.lower(),), child) for child in reversed(element)
    ]
    while pending:
        path, node = pending.pop()
        if len(node) == 0:
            yield Leaf(path, (node.text or "").strip())
        if len(path) < _MAX_NESTING:
            pending.extend(((*path, child.tag.lower()), child) for child in reversed(node))
