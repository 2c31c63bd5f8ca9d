import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.text import OutputError
from roles.hardware.outputs.topo import Nic, Topology, parse_topo

OUTPUTS = Path(__file__).parents[3] / "data" / "gpu-outputs"
INDEX = [json.loads(line) for line in (OUTPUTS / "index.jsonl").read_text("utf-8").splitlines()]
TOPO = {row["file"]: row for row in INDEX if row["kind"] == "topo"}

# Seen with the eye to be no whole matrix of one host.
DAMAGED = {
    "topo/4rows-2cols_inconsistent_autonomys.txt": "line 4: .*row of GPU2, which has no column",
    "topo/4x-h100_vllm-8947.txt": "line 2: .*GPU0 shows NV6 to GPU2, which shows SYS back",
    "topo/16x-dgx2-nv6_nccl-tests-78.txt": "line 6: .*ends before the link of GPU5 and GPU6",
    "topo/8x-h100-vm-all-sys_deepep-128.txt": "line 8: .*ends before the link of GPU6 and GPU7",
    "topo/windows-x86_64_nvidia-geforce-rtx-2080-super_591.86.txt": "give the whole output",
}


def read(file: str) -> str:
    return (OUTPUTS / file).read_bytes().decode("utf-8")


def links(rows: str) -> tuple[tuple[int, int, str], ...]:
    """Pairs of an upper triangle: one line a GPU, from the label after its X."""
    lines = [line.split() for line in rows.split("/")]
    return tuple(
        (i, i + 1 + k, label) for i, labels in enumerate(lines) for k, label in enumerate(labels)
    )


def all_pairs(count: int, label: str) -> tuple[tuple[int, int, str], ...]:
    return tuple((i, j, label) for i in range(count) for j in range(i + 1, count))


HALVES = links(
    "NODE NODE NODE SYS SYS SYS SYS / NODE NODE SYS SYS SYS SYS / NODE SYS SYS SYS SYS"
    "/ SYS SYS SYS SYS / NODE NODE NODE / NODE NODE / NODE"
)


@pytest.mark.parametrize("file", sorted(set(TOPO) - set(DAMAGED)))
def test_every_real_output_is_read_as_its_note_says(file: str):
    topology = parse_topo(read(file))
    note, machine = TOPO[file]["note"], TOPO[file]["machine"]
    shown = {label for _, _, label in topology.links}
    shown |= {label for nic in topology.nics for label in nic.links if label}
    if noted := re.match(r"links ([A-Z0-9,]+);", note):
        assert shown <= set(noted[1].split(","))
    if rows := re.search(r"(\d+) NIC rows", note):
        assert len(topology.nics) == int(rows[1])
    else:
        assert bool(topology.nics) == bool(re.search(r"NIC0|mlx\d_", read(file)))
    counted = re.search(r"matrix has (\d+) GPUs", machine) or re.match(r"topo/(\d+)x-", file)
    assert counted is None or topology.gpus == int(counted[1])
    assert len(topology.links) == topology.gpus * (topology.gpus - 1) // 2
    assert topology.indexes == tuple(range(topology.gpus))


@pytest.mark.parametrize("file", sorted(DAMAGED))
def test_a_damaged_matrix_is_refused_and_the_line_named(file: str):
    with pytest.raises(OutputError, match=DAMAGED[file]):
        parse_topo(read(file))


# file: links, CPU affinities, NUMA nodes; each written down from the file by hand.
BY_HAND = {
    "8x-b200_vllm-20862": (
        all_pairs(8, "NV18"),
        ("0-27,112-139",) * 2
        + ("28-55,140-167",) * 2
        + ("56-83,168-195",) * 2
        + ("84-111,196-223",) * 2,
        (0, 0, 1, 1, 2, 2, 3, 3),
    ),
    "8x-h100_sglang-3658": (
        all_pairs(8, "NV18"),
        ("0-47,96-143",) * 4 + ("48-95,144-191",) * 4,
        (0, 0, 0, 0, 1, 1, 1, 1),
    ),
    "8x-dgx1-p100-soc-glued-header": (
        links(
            "NV1 NV1 NV1 NV1 SOC SOC SOC / NV1 NV1 SOC NV1 SOC SOC / NV1 SOC SOC NV1 SOC"
            "/ SOC SOC SOC NV1 / NV1 NV1 NV1 / NV1 NV1 / NV1"
        ),
        ("1-1",) * 8,
        (None,) * 8,
    ),
    "2x-wrapped-legend-plus-p2p_club-3090-1125": (((0, 1, "NODE"),), ("0-15",) * 2, (0, 0)),
    "4x-hybrid-nv1-nv2-mlx5_code": (
        links("NV1 NV1 NV2 / NV2 NV1 / NV2"),
        ("0-15",) * 4,
        (None,) * 4,
    ),
    "4x-h100-nv6-odd-numa_nccl-1617": (
        all_pairs(4, "NV6"),
        ("6,14,22,30", "4,12,20,28", "7,15,23,31", "5,13,21,29"),
        (3, 1, 7, 5),
    ),
    "2x-l20_sglang-954": (((0, 1, "SYS"),), (None, "88-91,184-187"), (None, 1)),
    "4x-epyc-roce-names-cut-affinity_k8s-launch-kit": (
        links("NODE SYS SYS / SYS SYS / NODE"),
        ("0,2,4,6,8,10",) * 2 + ("1,3,5,7,9,11",) * 2,
        (0, 0, 1, 1),
    ),
    "8x-rtx-pro-6000_nic0_stripped-leading-tab-ansi": (
        HALVES,
        ("0-63,128-191",) * 4 + ("64-127,192-238",) * 4,
        (0, 0, 0, 0, 1, 1, 1, 1),
    ),
    "4x-rtx-a6000_vllm-8158": (links("SYS SYS NV4 / NV4 SYS / SYS"), ("0-63",) * 4, (None,) * 4),
    "8x-rtx-pro-6000_asus_author-condensed": (
        links(
            "PIX NODE NODE SYS SYS SYS SYS / NODE NODE SYS SYS SYS SYS / PIX SYS SYS SYS SYS"
            "/ SYS SYS SYS SYS / PIX NODE NODE / NODE NODE / PIX"
        ),
        (None,) * 8,
        (None,) * 8,
    ),
    "4x-power9-nv3-pairs_code": (
        links("NV3 SYS SYS / SYS SYS / NV3"),
        ("0-63", "0-63", "64-127", "64-127"),
        (None,) * 4,
    ),
    "2x-slurm-affinity-1-33": (((0, 1, "NODE"),), ("1,33",) * 2, (1, 1)),
    "4x-gb200_k8s-test-infra-371": (
        all_pairs(4, "NV18"),
        ("0-71", "0-71", "72-143", "72-143"),
        (0, 0, 1, 1),
    ),
    "1x-l40_vllm-7856": ((), (None,), (None,)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_hard_outputs_read_as_a_person_reads_them(name: str):
    topology = parse_topo(read(f"topo/{name}.txt"))
    shown = (topology.links, topology.cpu_affinity, topology.numa_affinity)
    assert shown == BY_HAND[name]


@pytest.mark.parametrize(
    ("name", "column", "device", "labels"),
    [
        ("8x-b200_vllm-20862", "NIC10", "mlx5_14", "SYS SYS SYS SYS SYS SYS PIX NODE"),
        ("8x-h200_sglang-7934", "NIC4", "mlx5_4", "PIX PHB PHB PHB SYS SYS SYS SYS"),
        ("8x-h200_sglang-7934", "NIC5", "mlx5_5", "PHB PIX PHB PHB SYS SYS SYS SYS"),
        ("8x-dgx1-p100-soc-glued-header", "mlx5_1", "mlx5_1", "PHB PHB PIX PIX SOC SOC SOC SOC"),
        (
            "4x-epyc-roce-names-cut-affinity_k8s-launch-kit",
            "NIC0",
            "roceo12399",
            "NODE NODE SYS SYS",
        ),
        ("2x-l20_sglang-954", "NIC0", None, "NODE SYS"),  # its legend was overwritten
        ("2x-l20_sglang-954", "NIC61", "mlx5_bond_0", "NODE SYS"),
        ("1x-a100-sxm4-80gb_sglang-839", "NIC8", "mlx5_8", "PXB"),
    ],
)
def test_nics_have_their_device_and_their_label_to_each_gpu(
    name: str, column: str, device: str | None, labels: str
):
    nics = {nic.column: nic for nic in parse_topo(read(f"topo/{name}.txt")).nics}
    assert (nics[column].device, nics[column].links) == (device, tuple(labels.split()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A GPU that fell off the bus leaves a gap; its number stays away from the links.
        ("\tGPU0\tGPU2\nGPU0\t X \tSYS\nGPU2\tSYS\t X \n", ((0, 2, "SYS"),)),
        # The heading is lost with a filter as `grep ^GPU`.
        ("GPU0\t X \tNV4\t0-15\t0\t\tN/A\nGPU1\tNV4\t X \t0-15\t0\t\tN/A\n", ((0, 1, "NV4"),)),
        # Cut after the last pair was shown.
        ("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV12\t0-15\nGPU1\tNV", ((0, 1, "NV12"),)),
        # A terminal of 24 columns.
        ("        GPU0    GPU1    \nCPU Affinity\nGPU0     X      NV1\n2    0-15\n"
         "GPU1    NV12     X      \n0-15\n", ((0, 1, "NV12"),)),
        ("w-0 | > GPU0 GPU1\nw-0 | > GPU0 X PHB\nw-0 | > GPU1 PHB X\n", ((0, 1, "PHB"),)),
        ("|  | GPU0 | GPU1 |\n|---|---|---|\n| GPU0 | X | PXB |\n| GPU1 | PXB | X |\n",
         ((0, 1, "PXB"),)),
        ("We see GPU0 and GPU1 on NV4:\n```\n\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X\n```\n",
         ((0, 1, "PIX"),)),
    ],
)  # fmt: skip
def test_pasted_and_filtered_outputs(text: str, expected: tuple[tuple[int, int, str], ...]):
    assert parse_topo(text).links == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "give the whole output"),
        ("No devices were found", "give the whole output"),
        ("\tGPU0\tGPU1\nGPU0\t X \tOK\nGPU1\tOK\t X\n", "no matrix of GPUs of that kind"),
        ("\tGPU0\tGPU1\nGPU0\t X \tFOO\nGPU1\tFOO\t X\n", "line 2: .*1 labels .* 'FOO' is none"),
        ("\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tPIX\t X\n", "line 2: .*shows SYS to GPU1"),
        ("\tGPU0\tGPU1\nGPU0\t X \tSYS\nGPU1\tX\tSYS\n", "line 3: .*label X in column GPU0"),
        ("\tGPU0\tGPU1\nGPU0\t X \tSYS\tSYS\nGPU1\tSYS\t X \n", "line 2: .*3 labels for 2"),
        ("\tGPU0\tGPU1\nGPU1\tSYS\t X \n", "line 1: .*row of GPU0 is missing"),
        ("\tGPU0\tGPU1\nGPU0\t X \tSYS\n\nLegend:\n", "line 1: .*row of GPU1 is missing"),
        ("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV1", "line 2: .*ends before"),  # of NV12?
        ("\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV1\n", "line 2: .*ends before"),
        (
            "GPU0 GPU1\nGPU0 X SYS\nGPU1 SYS X\nGPU0 GPU1\nGPU0 X PIX\nGPU1 PIX X",
            "line 5: .*second",
        ),
    ],
)
def test_what_is_no_whole_matrix_is_refused(text: str, problem: str):
    with pytest.raises(OutputError, match=problem):
        parse_topo(text)


@pytest.mark.parametrize(
    ("affinity", "cpus", "node"),
    [
        ("0-71\t0,2-17\t2", "0-71", 0),
        ("0-31\t0-1\tN/A", "0-31", None),
        ("N/A\tN/A\tN/A", None, None),
        ("0-47,96-1430N/A", "0-47,96-143", 0),
        ("48-95,144-19112\tN/A", "48-95,144-191", 12),
        ("0\tN/A", "0", None),
        ("1", None, None),
    ],
)
def test_affinities(affinity: str, cpus: str | None, node: int | None):
    heading = "\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    topology = parse_topo(f"{heading}GPU0\t X \t{affinity}\n\nLegend:\n")
    assert (topology.cpu_affinity, topology.numa_affinity) == ((cpus,), (node,))


LABELS = ("NV1", "NV12", "NV18", "NODE", "SYS", "PHB", "PXB", "PIX", "SOC")
Drawn = tuple[list[str], list[list[str]], list[tuple[str, str]]]


@st.composite
def matrices(draw: st.DrawFn) -> Drawn:
    """Names of the devices, their symmetric labels, and the affinities of the GPUs."""
    gpus = draw(st.integers(1, 16))
    nics = draw(st.integers(0, 11))
    style = draw(st.sampled_from(["NIC{}", "mlx5_{}"]))
    names = [f"GPU{i}" for i in range(gpus)] + [style.format(i) for i in range(nics)]
    cells = [["X"] * len(names) for _ in names]
    for i in range(len(names)):
        for j in range(i):
            cells[i][j] = cells[j][i] = draw(st.sampled_from(LABELS))
    affinity = st.sampled_from(
        [("0-47,96-143", "0"), ("48-95", "1"), ("0,2,4", "12"), ("3", "N/A")]
    )
    return names, cells, draw(st.lists(affinity, min_size=gpus, max_size=gpus))


def render(drawn: Drawn, *, tabs: bool, end: str, offset: bool, underline: bool, legend: bool):
    names, cells, affinities = drawn
    heading = [*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]
    first = ("\t" if tabs else " " * 8) if offset else ""
    lines = [first + ("\t".join(heading) if tabs else "".join(h.ljust(8) for h in names)
             + "CPU Affinity    NUMA Affinity   GPU NUMA ID")]  # fmt: skip
    lines = [f"\x1b[4m{lines[0]}\x1b[0m" if underline else lines[0]]
    for i, name in enumerate(names):
        row = [" X " if label == "X" else label for label in cells[i]]
        tail = [*affinities[i], "", "N/A"] if i < len(affinities) else []
        if tabs:
            lines.append("\t".join([name, *row, *tail]))
        else:
            lines.append(
                "".join(c.ljust(8) for c in [name, *row]) + "".join(t.ljust(16) for t in tail)
            )
    if legend:
        lines += ["", "Legend:", "", "  X    = Self", "  NV#  = Connection traversing NVLinks"]
    return end.join(lines) + end


def expected(drawn: Drawn) -> Topology:
    names, cells, affinities = drawn
    gpus = len(affinities)
    rows = list(zip(names, cells, strict=True))
    return Topology(
        gpus=gpus,
        indexes=tuple(range(gpus)),
        links=tuple((i, j, cells[i][j]) for i in range(gpus) for j in range(i + 1, gpus)),
        nics=tuple(
            Nic(name, None if name.startswith("NIC") else name, tuple(labels[:gpus]))
            for name, labels in rows[gpus:]
        ),
        cpu_affinity=tuple(cpus for cpus, _ in affinities),
        numa_affinity=tuple(None if node == "N/A" else int(node) for _, node in affinities),
    )


LAYOUT = st.fixed_dictionaries(
    {
        "tabs": st.booleans(),
        "end": st.sampled_from(["\n", "\r\n"]),
        "offset": st.booleans(),
        "underline": st.booleans(),
        "legend": st.booleans(),
    }
)


@given(matrices(), LAYOUT)
def test_any_layout_of_a_matrix_reads_back_equal(drawn: Drawn, layout: dict[str, Any]):
    assert parse_topo(render(drawn, **layout)) == expected(drawn)


@given(matrices(), LAYOUT, st.data())
def test_a_cut_output_shows_the_true_links_or_is_refused(
    drawn: Drawn, layout: dict[str, Any], data: st.DataObject
):
    text, whole = render(drawn, **layout), expected(drawn)
    try:
        topology = parse_topo(text[: data.draw(st.integers(0, len(text)))])
    except OutputError:
        return
    assert topology.links == whole.links
    assert all(
        a in (None, b) for a, b in zip(topology.cpu_affinity, whole.cpu_affinity, strict=True)
    )
    nodes = zip(topology.numa_affinity, whole.numa_affinity, strict=True)
    assert all(a in (None, b) for a, b in nodes)


@given(matrices(), LAYOUT, st.data())
def test_lost_lines_never_give_another_link(
    drawn: Drawn, layout: dict[str, Any], data: st.DataObject
):
    lines = render(drawn, **layout).splitlines(keepends=True)
    lost = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
    try:
        topology = parse_topo("".join(ln for n, ln in enumerate(lines) if n not in lost))
    except OutputError:
        return
    assert topology.links == expected(drawn).links


@given(matrices(), LAYOUT, st.data())
def test_a_changed_character_never_gives_a_label_that_is_not_there(
    drawn: Drawn, layout: dict[str, Any], data: st.DataObject
):
    text = render(drawn, **layout)
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.sampled_from([*"XNVSYP18 \t\n-", ""])) + text[at + 1 :]
    try:
        topology = parse_topo(text)
    except OutputError:
        return
    assert all(label in text for _, _, label in topology.links)


def test_a_matrix_of_rocm_smi_is_refused_although_one_gpu_has_no_link():
    text = (OUTPUTS / "rocm-smi/showtopotype_amd-radeon-rx-6800-xt_sglang-3200.txt").read_text()
    with pytest.raises(OutputError, match="'0' is no label"):
        parse_topo(text)


@given(st.text() | st.text(alphabet="GPU01 \t\nXNV8SY-/NAIC"))
def test_any_text_is_a_topology_or_an_output_error(text: str):
    try:
        topology = parse_topo(text)
    except OutputError:
        return
    assert all(label in text for _, _, label in topology.links)
