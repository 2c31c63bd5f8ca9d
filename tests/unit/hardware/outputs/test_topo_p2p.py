from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.topo_p2p import parse_topo_p2p

OUTPUTS = Path(__file__).parents[3] / "data" / "gpu-outputs"


@pytest.mark.parametrize(
    ("file", "gpus", "pairs"),
    [
        (
            "topo-p2p/repo_stas00_ml-engineering_readme.md_0-2.txt",
            8,
            tuple((i, j, "OK") for i, j in combinations(range(8), 2)),
        ),
        ("topo-p2p/repo_stas00_ml-engineering_readme.md_1-2.txt", 2, ((0, 1, "CNS"),)),
        # `topo -m` stands before it in the same paste.
        ("topo/2x-wrapped-legend-plus-p2p_club-3090-1125.txt", 2, ((0, 1, "NS"),)),
    ],
)
def test_real_outputs(file: str, gpus: int, pairs: tuple[tuple[int, int, str], ...]):
    p2p = parse_topo_p2p((OUTPUTS / file).read_text("utf-8"))
    assert (p2p.gpus, p2p.indexes, p2p.pairs) == (gpus, tuple(range(gpus)), pairs)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "give the whole output"),
        ("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-15\t0\n", "give that of topo -p2p r"),
        ("\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tSYS\t X\n", "no matrix of GPUs of that kind"),
        (" \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tNS\tX\n", "line 2: .*shows OK to GPU1"),
        (" \tGPU0\tGPU1\n GPU0\tX\tMAYBE\n", "line 2: .*ends before the link"),
        (" \tGPU0\tGPU1\n GPU0\tX\tMAYBE\n GPU1\tMAYBE\tX\n", "line 2: .*'MAYBE' is none"),
    ],
)
def test_what_is_no_p2p_matrix_is_refused(text: str, problem: str):
    with pytest.raises(OutputError, match=problem):
        parse_topo_p2p(text)


@given(st.data(), st.integers(1, 16))
def test_any_matrix_reads_back_and_a_cut_one_never_differs(data: st.DataObject, count: int):
    label = st.sampled_from(["OK", "CNS", "GNS", "TNS", "NS", "DR", "U"])
    pairs = {pair: data.draw(label) for pair in combinations(range(count), 2)}
    rows = [
        [" GPU" + str(i)] + [pairs.get((min(i, j), max(i, j)), "X") for j in range(count)]
        for i in range(count)
    ]
    heading = ["", *(f"GPU{i}" for i in range(count))]
    text = "\n".join("\t".join(row) for row in [heading, *rows]) + "\n"
    whole = tuple((i, j, label) for (i, j), label in pairs.items())
    assert parse_topo_p2p(text).pairs == whole
    try:
        cut = parse_topo_p2p(text[: data.draw(st.integers(0, len(text)))])
    except OutputError:
        return
    assert cut.pairs == whole
