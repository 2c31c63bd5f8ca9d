"""From observations to verdicts, one departure from the plan at a time."""

from dataclasses import replace

import pytest

from roles.checks import Check
from roles.plan import Task
from roles.validation.observations import (
    Completion,
    GpuUse,
    HostObservations,
    LoadResult,
    UnitStatus,
)
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import judge_host, judge_unobserved, level
from tests.unit.validation.samples import (
    ANSWER,
    REPLICA,
    RUNNING,
    UNIT,
    gpu,
    process,
    seen,
)

SETTINGS = ValidationSettings()
ALL_CHECKS = [
    "completion",
    "model",
    "shape",
    "stream",
    "process",
    "memory",
    "load",
    "utilization",
    "stability",
]


def judge(observed: HostObservations, replica=REPLICA) -> dict[str, Check]:
    checks = judge_host("gpu1", [replica], observed, SETTINGS)
    return {check.name: check for check in checks}


def test_a_host_as_planned_passes_every_check() -> None:
    found = judge(seen())
    assert list(found) == ALL_CHECKS
    assert {verdict.outcome for verdict in found.values()} == {"pass"}
    assert found["process"].evidence == "GPU 0: pid 4242; GPU 1: pid 4243"
    assert not any(verdict.remedy for verdict in found.values())


FOREIGN = "0::/system.slice/ollama.service\n"
IDLE = gpu(used=(0, 0, 3, 5))
CASES = [
    (
        "no completion",
        {"completions": {"chat-0": Completion(False, "HTTP 500: dead")}},
        "completion",
        "fail",
        "HTTP 500: dead",
    ),
    (
        "no stream",
        {"streams": {"chat-0": Completion(False, "1 chunks, [DONE] False")}},
        "stream",
        "fail",
        "1 chunks",
    ),
    (
        "another model",
        {"completions": {"chat-0": replace(ANSWER, model="other")}},
        "model",
        "fail",
        "serves other, planned chat",
    ),
    (
        "another model behind an engine that answers to any name",
        {"models": {"chat-0": ["other"]}},
        "model",
        "fail",
        "serves other, planned chat",
    ),
    (
        "TP1 by mistake",
        {"completions": {"chat-0": replace(ANSWER, fingerprint="vllm-0.32.0-tp1-x")}},
        "shape",
        "fail",
        "TP1, planned TP2",
    ),
    ("GPU gone", {"gpus": {0: gpu()}}, "process", "fail", "GPU 1 is not there"),
    ("GPU gone", {"gpus": {0: gpu()}}, "memory", "fail", "GPU 1 is not there"),
    (
        "no process",
        {"gpus": {0: gpu(), 1: GpuUse(21000)}},
        "process",
        "fail",
        f"GPU 1: no process of {UNIT}",
    ),
    (
        "somebody else's process",
        {"gpus": {0: gpu(), 1: gpu(process(), process("77", FOREIGN))}},
        "process",
        "fail",
        "GPU 1: pid 77 VLLM::Worker of ollama.service (20000 MiB)",
    ),
    (
        "somebody else's process of unknown memory",
        {"gpus": {0: gpu(), 1: gpu(process(), process("77", FOREIGN, None))}},
        "process",
        "fail",
        "pid 77 VLLM::Worker of ollama.service (unknown memory)",
    ),
    (
        "a desktop beside the engine",
        {"gpus": {0: gpu(), 1: gpu(process(), process("77", FOREIGN, 25))}},
        "process",
        "warn",
        "pid 77",
    ),
    (
        "only a desktop",
        {"gpus": {0: gpu(), 1: gpu(process("77", FOREIGN, 25))}},
        "process",
        "fail",
        "pid 77",
    ),
    (
        "hidden pids",
        {"gpus": {0: gpu(), 1: gpu(process("77", None))}},
        "process",
        "warn",
        "cannot be seen",
    ),
    (
        "no pids at all, but memory",
        {"gpus": {0: GpuUse(9000), 1: GpuUse(9000)}},
        "process",
        "warn",
        "cannot be seen",
    ),
    (
        "no pids and no memory",
        {"gpus": {0: GpuUse(3), 1: GpuUse(3)}},
        "process",
        "fail",
        "no process",
    ),
    (
        "processes not readable",
        {"process_error": "Unknown Error"},
        "process",
        "fail",
        "could not be read: Unknown Error",
    ),
    (
        "no memory held",
        {"gpus": {0: gpu(), 1: gpu(memory=255)}},
        "memory",
        "fail",
        "GPU 1: 255 MiB",
    ),
    (
        "memory not readable",
        {"gpus": {0: gpu(), 1: gpu(memory=None)}},
        "memory",
        "warn",
        "GPU 1: the driver does not say",
    ),
    (
        "errors under load",
        {"loads": {"chat-0": LoadResult(9, 1, 90, 10.0, "HTTP 500")}},
        "load",
        "fail",
        "1 failed, 9 completions in 10 s, 9 tokens/s: HTTP 500",
    ),
    (
        "nothing under load",
        {"loads": {"chat-0": LoadResult(0, 0, 0, 0.0)}},
        "load",
        "fail",
        "no answer in time",
    ),
    (
        "idle GPU",
        {"gpus": {0: gpu(), 1: IDLE}},
        "utilization",
        "fail",
        "GPU 1: 3% (mean 2%, max 5%)",
    ),
    (
        "one stray sample",
        {"gpus": {0: gpu(), 1: gpu(used=(0, 0, 0, 0, 80))}},
        "utilization",
        "fail",
        "GPU 1: 0%",
    ),
    (
        "waiting GPU",
        {"gpus": {0: gpu(), 1: gpu(used=(40, 45, 50, 50))}},
        "utilization",
        "warn",
        "GPU 1: 50%",
    ),
    (
        "utilization not readable",
        {"gpus": {0: gpu(), 1: gpu(used=())}},
        "utilization",
        "warn",
        "could not be read",
    ),
    (
        "restarted",
        {"after": {UNIT: UnitStatus("active", 4300, 1)}},
        "stability",
        "fail",
        "main pid 4200, 0 restarts → main pid 4300, 1 restarts",
    ),
    (
        "unit down",
        {"after": {UNIT: UnitStatus("failed", 0, 3)}},
        "stability",
        "fail",
        "is failed, main pid 0",
    ),
    ("before unknown", {"before": {}}, "stability", "fail", "unknown → main pid 4200"),
]


@pytest.mark.parametrize(("changes", "check", "outcome", "part"), [case[1:] for case in CASES])
def test_a_departure_from_the_plan_is_named(
    changes: dict[str, object], check: str, outcome: str, part: str
) -> None:
    verdict = judge(seen(**changes))[check]
    assert verdict.outcome == outcome
    assert part in verdict.evidence


def test_a_replica_that_does_not_answer_is_not_judged_by_its_load() -> None:
    found = judge(seen(completions={"chat-0": Completion(False, "refused")}, loads={}))
    assert "load" not in found
    assert "utilization" not in found


def test_where_gpus_take_turns_only_idleness_counts() -> None:
    pipeline = replace(REPLICA, tensor_parallel=2, pipeline_parallel=2)
    waiting = seen(gpus={0: gpu(), 1: gpu(used=(30, 30, 30, 30))})
    assert judge(waiting, pipeline)["utilization"].outcome == "pass"
    assert judge(seen(gpus={0: gpu(), 1: IDLE}), pipeline)["utilization"].outcome == "fail"


def test_the_thresholds_are_inclusive_where_documented() -> None:
    for percent, outcome in ((5, "fail"), (6, "warn"), (69, "warn"), (70, "pass")):
        observed = seen(gpus={0: gpu(), 1: gpu(used=(percent,))})
        assert judge(observed)["utilization"].outcome == outcome


def test_an_engine_without_fingerprint_has_no_verdict_on_shape() -> None:
    found = judge(seen(completions={"chat-0": replace(ANSWER, fingerprint="fp_1", model=None)}))
    assert "shape" not in found
    assert "model" not in found


def test_gpus_that_cannot_be_read_fail_once() -> None:
    found = judge(seen(gpus={}, gpu_error="No such file: nvidia-smi"))
    assert found["gpus"].outcome == "fail"
    assert found["gpus"].evidence == "GPUs could not be read: No such file: nvidia-smi"
    assert not {"process", "memory", "utilization"} & set(found)


def test_what_was_seen_in_time_is_judged_all_the_same() -> None:
    found = judge(HostObservations(completions={"chat-0": ANSWER}, unfinished="not done after 9 s"))
    assert found["host"].outcome == "fail"
    assert found["completion"].outcome == "pass"


def test_a_silent_host_fails() -> None:
    assert [(one.host, one.subject, one.outcome) for one in judge_unobserved("gpu1")] == [
        ("gpu1", "gpu1", "fail")
    ]


@pytest.mark.parametrize(
    ("samples", "value"),
    [([7], 7), ([1, 9], 9), ([1, 2, 3, 4], 3), ([0, 0, 0, 0, 80], 0), (list(range(20)), 14)],
)
def test_the_level_is_the_upper_quartile(samples: list[int], value: int) -> None:
    assert level(samples) == value


def test_a_running_unit_is_stable() -> None:
    assert judge(seen(before={UNIT: RUNNING}))["stability"].outcome == "pass"


OTHER = process("77", "0::/system.slice/system-llm.slice/llm@chat-1.service\n")
STRANGER = process("78", "0::/system.slice/jupyter.service\n")


def test_other_replicas_may_have_other_slices_of_a_gpu():
    busy = {0: gpu(process(), OTHER), 1: gpu(process("4243"))}
    sliced = replace(REPLICA, sliced=(0,))
    assert judge(seen(gpus=busy))["process"].outcome == "fail"
    assert judge(seen(gpus=busy), sliced)["process"].outcome == "pass"
    strange = busy | {0: gpu(process(), OTHER, STRANGER)}
    found = judge(seen(gpus=strange), sliced)["process"]
    assert found.outcome == "fail" and "pid 78" in found.evidence
    assert "pid 77" not in found.evidence
    alone = busy | {0: gpu(OTHER)}
    assert judge(seen(gpus=alone), sliced)["process"].outcome == "fail"


def test_how_busy_a_slice_is_nobody_tells():
    silent = {0: gpu(used=()), 1: gpu(process("4243"))}
    found = judge(seen(gpus=silent), replace(REPLICA, sliced=(0,)))["utilization"]
    assert (found.outcome, found.evidence) == ("pass", "GPU 1: 99% (mean 95%, max 99%)")
    assert "utilization" not in judge(seen(gpus=silent), replace(REPLICA, sliced=(0, 1)))


def test_a_replica_without_a_completion_is_looked_at_by_its_own_unit():
    check = judge(seen(completions={"chat-0": Completion(False, "refused")}))["completion"]
    assert f"journalctl -u {UNIT} " in check.remedy


EMBEDDING = replace(ANSWER, tokens=3, fingerprint=None, length=64)
RANKING = replace(ANSWER, tokens=9, fingerprint=None, order=(1, 0))


@pytest.mark.parametrize(
    ("task", "answer", "name", "outcome", "part"),
    [
        ("embed", EMBEDDING, "embedding", "pass", "64 numbers"),
        ("embed", replace(EMBEDDING, length=63), "embedding", "fail", "63 numbers in 0.2 s, "),
        ("embed", Completion(False, "HTTP 404: x"), "embedding", "fail", "HTTP 404"),
        ("rerank", RANKING, "ranking", "pass", "first"),
        ("rerank", replace(RANKING, order=(0, 1)), "ranking", "fail", "last"),
        ("rerank", replace(RANKING, order=()), "ranking", "fail", "last"),
    ],
)
def test_another_task_is_proved_by_what_it_does(
    task: Task, answer: Completion, name: str, outcome: str, part: str
) -> None:
    replica = replace(REPLICA, task=task, embedding_size=64)
    observed = seen(completions={"chat-0": answer}, streams={})
    found = {one.name: one for one in judge_host("gpu1", [replica], observed, SETTINGS)}
    assert (found[name].outcome, part in found[name].evidence) == (outcome, True)
    assert not {"completion", "stream"} & found.keys()
    assert "40 requests in 10 s" in found["load"].evidence


@pytest.mark.parametrize(
    ("models", "adapted", "outcome", "part"),
    [
        (["chat", "style"], {"style": ANSWER}, "pass", "asked for chat:style"),
        (["chat"], {"style": ANSWER}, "fail", "it lists chat"),
        ([], {"style": ANSWER}, "fail", "it lists no model"),
        (["chat", "style"], {"style": Completion(False, "HTTP 404: x")}, "fail", "HTTP 404"),
        (["chat", "style"], {}, "fail", "did not ask"),
    ],
)
def test_each_adapter_is_listed_and_answers(
    models: list[str], adapted: dict[str, Completion], outcome: str, part: str
) -> None:
    replica = replace(REPLICA, adapters={"style": "chat:style"})
    observed = seen(models={"chat-0": models}, adapted={"chat-0": adapted})
    checks = judge_host("gpu1", [replica], observed, SETTINGS)
    (check,) = [one for one in checks if one.name == "adapter"]
    assert (check.subject, check.outcome) == ("chat-0: style", outcome)
    assert part in check.evidence
