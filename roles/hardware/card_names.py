"""Splits card names into words, so that the names of people, programs and `pci.ids` can be
compared."""

import re

# Vendors and brands that are often left out. "Quadro" is not among them: it distinguishes cards.
_FILLERS = {"nvidia", "corporation", "geforce", "tesla", "amd", "ati", "instinct", "radeon"}
_FILLERS |= {"generation", "gpu", "oam"}
# A name with one of these words is not a whole desktop or server card.
_PARTS = {"laptop", "mobile", "mig", "vgpu", "grid", "slice", "partition", "vf", "virtual"}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?g(?:i?b)?")
_WORD = re.compile(rf"(?<![a-z]){_SIZE.pattern}(?![a-z0-9])|[a-z]+|[0-9]+")
_CHARACTERS = re.compile(r"[a-z0-9 ._-]*")
_REMARK = re.compile(r"[(\[]([^()\[\]]*)[)\]]")

NameWords = tuple[str, ...]


def name_words(text: str) -> NameWords:
    """The words of a name in lower case, with letters and digits separated, without vendor and
    brand.

    A memory size is one word in GB: "RTX3090-24GiB" becomes rtx, 3090, 24gb. Empty if the text has
    a character that no name has.
    """
    lowered = " ".join(text.lower().split())
    if not _CHARACTERS.fullmatch(lowered):
        return ()
    words = (_sized(match[0]) for match in _WORD.finditer(lowered))
    return tuple(word for word in words if word not in _FILLERS)


def readings(text: str) -> tuple[NameWords, ...]:
    """The possible names in a text with bracketed remarks: the text outside, and each remark.

    "H20 (95 GiB)" gives h, 20, 95gb; "GH100 [H100 PCIe]" gives gh, 100 and h, 100, pcie. Empty for
    a laptop's GPU or a part of a GPU.
    """
    plain = re.sub(r"\((?:tm|r)\)|[™®]", "", text, flags=re.IGNORECASE)
    outside = name_words(_REMARK.sub(" ", plain))
    inside = [name_words(remark) for remark in _REMARK.findall(plain)]
    if _PARTS & set(re.findall(r"[a-z]+", plain.lower())):
        return ()
    for remark in inside:
        if len(remark) == 1 and size_gb(remark[0]) is not None:
            outside += remark
    return tuple(words for words in (outside, *inside) if words)


def size_gb(word: str) -> float | None:
    """The memory size of a word; None if it is not a size."""
    match = _SIZE.fullmatch(word)
    return float(match[1]) if match else None


def split_size(words: NameWords) -> tuple[NameWords, float] | None:
    """The words without the memory size, and that size in GB; None unless there is exactly one."""
    sizes = [size for word in words if (size := size_gb(word)) is not None]
    if len(sizes) != 1:
        return None
    return tuple(word for word in words if size_gb(word) is None), sizes[0]


def _sized(word: str) -> str:
    size = size_gb(word)
    return word if size is None else f"{size:g}gb"
