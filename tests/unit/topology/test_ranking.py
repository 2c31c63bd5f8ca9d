"""Shapes are ranked by their estimates: laws over cards, models and loads, and known cases."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.engine.engine import engine
from roles.engine.params import Changes, EngineParams
from roles.hardware import Gpu, Hardware, declared_links, find_card
from roles.models import find
from roles.plan import Load
from roles.topology.candidates import Candidate, candidates, with_fewer_replicas, with_load
from roles.topology.choice import PIPELINE_LEAD, TIE, Objective
from roles.topology.serving import Serving, serve
from roles.topology.spec import ServiceSpec

CARDS = (
    *("NVIDIA L40S", "NVIDIA H100 80GB HBM3", "NVIDIA A10G", "NVIDIA GeForce RTX 4090"),
    *("NVIDIA B200", "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
)
MODELS = (
    *("Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b"),
    *("nvidia/Llama-3.1-70B-Instruct-FP8", "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"),
)


@cache
def machine(card: str, count: int, links: str) -> Hardware:
    known = find_card(card)
    memory = known.memory_mib if known else None
    gpus = tuple(Gpu(index, card, memory or 0) for index in range(count))
    return Hardware(gpus, declared_links(links, count))


def spec(model: str, load: Load) -> ServiceSpec:
    params = EngineParams(max_model_len=load.input_tokens + load.output_tokens)
    return ServiceSpec(find(model), params, Objective(), load)


def total(serving: Serving) -> float:
    return sum(one.replicas * one.estimate.tokens_per_s for one in serving.chosen)


def options(one: ServiceSpec, hardware: Hardware) -> list[Candidate]:
    """Every shape with every number of replicas."""
    own = engine(one.engine)
    found, _ = candidates(own, one.model, one.params, hardware.gpus, hardware, one.load)
    less = [
        with_load(own, fewer, one.model, one.params, hardware, one.load)
        for candidate in found
        for fewer in with_fewer_replicas(candidate)
    ]
    return [*found, *less]


hosts = st.builds(
    machine,
    st.sampled_from(CARDS),
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.sampled_from(["nvlink", "pcie"]),
)
sizes = st.sampled_from([(128, 128), (1024, 256), (4096, 512), (512, 2048), (8000, 100)])


@settings(max_examples=60)
@given(st.sampled_from(MODELS), hosts, sizes, st.integers(1, 3000))
def test_the_choice_is_near_the_best_of_all_shapes(model, hardware, size, concurrency):
    one = spec(model, Load(concurrency, *size))
    serving = serve(one, hardware)
    if not serving.chosen:
        return
    merits = {False: 0.0, True: 0.0}
    for option in options(one, hardware):
        piped = option.shape.pipeline_parallel > 1
        merits[piped] = max(merits[piped], one.objective.merit(option))
    least = max(merits[False], merits[True] / (PIPELINE_LEAD if merits[False] else 1))
    assert total(serving) >= least * (1 - TIE) * (1 - 1e-9)


@settings(max_examples=60)
@given(st.sampled_from(MODELS), hosts, sizes, st.integers(1, 3000))
def test_one_more_request_costs_no_throughput(model, hardware, size, concurrency):
    before = serve(spec(model, Load(concurrency, *size)), hardware)
    after = serve(spec(model, Load(concurrency + 1, *size)), hardware)
    piped = any(one.shape.pipeline_parallel > 1 for one in before.chosen)
    if before.chosen and not piped:
        assert total(after) >= total(before) * (1 - TIE)


def test_no_cliff_where_requests_begin_to_wait():
    hardware = machine("NVIDIA L40S", 8, "pcie")
    rates = [
        total(serve(spec("Qwen/Qwen3-32B", Load(count, 1024, 256)), hardware))
        for count in (401, 420, 450, 480, 512, 700, 1000)
    ]
    assert all(more >= less * (1 - TIE) for less, more in pairwise(rates))


AWQ_70B = find("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4")


@pytest.mark.parametrize("load", [Load(1, 1024, 256), None])
@pytest.mark.parametrize(
    ("card", "links"), [("NVIDIA GeForce RTX 4090", "pcie"), ("NVIDIA GeForce RTX 3090", "nvlink")]
)
def test_fewer_sequences_come_before_a_pipeline(card: str, links: str, load: Load | None):
    params = EngineParams(max_model_len=8192)
    one = ServiceSpec(AWQ_70B, params, Objective("latency" if load else "throughput"), load)
    (chosen,) = serve(one, machine(card, 2, links)).chosen
    assert str(chosen.shape) == "TP2"
    assert chosen.changed == Changes(max_num_seqs=64)


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        (EngineParams(max_model_len=8192), Changes(64)),
        (EngineParams(max_model_len=8192, min_concurrency=2), Changes(64, 2048, 0.95, True)),
        # What the service sets stays.
        (EngineParams(max_model_len=8192, max_num_seqs=16), Changes()),
        (EngineParams(max_model_len=8192, min_concurrency=2, eager=False), None),
        (EngineParams(max_model_len=65536), None),
    ],
)
def test_the_cheapest_change_with_which_a_shape_fits(params, changed):
    hardware = machine("NVIDIA GeForce RTX 4090", 2, "pcie")
    found, _ = candidates(engine("vllm"), AWQ_70B, params, hardware.gpus, hardware, None)
    shapes = {str(one.shape): one.changed for one in found}
    assert shapes.get("TP2") == changed


def test_a_pipeline_is_taken_where_it_leads_by_far():
    """123B over PCIe: the all-reduces of TP4 bind, and TP2×PP2 moves far less."""
    hardware = machine("NVIDIA RTX PRO 6000 Blackwell Server Edition", 4, "pcie")
    one = spec("mistralai/Mistral-Large-Instruct-2407", Load(64, 1024, 256))
    serving = serve(one, hardware)
    plain = [each for each in options(one, hardware) if each.shape.pipeline_parallel == 1]
    assert str(serving.chosen[0].shape) == "TP2×PP2"
    assert total(serving) > PIPELINE_LEAD * max(map(one.objective.merit, plain))
    assert any("replica of TP4: an estimated" in text for text in serving.rejected)


def test_a_pipeline_that_leads_by_less_is_named():
    hardware = machine("NVIDIA L40S", 8, "pcie")
    found = [
        serve(spec("meta-llama/Llama-3.1-70B-Instruct", Load(count, 1024, 256)), hardware)
        for count in range(16, 65, 4)
    ]
    plain = [one for one in found if one.chosen[0].shape.pipeline_parallel == 1]
    assert any("only where it leads by 25%" in text for one in plain for text in one.rejected)


def test_shapes_whose_ranges_overlap_are_named_with_what_would_decide():
    hardware = machine("NVIDIA H100 80GB HBM3", 8, "nvlink")

    def undecided(model: str, concurrency: int) -> list[str]:
        found = serve(spec(model, Load(concurrency, 1024, 256)), hardware)
        return [text for text in found.reasons if "may be better" in text]

    (near,) = undecided("Qwen/Qwen3-8B", 200)
    assert "to decide" in near and "200 requests at once of 1024 + 256 tokens" in near
    assert undecided("Qwen/Qwen3-32B", 1) == []
