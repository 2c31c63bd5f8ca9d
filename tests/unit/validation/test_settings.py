"""What an inventory may say about validation."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from roles.validation import ValidationSettings


def test_the_defaults_are_those_that_practitioners_use() -> None:
    settings = ValidationSettings()
    assert (settings.idle_utilization_percent, settings.busy_utilization_percent) == (5, 70)


@pytest.mark.parametrize(
    "data",
    [
        {"unknown": 1},
        {"load_s": 0},
        {"busy_utilization_percent": 101},
        {"idle_utilization_percent": 70},
        {"report_dir": ""},
    ],
)
def test_what_makes_no_sense_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ValidationSettings.model_validate(data)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ValidationSettings.model_fields.values())


def test_reports_may_lie_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ValidationSettings(report_dir="~/reports").report_dir == f"{tmp_path}/reports"
