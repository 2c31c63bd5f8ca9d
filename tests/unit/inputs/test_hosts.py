"""Wrong hosts, groups, data and contradictions are refused, the root first."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.inputs.host_cases import (
    ADDRESSES,
    CONTRADICTIONS,
    GROUPS,
    HARDWARE,
    KEYS,
)
from tests.unit.inputs.inventories import changed, expect, problems

ROWS = [*KEYS, *GROUPS, *ADDRESSES, *HARDWARE, *CONTRADICTIONS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_wrong_host_is_refused(folder: Path, row: Any):
    change, *expected = row
    many = isinstance(change, tuple) and not isinstance(change[0], str)
    expect(problems(folder, changed(folder, *(change if many else (change,)))), *expected)


@pytest.mark.parametrize("name", ["bad name", "a\n", "-x", "n" * 300, "a;b"])
def test_names_that_no_host_should_have(folder: Path, name: str):
    def rename(names: dict[str, Any]) -> None:
        names["gpu_hosts"][0][0] = names["all"][0][0] = name

    found = problems(folder, changed(folder, rename))
    assert found[0].startswith("hosts[") and "use letters" in found[0]


def test_data_of_pyinfra_and_of_others_is_none_of_ours(folder: Path):
    more = (("gpu1.ssh_user", "deploy"), ("gpu1._sudo_user", "root"), ("gpu1.rack", "r7"))
    assert problems(folder, changed(folder, *more, ("file._hidden", (1, 2)))) == []
