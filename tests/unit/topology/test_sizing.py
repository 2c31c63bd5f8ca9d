"""Sizing: the rows of a table of cards, their order, and what the command takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from roles.hardware import find_card, known_cards
from roles.plan import Shape
from roles.topology import ServiceSettings, plan_fleet
from roles.topology.__main__ import main
from roles.topology.size_reference import page
from roles.topology.sizing import Size, hardware_of, ranked, sizes

MODEL = "meta-llama/Llama-3.3-70B-Instruct"
ROOT = Path(__file__).parents[3]


def service(model: str = MODEL, **more: Any) -> ServiceSettings:
    load = {"concurrency": 16, "input_tokens": 1024, "output_tokens": 256}
    return ServiceSettings.model_validate(
        {"name": "s", "model": model, "max_model_len": 1280, **load, **more}
    )


def of_cards(*names: str, **options: Any) -> dict[tuple[str, int, int], Size]:
    wanted = [card for card in known_cards() if card.name in names]
    found = sizes(service(), wanted, **options)
    return {(one.card, one.gpus_per_host, one.hosts): one for one in found}


def test_each_number_of_gpus_and_hosts_is_planned_as_a_fleet_of_it_would_be():
    found = of_cards("NVIDIA L40S", "NVIDIA H100 80GB HBM3")
    assert len(found) == 2 * 4 * 4
    card = find_card("NVIDIA L40S")
    assert card is not None
    host = hardware_of(card, 4)
    plan = plan_fleet(service(), {"a": host, "b": host})
    size = found["NVIDIA L40S", 4, 2]
    assert size.replicas == len(plan.replicas) and size.shape == str(plan.replicas[0].shape)
    each = [replica.expected for replica in plan.replicas]
    assert size.tokens_per_s == pytest.approx(sum(one.tokens_per_s for one in each if one))
    low, high = size.tokens_per_s_low, size.tokens_per_s_high
    assert size.tokens_per_s and low and high and low < size.tokens_per_s < high
    assert size.ttft_ms == max(one.ttft_ms for one in each if one)


INVENTORY = """
from roles.fleet.inventory import check

names = [f"h{{number}}" for number in range({hosts})]
gpu_hosts = [
    (name, {{"ssh_hostname": f"192.0.2.{{i}}", "llm": {{"gpus": "{gpus}x {card}"}}}})
    for i, name in enumerate(names, 10)
]
balancers = names[:1]
_settings = {{"services": [{service}], "balancer": {{"api_key_file": "secrets/api.key"}}}}
all = (names, {{"llm": _settings}})
check(__file__)
"""
LOADS: tuple[dict[str, Any], ...] = (
    {"concurrency": 16, "input_tokens": 1024, "output_tokens": 256},
    {"concurrency": 300, "input_tokens": 3072, "output_tokens": 1024, "min_concurrency": 2},
)


@pytest.mark.parametrize("load", LOADS, ids=("few", "many"))
@pytest.mark.parametrize(("gpus", "hosts"), [(1, 1), (2, 1), (8, 1), (2, 2)])
@pytest.mark.parametrize(
    ("model", "card"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "NVIDIA GeForce RTX 4090"),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", "NVIDIA GeForce RTX 4090"),
        ("openai/gpt-oss-120b", "NVIDIA H100 80GB HBM3"),
        ("Qwen/Qwen3-30B-A3B", "NVIDIA A100 80GB PCIe"),
    ],
)
def test_size_says_what_fleet_says_of_the_same_hosts_and_load(
    model: str,
    card: str,
    gpus: int,
    hosts: int,
    load: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    length = load["input_tokens"] + load["output_tokens"]
    service = {"name": "s", "model": model, "max_model_len": length, **load}
    inventory = tmp_path / "hosts.py"
    inventory.write_text(INVENTORY.format(hosts=hosts, gpus=gpus, card=card, service=service))
    assert main(["fleet", str(inventory), "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["services"]
    replicas = [one for host in planned["hosts"] for one in host["replicas"]]
    rows = ("--cards", card, "--gpus", str(gpus), "--hosts", str(hosts), "--json")
    options = [part for name, value in load.items() for part in (_option(name), str(value))]
    for asked in (("--inventory", str(inventory)), (model, *options)):
        assert run(*asked, *rows) == 0
        (size,) = json.loads(capsys.readouterr().out)["sizes"]
        assert size["replicas"] == len(replicas)
        assert size["shape"] == " + ".join(dict.fromkeys(map(_shape, replicas)))
        assert size["requests_at_once"] == sum(one["requests_at_once"] for one in replicas)
        expected = [one["expected"]["tokens_per_s"] for one in replicas]
        assert size["tokens_per_s"] == pytest.approx(sum(expected))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shape(replica: dict[str, Any]) -> str:
    sizes = replica["tensor_parallel_size"], replica["pipeline_parallel_size"]
    return str(Shape(*sizes, expert_parallel=replica["enable_expert_parallel"]))


def test_what_one_host_does_not_hold_several_do():
    found = of_cards("NVIDIA L40S")
    alone, together = found["NVIDIA L40S", 2, 1], found["NVIDIA L40S", 2, 2]
    assert not alone.fits and "GiB of weights" in alone.problem
    assert together.fits and "over 2 hosts" in together.shape and together.tokens_per_s is None


def test_links_are_those_that_come_with_the_card():
    sxm, bridged = find_card("NVIDIA H100 80GB HBM3"), find_card("NVIDIA A100 80GB PCIe")
    assert sxm and bridged and bridged.nvlink_optional
    of_sxm, of_bridged = hardware_of(sxm, 2).links, hardware_of(bridged, 2).links
    assert of_sxm and of_sxm[0][2].startswith("NV")
    assert of_bridged and not of_bridged[0][2].startswith("NV")
    assert hardware_of(sxm, 1).links == ()


def test_a_card_on_which_the_engine_does_not_run_is_none_in_a_cluster_either():
    found = of_cards("NVIDIA GeForce GTX 1080 Ti")
    assert not any(one.fits for one in found.values())
    assert "compute capability" in found["NVIDIA GeForce GTX 1080 Ti", 8, 4].problem


def test_a_price_is_of_all_gpus_and_its_cost_of_full_load():
    found = of_cards("NVIDIA L40S", prices={"NVIDIA L40S": 700.0})
    size = found["NVIDIA L40S", 4, 2]
    assert size.price_per_month == 5600 and size.requests_per_s and size.cost_per_1000_requests
    a_month_s = 365.25 / 12 * 86400
    assert size.cost_per_1000_requests == pytest.approx(
        5600 / (size.requests_per_s * a_month_s) * 1000
    )
    assert found["NVIDIA L40S", 1, 1].cost_per_1000_requests is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # What holds the load, then what fits, then what does not.
        (Size("a", 8, 4, "TP8", 4, 16), Size("a", 1, 1, "one GPU", 1, 15)),
        (Size("a", 8, 4, "TP8", 4, 1), Size("a", 1, 1, problem="too small")),
        # The cheapest, then the fewest GPUs, then the fastest.
        (
            Size("a", 4, 1, "TP4", 1, 16, cost_per_1000_requests=1.0),
            Size("b", 1, 1, "one GPU", 1, 16, cost_per_1000_requests=2.0),
        ),
        (Size("a", 4, 1, "TP4", 1, 16, cost_per_1000_requests=9.0), Size("b", 1, 1, "TP1", 1, 16)),
        (Size("b", 2, 1, "TP2", 1, 16, 10.0), Size("a", 4, 1, "TP4", 1, 16, 99.0)),
        (Size("b", 2, 1, "TP2", 1, 16, 99.0), Size("a", 2, 1, "TP2", 1, 16, 10.0)),
    ],
)
def test_the_best_comes_first(first: Size, second: Size):
    assert ranked([second, first], 16) == (first, second)


def test_the_docs_have_what_the_command_prints():
    assert (ROOT / "docs/sizing.md").read_text() == page(), "run `make reference`"


def run(*arguments: str) -> int:
    return main(["size", *arguments])


def test_the_table_has_the_best_of_each_card(capsys: pytest.CaptureFixture[str]):
    assert run(MODEL, "--concurrency", "16", "--cards", "L40S, h200 nvl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MODEL}, 16 requests at once of 1024 + 256 tokens"
    assert lines[1] == "a replica holds at least 8 requests of 1280 tokens"
    assert sum("NVIDIA L40S" in line for line in lines) == 1
    assert run(MODEL, "--concurrency", "16", "--cards", "L40S", "--all") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("NVIDIA L40S" in line and not line.startswith("not on") for line in lines) > 4
    assert any(line.startswith("not on 1x NVIDIA L40S: ") for line in lines)


def test_json_has_every_row(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("L40S: 700\n")
    priced = ("--cards", "L40S,A10G", "--prices", str(prices), "--json")
    assert run(MODEL, *priced) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == MODEL and answer["load"]["concurrency"] == 1
    assert len(answer["sizes"]) == 32
    assert run(MODEL, *priced, "--budget", "2800", "--gpus", "4", "--hosts", "1,2") == 0
    (only,) = json.loads(capsys.readouterr().out)["sizes"]
    assert (only["card"], only["gpus_per_host"], only["hosts"]) == ("NVIDIA L40S", 4, 1)
    assert only["price_per_month"] == 2800


def test_a_service_of_an_inventory_is_sized(capsys: pytest.CaptureFixture[str]):
    inventory = str(ROOT / "examples/two-services.py")
    assert run("--inventory", inventory, "--cards", "L40S") == 1
    assert "name one by --service: chat, code" in capsys.readouterr().err
    assert run("--inventory", inventory, "--cards", "L40S", "--service", "code") == 0
    assert "L40S" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "name a model or an --inventory"),
        ([MODEL, "--inventory", "x.py"], "name a model or an --inventory"),
        ([MODEL, "--service", "x"], "--service needs the --inventory"),
        (["Llama-3.3-70B"], "model"),
        ([MODEL, "--concurrency", "0"], "--concurrency: must be greater than or equal to 0.01"),
        ([MODEL, "--concurrency", "nan"], "--concurrency: must be a finite number"),
        ([MODEL, "--input-tokens", "-5"], "--input-tokens: must be greater than 0"),
        ([MODEL, "--max-model-len", "100"], "max_model_len"),
        ([MODEL, "--max-model-len", "0"], "--max-model-len: must be greater than"),
        ([MODEL, "--output-tokens", "999999999"], "--input-tokens and --output-tokens: together"),
        ([MODEL, "--prices", "none.yaml", "--budget", "-5"], "--budget: -5.0 is no sum above 0"),
        ([MODEL, "--prices", "none.yaml", "--budget", "nan"], "--budget: nan is no sum above 0"),
        ([MODEL, "--cards", "voodoo"], "'voodoo'"),
        ([MODEL, "--cards", ""], "--cards"),
        ([MODEL, "--budget", "100"], "--budget needs prices"),
        ([MODEL, "--prices", "none.yaml"], "none.yaml"),
        (["--inventory", "none.py"], "none.py"),
    ],
)
def test_what_cannot_be_sized_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
):
    assert run(*arguments) == 1
    printed = capsys.readouterr()
    assert named in printed.err and "Traceback" not in printed.err and not printed.out
    assert " should " not in printed.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("L40S: -1\n", "L40S"),
        ("L40S: .nan\n", "L40S"),
        ("L40S: cheap\n", "L40S"),
        ("Voodoo: 1\n", "'Voodoo'"),
        ("[1]\n", "NVIDIA L40S: 900"),
        ("", "NVIDIA L40S: 900"),
        ("a: [", "prices.yaml"),
    ],
)
def test_a_wrong_price_is_named_with_its_file(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    assert run(MODEL, "--cards", "L40S", "--prices", str(file)) == 1
    printed = capsys.readouterr().err
    assert named in printed and "prices.yaml" in printed and " should " not in printed


@pytest.mark.parametrize("counts", ["0", "x", "65", "1,,2", ""])
def test_a_wrong_number_of_gpus_is_refused(counts: str):
    with pytest.raises(SystemExit) as caught:
        run(MODEL, "--gpus", counts)
    assert caught.value.code == 2


def test_every_card_has_its_row():
    found = sizes(service(), known_cards(), gpu_counts=(8,), host_counts=(1,))
    assert {one.card for one in found} == {card.name for card in known_cards() if card.memory_mib}
