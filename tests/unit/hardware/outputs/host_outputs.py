"""Real outputs by their kind, and texts made from them by what happens to a copy of an output."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

OUTPUTS = Path(__file__).parents[3] / "data" / "gpu-outputs"


def output(name: str) -> str:
    """The text of "kind/file"."""
    return (OUTPUTS / name).read_bytes().decode()


def names(kind: str) -> list[str]:
    return sorted(f"{kind}/{path.name}" for path in (OUTPUTS / kind).iterdir())


def other_names(kind: str, each: int) -> list[str]:
    """The first few outputs of every other kind."""
    return [
        name
        for folder in sorted(OUTPUTS.iterdir())
        if folder.is_dir() and folder.name != kind
        for name in names(folder.name)[:each]
    ]


@st.composite
def damaged(draw: st.DrawFn, texts: Sequence[str]) -> str:
    """One of the texts, cut, without some lines, with other characters, colours or CRLF."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        match draw(st.sampled_from(["cut", "drop", "change", "colour", "crlf", "twice"])):
            case "cut":
                text = text[:at]
            case "drop":
                start = text.rfind("\n", 0, at) + 1
                end = text.find("\n", at) + 1 or len(text)
                text = text[:start] + text[end:]
            case "change":
                text = text[:at] + draw(st.characters()) + text[at + 1 :]
            case "colour":
                text = f"{text[:at]}\x1b[1;31m{text[at:]}\x1b[0m"
            case "crlf":
                text = text.replace("\n", "\r\n")
            case _:
                text = f"{text}\n{text}"
    return text
