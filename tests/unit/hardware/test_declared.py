from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from roles.hardware import Gpu, GpusDeclaration, LinksDeclaration, declared_hardware, summary

CASES: list[tuple[Any, str]] = [
    ("2x NVIDIA L40S", "2x NVIDIA L40S (46068 MiB)"),
    ("2x L40S", "2x NVIDIA L40S (46068 MiB)"),
    (" 1x Tesla T4 ", "1x Tesla T4 (15360 MiB)"),
    (
        "1x NVIDIA GeForce RTX 4090 + 1x NVIDIA GeForce RTX 3090",
        "1x NVIDIA GeForce RTX 4090 (24564 MiB) + 1x NVIDIA GeForce RTX 3090 (24576 MiB)",
    ),
    ([{"name": "L40S", "count": 2}], "2x NVIDIA L40S (46068 MiB)"),
    ([{"name": "NVIDIA L40S"}], "1x NVIDIA L40S (46068 MiB)"),
    ([{"name": "RTX 4090", "memory_mib": 49140}], "1x NVIDIA GeForce RTX 4090 (49140 MiB)"),
    ([{"name": "NVIDIA X1", "memory_mib": 65536, "count": 4}], "4x NVIDIA X1 (65536 MiB)"),
    # Two sizes print the same name, and the host is compared with what it prints.
    ("2x RTX 3080 12GB", "2x NVIDIA GeForce RTX 3080 (12288 MiB)"),
    ([{"name": "NVIDIA H100", "memory_mib": 81559}], "1x NVIDIA H100 (81559 MiB)"),
    ([{"name": "GB10", "memory_mib": 98304}], "1x NVIDIA GB10 (98304 MiB)"),
]


@pytest.mark.parametrize(("gpus", "expected"), CASES)
def test_both_forms(gpus: Any, expected: str):
    assert summary(declared_hardware(gpus).gpus) == expected


def test_indexes_count_through_all_kinds_in_order():
    hardware = declared_hardware("2x L4 + 1x L40S", "pcie")
    assert hardware.links == ((0, 1, "PCIE"), (0, 2, "PCIE"), (1, 2, "PCIE"))
    assert hardware.gpus[2] == Gpu(2, "NVIDIA L40S", 46068)
    assert [gpu.index for gpu in hardware.gpus] == [0, 1, 2]


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ("8x H100", "did you mean NVIDIA H100 80GB HBM3 or"),
        ("2x NVIDIA X1", "memory_mib"),
        ("1x RTX 3080", "did you mean NVIDIA GeForce RTX 3080 10GB or"),
        ("1x NVIDIA GB10", "GB10 shares its memory with the CPU: declare memory_mib"),
        ([{"name": "NVIDIA X1"}], "memory_mib"),
        ("L40S", "how many"),
        ("0x L40S", "how many"),
        ("-1x L40S", "how many"),
        ("2x L40S + ", "how many"),
        ("", "how many"),
        ("65x L40S", "at most 64"),
        ([], "no GPU"),
        ([{"name": "L40S", "count": 0}], "count"),
        ([{"name": "L40S", "count": "2"}], "count"),
        ([{"name": "L40S", "memory": 46068}], "memory"),
        ([{"name": "NVIDIA X1", "memory_mib": 48}], "memory_mib"),
    ],
)
def test_errors_say_what_is_wrong(gpus: Any, message: str):
    with pytest.raises(ValueError, match=message):
        declared_hardware(gpus)


@pytest.mark.parametrize("bad", ["'", '"', "\n", "\r", ";", "\x00", "\x1b[31m", "`", "$", "\u202e"])
def test_names_that_no_card_has_are_refused(bad: str):
    for gpus in (f"2x L40S{bad}x", [{"name": f"L40S{bad}x", "memory_mib": 46068}]):
        with pytest.raises(ValueError, match="L40S"):
            declared_hardware(gpus)


def test_unknown_links_are_refused():
    with pytest.raises(ValueError, match="nvlink"):
        declared_hardware("2x L40S", "infiniband")


def test_misspelt_links_are_told_the_word():
    with pytest.raises(ValueError, match="did you mean nvlink") as refused:
        declared_hardware("2x L40S", "nvlnk")
    assert "matri" not in str(refused.value)


def test_links_of_other_gpus_are_refused():
    matrix = "     GPU0 GPU2\nGPU0  X   NV4\nGPU2 NV4   X\n"
    with pytest.raises(ValueError, match="GPU 0, 2: declare every GPU"):
        declared_hardware("2x L40S", matrix)


class Settings(BaseModel):
    gpus: GpusDeclaration = None
    links: LinksDeclaration = None

    @model_validator(mode="after")
    def _check(self):
        if self.gpus is not None:
            declared_hardware(self.gpus, self.links)
        return self


def test_the_types_serve_in_a_pydantic_model():
    settings = Settings.model_validate({"gpus": [{"name": "L40S", "count": 2}], "links": "pcie"})
    assert settings.gpus is not None and len(declared_hardware(settings.gpus).gpus) == 2
    assert all(field.description for field in Settings.model_fields.values())
    for wrong in ({"gpus": "2x L50"}, {"gpus": "2x L40S", "links": "x"}, {"gpus": 2}):
        with pytest.raises(ValidationError):
            Settings.model_validate(wrong)


@pytest.mark.parametrize("field", ["memory_mib", "count"])
@pytest.mark.parametrize("value", [True, "5000", 5000.0, 0, 10**400])
def test_integers_are_written_as_integers(field: str, value: object):
    with pytest.raises(ValueError, match=field):
        declared_hardware([{"name": "NVIDIA X1", "memory_mib": 24000, field: value}])


@pytest.mark.parametrize(
    "gpus", ["40x NVIDIA L4 + 25x NVIDIA L4", [{"name": "NVIDIA L4", "count": 64}] * 2]
)
def test_a_host_has_at_most_64_gpus(gpus: str | list[dict[str, object]]):
    with pytest.raises(ValueError, match="at most 64"):
        declared_hardware(gpus)
