from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import Gpu, parse_query

DATA = Path(__file__).parent / "data"
L40S = Gpu(0, "NVIDIA L40S", 46068)


def test_a_plain_answer():
    report = parse_query("0, NVIDIA L40S, 46068, 595.80\n1, NVIDIA L40S, 46068, 595.80\n")
    assert report.gpus == (L40S, Gpu(1, "NVIDIA L40S", 46068))
    assert report.driver_version == "595.80"
    assert report.faults == ()


@pytest.mark.parametrize(
    "text",
    [
        "0, NVIDIA L40S, 46068, 595.80\r\n",
        "\x1b[32m0, NVIDIA L40S, 46068, 595.80\x1b[0m",
        "\x1b]0;title\x070, NVIDIA L40S, 46068 MiB, 595.80",
        "WARNING: infoROM is corrupted at gpu 0000:00:04.0\n0, NVIDIA L40S, 46068, 595.80\n",
        "\n\n  0 , NVIDIA L40S ,\t46068,595.80  \n\n",
    ],
)
def test_noise_changes_nothing(text: str):
    report = parse_query(text)
    assert (report.gpus, report.driver_version, report.faults) == ((L40S,), "595.80", ())


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1, NVIDIA GB10, [N/A], 580.142", "does not tell"),
        ("1, NVIDIA L40S, [Unknown Error], 595.80", "reboot the host"),
        ("1, [GPU requires reset], [GPU requires reset], 595.80", "--gpu-reset"),
        ("1, [GPU is lost], [GPU is lost], [GPU is lost]", "fell off the PCI bus"),
        ("1, NVIDIA L40S, [Insufficient Permissions], 595.80", "may not query"),
        ("[Unknown Error], NVIDIA L40S, 46068, 595.80", "reboot the host"),
        ("1, NVIDIA L40S, N/A, 595.80", "does not tell"),
    ],
)
def test_a_gpu_of_unknown_size_is_a_fault_and_no_gpu(row: str, fault: str):
    report = parse_query(f"0, NVIDIA L40S, 46068, 595.80\n{row}\n")
    assert report.gpus == (L40S,)
    assert len(report.faults) == 1 and fault in report.faults[0]
    if row[0] == "1":
        assert "GPU 1" in report.faults[0]


def test_a_lost_gpu_before_the_rows_of_the_others():
    lost = (DATA / "gpu-lost-other-columns.txt").read_text().splitlines()[0]
    report = parse_query(f"{lost}\n1, NVIDIA GeForce RTX 5070 Ti, 16303, 580.95.05\n")
    assert report.gpus == (Gpu(1, "NVIDIA GeForce RTX 5070 Ti", 16303),)
    assert len(report.faults) == 1 and "GPU0: 0000:24:00.0" in report.faults[0]


@pytest.mark.parametrize(
    "text",
    [
        (DATA / "gpu-lost-other-columns.txt").read_text(),
        "0, NVIDIA L40S, 46068\n",
        "0, NVIDIA L40S, 46068, 595.80, extra\n",
        "0, NVIDIA L40S, 44 GiB, 595.80\n",
        "0, NVIDIA L40S, 4,6068, 595.80\n",
        "0, NVIDIA L40S, 0, 595.80\n",
        "0, NVIDIA L40S, -46068, 595.80\n",
        "0, NVIDIA L40S, 46068, latest\n",
        "0, , 46068, 595.80\n",
        "0, NVIDIA L40S, 46068, 595.80\n0, NVIDIA L40S, 46068, 595.80\n",
        "index, name, memory.total [MiB], driver_version\n",
        "Last login: today\n",
        "",
    ],
)
def test_what_is_no_such_answer_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_query(text)


ERRORS = sorted((DATA / "smi-error").iterdir())
MISUSE = {"option-not-recognized_private-gpt-1480.txt", "topo-i-flag-misuse.txt"}


@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_real_errors_become_faults(path: Path):
    if path.name in MISUSE:
        with pytest.raises(ValueError):
            parse_query(path.read_text())
        return
    report = parse_query(path.read_text())
    assert len(report.faults) == 1
    assert report.gpus == (() if path.name.startswith("no-devices") else None)


def test_a_driver_newer_than_its_module():
    report = parse_query(
        "Failed to initialize NVML: Driver/library version mismatch\n"
        "NVML library version: 580.173\n"
    )
    assert report.gpus is None
    assert report.faults[0].endswith("reboot the host")


@given(st.text())
def test_any_text_is_read_or_refused(text: str):
    try:
        report = parse_query(text)
    except ValueError:
        return
    assert report.gpus or report.faults or report.gpus == ()


NAMES = st.from_regex(r"[A-Z][A-Za-z0-9 -]{0,40}[A-Za-z0-9]", fullmatch=True).filter(
    lambda name: name != "N/A"
)
GPUS = st.lists(st.tuples(NAMES, st.integers(1, 99_999_999)), min_size=1, max_size=16)
NOISE = st.sampled_from(["", "WARNING: infoROM is corrupted at gpu 0000:00:04.0", "\x1b[0m", "***"])


@given(GPUS, NOISE, st.sampled_from(["\n", "\r\n"]), st.randoms(use_true_random=False))
def test_what_was_printed_is_read_back(gpus, noise: str, end: str, random):
    expected = tuple(Gpu(index, name, memory) for index, (name, memory) in enumerate(gpus))
    rows = [f"{gpu.index}, {gpu.name}, {gpu.memory_mib}, 580.95.05" for gpu in expected]
    random.shuffle(rows)
    report = parse_query(end.join([noise, *rows, ""]))
    assert (report.gpus, report.faults) == (expected, ())


@given(st.data())
def test_a_cut_answer_never_gives_another_gpu(data):
    text = "0, NVIDIA L40S, 46068, 595.80\n1, NVIDIA L40S, 46068, 595.80"
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        report = parse_query(cut)
    except ValueError:
        return
    assert set(report.gpus or ()) <= {L40S, Gpu(1, "NVIDIA L40S", 46068)}
