"""What holds for every reader of what a host prints beside nvidia-smi."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.amd_smi import parse_amd_smi
from roles.hardware.outputs.dmesg import parse_dmesg
from roles.hardware.outputs.lspci import parse_lspci
from roles.hardware.outputs.rocm_smi import parse_rocm_smi
from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.ubuntu_drivers import parse_ubuntu_drivers
from tests.unit.hardware.outputs.host_outputs import damaged, names, other_names, output

Reader = Callable[[str], object]

READERS: dict[str, Reader] = {
    "rocm-smi": parse_rocm_smi,
    "amd-smi": parse_amd_smi,
    "lspci": parse_lspci,
    "dmesg": parse_dmesg,
    "ubuntu-drivers": parse_ubuntu_drivers,
}
TEXTS = {kind: [output(name) for name in names(kind)] for kind in READERS}
# A readable text is short and a document of numbers long: damage hits what matters more often.
SHORT = {kind: [text for text in texts if len(text) < 12_000] for kind, texts in TEXTS.items()}

kinds = pytest.mark.parametrize("kind", list(READERS))


@kinds
def test_every_real_output_is_read(kind: str):
    for text in TEXTS[kind]:
        assert READERS[kind](text) is not None


@kinds
def test_the_form_of_a_copy_does_not_matter(kind: str):
    for text in TEXTS[kind]:
        plain = text.replace("\r\n", "\n")
        copies = [plain.replace("\n", "\r\n"), f"\x1b[0m{plain}\x1b[K", f"\n\n{plain}\n\n"]
        assert all(READERS[kind](copy) == READERS[kind](plain) for copy in copies)


@kinds
def test_outputs_of_other_kinds_are_refused(kind: str):
    for name in other_names(kind, each=4):
        with pytest.raises(OutputError):
            READERS[kind](output(name))


@kinds
@pytest.mark.parametrize(
    "text", ["", "\n \n", "\x1b[0m", "command not found", "{}", "[]", "{", "null", "a,b\n1,2"]
)
def test_texts_of_no_kind_are_refused(kind: str, text: str):
    with pytest.raises(OutputError):
        READERS[kind](text)


@kinds
def test_the_error_names_the_line(kind: str):
    with pytest.raises(OutputError, match="line 2: 'bash: no such command': "):
        READERS[kind]("\nbash: no such command\n")


@kinds
@given(st.data())
def test_damaged_outputs_are_read_or_refused(kind: str, data: st.DataObject):
    text = data.draw(damaged(SHORT[kind]))
    with suppress(OutputError):
        READERS[kind](text)


@kinds
@given(st.text())
def test_any_text_is_read_or_refused(kind: str, text: str):
    with suppress(OutputError):
        READERS[kind](text)
