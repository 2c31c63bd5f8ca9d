"""The plan in words: a person finds the numbers and the reasons."""

from roles.hardware import declared_hardware
from roles.topology import ServiceSettings, explain, plan_fleet

SERVICE = ServiceSettings.model_validate(
    {"name": "qwen", "model": "Qwen/Qwen2.5-14B-Instruct", "max_model_len": 4096}
)


def test_a_plan_is_explained():
    text = explain(
        plan_fleet(
            SERVICE,
            {
                "gpu2": declared_hardware("2x NVIDIA GeForce RTX 4090", None),
                "small": declared_hardware("1x NVIDIA A10G", None),
            },
        )
    )
    assert "Plan for qwen: Qwen/Qwen2.5-14B-Instruct, 1 replica" in text
    row = next(line for line in text.splitlines() if line.startswith("gpu2 "))
    assert row.split()[-6:] == ["qwen-0", "0,1", "TP2", "8001", "59728", "14"]
    assert "one GPU does not fit NVIDIA GeForce RTX 4090: 27.6 GiB of weights" in text
    assert "TP2 is the smallest shape that fits" in text
    assert "this host serves nothing" in text
    assert all(line == line.rstrip() for line in text.splitlines())
