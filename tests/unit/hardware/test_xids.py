from typing import get_args

import pytest

from roles.hardware.xids import XidSeverity, find_xid, xid_entries, xid_severity


def test_a_number_has_one_entry():
    numbers = [xid for entry in xid_entries() for xid in entry.xids]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(range(1, 173))


def test_every_severity_is_used():
    assert {entry.severity for entry in xid_entries()} == set(get_args(XidSeverity))


@pytest.mark.parametrize(
    ("xids", "severity"),
    [
        # RESTART_APP of NVIDIA's catalogue
        (
            [8, 11, 13, 25, 31, 32, 39, 60, 68, 69, 80, 82, 94, 96, 105, 135, 139],
            "application",
        ),
        # RESET_GPU
        ([46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158], "reset"),
        # RESTART_BM, RESTART_VM
        ([79, 151], "reboot"),
        # CHECK_MECHANICALS
        ([54], "hardware"),
        # IGNORE, nothing to investigate
        ([63, 106, 107], "information"),
        # IGNORE, but CONTACT_SUPPORT or INVESTIGATE_SW
        ([38, 44, 66, 67, 92, 93, 121, 141, 157, 160, 161], "warning"),
        # "Unused", CONTACT_SUPPORT
        ([61, 73, 81, 122, 123], "warning"),
    ],
)
def test_severities_are_those_of_the_catalogue(xids: list[int], severity: str):
    assert {xid: xid_severity(xid) for xid in xids} == dict.fromkeys(xids, severity)


@pytest.mark.parametrize(
    ("action", "severity"),
    [
        ("0x0 (None)", "information"),
        ("0x1 (GPU Reset Required)", "reset"),
        ("0x2 (Node Reboot Required)", "reboot"),
        ("0x9 (Something new)", "warning"),
    ],
)
def test_xid_154_says_its_severity_itself(action: str, severity: str):
    message = f"GPU recovery action changed from 0x2 (Node Reboot Required) to {action}"
    assert xid_severity(154, message) == severity
    # Of another Xid the same words mean nothing.
    assert xid_severity(13, message) == "application"


def test_an_unknown_number_is_said_to_be_unknown():
    assert find_xid(999) is None
    assert xid_severity(999) is None


def test_an_entry_says_what_to_do():
    entry = find_xid(79)
    assert entry is not None and entry.meaning.startswith("GPU has fallen off the bus")
    assert "restart the host" in entry.action.lower()
