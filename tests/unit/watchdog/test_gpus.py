"""What GPUs show, and the step that it asks for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware import xid_entries
from roles.watchdog.on_host.gpus import FIELDS, LADDER, OLD_FIELDS, advice, rows_of
from roles.watchdog.policy import policy

NONE = "none"


def row(index: int, **more: str) -> dict[str, str]:
    own = {
        "index": str(index),
        "name": "NVIDIA H200",
        "pci.bus_id": f"00000000:{index + 58:X}:00.0",
    }
    return {**dict.fromkeys(FIELDS, "0"), **own, **{_field(name): v for name, v in more.items()}}


def _field(name: str) -> str:
    return next(field for field in FIELDS if field.replace(".", "_") == name)


def xid(number: int, index: int = 0) -> str:
    return f"NVRM: Xid (PCI:0000:{index + 58:x}:00): {number}, pid=412, name=python3, text\n"


def step(gpus: list[int], rows: list[dict[str, str]] | None, kernel: str = "") -> str:
    return advice(policy(), gpus, rows, kernel).step


TWO = [row(0), row(1)]


@pytest.mark.parametrize(
    ("gpus", "rows", "kernel", "expected"),
    [
        ([0, 1], TWO, "", NONE),
        # No driver of NVIDIA's, or GPUs that it does not count.
        ([0], [], xid(79), NONE),
        ([], TWO, xid(79), NONE),
        ([0], None, "", "restart"),
        ([1], [row(0)], "", "reboot"),
        ([0], [{}], "", "reboot"),
        ([0], [row(0)], "", NONE),
        ([0], TWO, xid(31), "restart"),
        ([0], TWO, xid(94), "restart"),
        ([0], TWO, xid(48), "reset"),
        ([0], TWO, xid(79), "reboot"),
        ([0], TWO, xid(64), "quarantine"),
        ([0], TWO, xid(31) + xid(64) + xid(31), "quarantine"),
        # Another replica's GPU, and what is no Xid of the table.
        ([0], TWO, xid(79, index=1), NONE),
        ([0], TWO, xid(9999), NONE),
        ([0], [row(0, remapped_rows_failure="Yes")], "", "quarantine"),
        ([0], [row(0, remapped_rows_pending="Yes")], "", "reset"),
        ([0], [row(0, ecc_errors_uncorrected_volatile_total="3")], "", "restart"),
        ([0], [row(0, gpu_recovery_action="Reset")], "", "reset"),
        ([0], [row(0, gpu_recovery_action="Reboot")], "", "reboot"),
        ([0], [row(0, gpu_recovery_action="None")], "", NONE),
        # A hot GPU is slow, and alive.
        ([0], [row(0, clocks_throttle_reasons_hw_slowdown="Active")], "", NONE),
        ([0], [row(0, ecc_errors_uncorrected_volatile_total="[N/A]")], "", NONE),
    ],
)
def test_the_least_step(
    gpus: list[int], rows: list[dict[str, str]] | None, kernel: str, expected: str
):
    assert step(gpus, rows, kernel) == expected


def test_the_reason_names_the_gpu():
    lost = advice(policy(), [1], [row(0)], "")
    assert lost.reason.startswith("GPU 1: ")
    assert advice(policy(), [0], TWO, xid(79)).reason.startswith("Xid 79 of GPU 0: ")


def test_every_xid_has_a_step_and_a_reason():
    table = policy()
    numbers = {str(one) for entry in xid_entries() for one in entry.xids}
    assert set(table["xids"]) == numbers
    rows = [*table["xids"].values(), *table["signs"].values()]
    assert all(step in LADDER and reason for step, reason in rows)


@pytest.mark.parametrize(
    ("text", "fields", "indexes"),
    [
        ("0, NVIDIA H200, 00000000:3B:00.0\n1, NVIDIA H200, 00000000:5E:00.0", OLD_FIELDS, "01"),
        ('Field "gpu_recovery_action" is not a valid field to query.', FIELDS, ""),
        ("Unable to determine the device handle for GPU0: 0000:3B:00.0: Unknown Error", FIELDS, ""),
        ("", FIELDS, ""),
    ],
)
def test_rows_are_read(text: str, fields: tuple[str, ...], indexes: str):
    assert "".join(one["index"] for one in rows_of(text, fields)) == indexes


@given(st.text(), st.text())
def test_any_output_gives_a_step(smi: str, kernel: str):
    found: Any = advice(policy(), [0], rows_of(smi), kernel)
    assert found.step in LADDER
