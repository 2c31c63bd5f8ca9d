"""The plan in words: a person finds the numbers and the reasons."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from roles.engine.engine import ENGINES
from roles.hardware import declared_hardware
from roles.plan import Plan
from roles.topology import ServiceSettings, explain, plan_fleet
from roles.topology.__main__ import main
from roles.topology.head_line import head_line
from roles.topology.plan_command import answers, explained

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
        ),
        whole=True,
    )
    assert "Plan for qwen: Qwen/Qwen2.5-14B-Instruct, 1 replica" in text
    row = next(line for line in text.splitlines() if line.startswith("gpu2 "))
    assert row.split()[-6:] == ["qwen-0", "0,1", "TP2", "8001", "59728", "14"]
    assert "the model does not fit one NVIDIA GeForce RTX 4090: 27.6 GiB of weights" in text
    assert "TP2 is the smallest shape that fits" in text
    assert "this host serves nothing" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def planned(model: str, concurrency: float | None, **gpus: str) -> Plan:
    data: dict[str, Any] = {"name": "chat", "model": model, "max_model_len": 8192}
    data |= {"concurrency": concurrency} if concurrency else {}
    hosts = {host.replace("_", "-"): declared_hardware(one, "pcie") for host, one in gpus.items()}
    return plan_fleet(ServiceSettings.model_validate(data), hosts)


MODELS = (
    *("Qwen/Qwen2.5-14B-Instruct", "meta-llama/Llama-3.3-70B-Instruct", "openai/gpt-oss-120b"),
    *("deepseek-ai/DeepSeek-R1", "Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.1-8B-Instruct"),
)
CARDS = (
    *("NVIDIA H100 80GB HBM3", "NVIDIA L40S", "NVIDIA GeForce RTX 4090", "Tesla T4"),
    *("NVIDIA B200", "NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA A10G"),
)
# Below the plan stand how to see all of it, and an empty line.
BELOW = 2


@pytest.mark.parametrize(("model", "card"), [*product(MODELS, CARDS)])
@pytest.mark.parametrize("concurrency", [None, 8, 64, 1000])
def test_a_plan_of_one_host_fits_a_screen(model: str, card: str, concurrency: float | None):
    made = planned(model, concurrency, gpu_1=f"8x {card}")
    lines = explain(made).splitlines()
    assert len(lines) + BELOW <= 24, lines
    # A line to paste is not wrapped.
    assert all(len(one) <= 100 for one in lines if "would fit with" not in one)


@pytest.mark.parametrize("whole", [False, True])
def test_the_head_line_is_broken_between_its_parts(whole: bool):
    made = planned(MODELS[0], 1000, gpu_1="8x NVIDIA A10G", small="1x NVIDIA A10G")
    first, second = explain(made, whole).splitlines()[1:3]
    assert f"{first} {second}" == head_line(made) and first.endswith(" ·")


def test_no_sentence_is_wider_than_a_screen(capsys: pytest.CaptureFixture[str]):
    hosts = {"gpu_1": "8x NVIDIA A100-SXM4-40GB", "gpu_2": "8x NVIDIA A100-SXM4-40GB"}
    shown = [explain(planned(MODELS[3], 64, **hosts), whole=True)]
    shown.append(explain(planned(MODELS[3], 64, gpu_1="8x NVIDIA H200", gpu_2="1x Tesla T4"), True))
    file = str(Path(__file__).parents[3] / "examples/two-hosts-405b.py")
    assert main(["fleet", file, "--explain"]) == 0
    assert main(["size", MODELS[1], "--cards", "Tesla T4,L40S"]) == 0
    printed = capsys.readouterr()
    lines = "\n".join([*shown, printed.out, printed.err]).splitlines()
    assert any("it is one replica, rank 1 of 2" in line for line in lines)
    assert [line for line in lines if len(line) > 100 and "would fit with" not in line] == []


def test_the_whole_plan_has_all_that_led_to_it():
    made = planned(MODELS[0], 64, gpu_1="4x NVIDIA L40S", small="1x NVIDIA A10G")
    short, whole = explain(made), explain(made, whole=True)
    sentences = " ".join(whole.split())
    for host in made.hosts:
        for text in (*host.reasons, *host.rejected, *host.problems, *host.warnings):
            assert text in sentences
        assert all(f"would fit with: {one}\n" in short for one in host.remedies)
        assert not any(text in short for text in host.rejected)
    assert "memory a GPU" in whole and "memory a GPU" not in short
    rows = [line for line in whole.splitlines() if line.startswith("gpu-1  ")]
    assert len(rows) == len(made.hosts[0].replicas)


def test_equal_replicas_are_a_row_and_equal_hosts_a_paragraph():
    made = planned(MODELS[5], None, **{f"gpu_{n}": "4x NVIDIA L40S" for n in range(9)})
    lines = explain(made).splitlines()
    (row,) = [line for line in lines if line.startswith("gpu-1  ")]
    assert row.split()[1:] == [
        *("chat-0", "to", "3", "0", "1", "2", "3", "4", "x", "one", "GPU", "8001-8004"),
        *(str(made.replicas[0].memory.kv_tokens), "24", "each"),
    ]
    named = ", ".join(f"gpu-{number}" for number in range(6))
    assert [line for line in lines if line.startswith("gpu-0,")] == [
        f"{named} and 3 more: 4x NVIDIA L40S (46068 MiB)"
    ]


INVENTORY = """
from roles.fleet.inventory import check

gpu_hosts = [("host", {"ssh_hostname": "10.0.0.1", "llm": {"gpus": "%s", "links": "pcie"}})]
balancers = [("lb", {"ssh_hostname": "10.0.0.2"})]
_service = {"name": "service", "model": "%s", "max_model_len": 8192, "concurrency": 64}
_settings = {"services": [_service], "balancer": {"api_key_file": "no.key"}}
all = (gpu_hosts + balancers, {"llm": _settings})

check(__file__)
"""


@pytest.mark.parametrize(
    ("model", "cards"),
    [
        (MODELS[0], ["NVIDIA L40S"] * 4),
        (MODELS[0], ["NVIDIA L40S", "Tesla T4"]),
        (MODELS[5], ["Tesla T4"] * 4),
        (MODELS[2], ["NVIDIA H100 80GB HBM3"]),
    ],
)
def test_every_command_says_the_same(
    model: str, cards: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "inventory.py"
    file.write_text(INVENTORY % (" + ".join(f"1x {card}" for card in cards), model))
    assert main(["fleet", str(file), "--json"]) == 0
    (service,) = json.loads(capsys.readouterr().out)["services"]
    (host,) = service["hosts"]
    assert main(["fleet", str(file), "--explain"]) == 0
    text = capsys.readouterr().out
    case = json.dumps(
        {
            "model": model,
            "host": {"gpus": [{"name": card} for card in cards], "links": "pcie"},
            "max_model_len": 8192,
            "workload": {"concurrency": 64},
        }
    )
    (answer,) = answers([case])
    assert answer["summary"] == service["summary"]
    assert answer["why"] == host["reasons"]
    for key in ("rejected", "warnings", "problems"):
        assert answer[key] == host[key], key
    (own,) = explained([case])
    assert own["text"] == text
    assert service["summary"] in text


def test_a_refused_case_is_explained_with_what_would_fit():
    case = {"model": MODELS[1], "host": {"gpus": [{"name": "NVIDIA L4"}]}}
    (found,) = explained([json.dumps(case)])
    (answer,) = answers([json.dumps(case)])
    assert all(f"would fit with: {one}\n" in found["text"] for one in answer["remedies"])
    assert f"does not serve: {answer['error']}" in found["text"]
    assert head_line(planned(MODELS[1], None, h="1x NVIDIA L4")) in found["text"]


def test_the_description_for_programs_names_every_kind_of_engine():
    text = (Path(__file__).parents[3] / "docs/fleet.schema.json").read_text()
    (kinds,) = re.findall(r'"engine": \{"enum": (\[.*?\])', text)
    assert json.loads(kinds) == list(ENGINES)
