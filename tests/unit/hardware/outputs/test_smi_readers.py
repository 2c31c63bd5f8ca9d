"""What holds for every reader of nvidia-smi's outputs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.text import OutputError
from tests.unit.hardware.outputs.smi_cases import DATA, READERS, files

OWN = [(kind, path) for kind in READERS for path in files(kind)]
KINDS = sorted(path.name for path in DATA.iterdir() if path.is_dir())
# nvidia-smi's answer to `topo -m` on Windows, where it has no such option, is an error of its own.
ALSO_ERROR = "windows-x86_64_nvidia-geforce-rtx-2080-super_591.86.txt"
SMALL = [(kind, path.read_text()) for kind, path in OWN if path.stat().st_size < 6000]


@pytest.mark.parametrize(("kind", "path"), OWN, ids=lambda it: getattr(it, "name", it))
def test_every_output_is_read_and_the_same_with_colours_and_crlf(kind, path):
    plain = path.read_text()
    read = READERS[kind](plain)
    assert READERS[kind](plain.replace("\n", "\r\n")) == read
    coloured = "\n".join(f"\x1b[1;32m{line}\x1b[0m" for line in plain.split("\n"))
    assert READERS[kind]("\x1b]0;nvidia-smi\x07" + coloured) == read


@pytest.mark.parametrize("kind", READERS)
def test_outputs_of_other_kinds_are_refused(kind):
    taken = []
    for other in KINDS:
        for path in files(other)[:4] if other != kind else ():
            try:
                READERS[kind](path.read_text())
                taken.append(f"{kind} {path.name}")
            except OutputError:
                pass
    assert set(taken) <= {f"smi-error {ALSO_ERROR}"}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("text", ["", " \n\t\r\n", "hello\n", "\x1b[0m", "a, b\n1, 2\n", "<a/>"])
def test_text_that_is_no_output_is_refused(kind, text):
    with pytest.raises(OutputError):
        READERS[kind](text)


def _cut(text: str, pick: random.Random) -> str:
    return text[: pick.randrange(len(text) + 1)]


def _drop_lines(text: str, pick: random.Random) -> str:
    return "\n".join(line for line in text.split("\n") if pick.random() > 0.2)


def _swap_characters(text: str, pick: random.Random) -> str:
    characters = list(text)
    for _ in range(pick.randrange(1, 30)):
        at = pick.randrange(len(characters) or 1)
        characters[at : at + 1] = pick.choice('\x00\t ,:|"<>[]&9Zé٣\r\n½')
    return "".join(characters)


def _repeat_lines(text: str, pick: random.Random) -> str:
    lines = text.split("\n")
    at, to = sorted(pick.randrange(len(lines) + 1) for _ in range(2))
    return "\n".join(lines[:to] + lines[at:])


def _escapes(text: str, pick: random.Random) -> str:
    return "".join(c + (pick.choice(["\x1b[31m", "\x1b", "\r"]) if pick.random() < 0.02 else "")
                   for c in text)  # fmt: skip


@given(st.sampled_from(SMALL), st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_damaged_output_is_read_or_refused(case, pick, times):
    kind, text = case
    for _ in range(times):
        text = pick.choice([_cut, _drop_lines, _swap_characters, _repeat_lines, _escapes])(
            text, pick
        )
    for reader in (READERS[kind], pick.choice(list(READERS.values()))):
        try:
            assert reader(text) is not None
        except OutputError as error:
            assert str(error)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text):
    for reader in READERS.values():
        try:
            reader(text)
        except OutputError as error:
            assert str(error)
