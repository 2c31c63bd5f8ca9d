"""The host program, run as a host runs it: fed to a Python's standard input."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from roles.hardware.readings import AMD, NVIDIA, Tool
from roles.validation.observations import HostObservations, PlannedReplica, parse_observations
from roles.validation.operations import host_program
from roles.validation.recognition import MAX_TOKENS
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import judge_host
from tests.unit.launch.stand_in import chat_engine, engine, send
from tests.unit.validation.fakes import AMD_SMI, NVIDIA_SMI, SYSTEMCTL, processes, programs
from tests.unit.validation.samples import CGROUP_V1, CGROUP_V2, REPLICA

SETTINGS = ValidationSettings(load_s=1.6, load_concurrency=2, completion_timeout_s=60)


def run(
    replicas: Sequence[PlannedReplica],
    folder: Path,
    path: str,
    tool: Tool = NVIDIA,
    **task: object,
) -> HostObservations:
    program, _ = host_program(replicas, SETTINGS, tool)
    proc = processes(folder, p4242=CGROUP_V2, p4243=CGROUP_V1)
    program = program.replace('PROC = "/proc"', f"PROC = {str(proc)!r}")
    # Some samples fit into a short load, however long each of them takes.
    assert "\nSAMPLE_INTERVAL_S = 0.5\n" in program
    program = program.replace("SAMPLE_INTERVAL_S = 0.5", "SAMPLE_INTERVAL_S = 0.05")
    program = program.replace("main(TASK,", f"main(dict(TASK, **{task!r}),")
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        env=os.environ | {"PATH": path, "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return parse_observations(line)


def test_a_host_as_planned_passes(tmp_path: Path) -> None:
    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(chat_engine("chat", tp=2)) as url:
        replicas = [replace(REPLICA, base_url=url)]
        observed = run(replicas, tmp_path, path)
    verdicts = judge_host("gpu1", replicas, observed, SETTINGS)
    assert {verdict.outcome for verdict in verdicts} == {"pass"}, verdicts
    assert len(verdicts) == 9
    assert len(observed.gpus[0].utilization_percent) >= 2
    # Each worker asks again and again.
    assert observed.loads["chat-0"].completed >= 3 * SETTINGS.load_concurrency


def test_the_load_lasts_until_the_last_sample_is_taken(tmp_path: Path) -> None:
    # As on a host whose processors are all at work.
    slow = NVIDIA_SMI.replace("else:\n", "else:\n    import time; time.sleep(2)\n")
    path = programs(tmp_path, **{"nvidia-smi": slow, "systemctl": SYSTEMCTL})
    with engine(chat_engine("chat", tp=2)) as url:
        observed = run([replace(REPLICA, base_url=url)], tmp_path, path, load_s=0.2)
    assert observed.loads["chat-0"].seconds >= 2
    # One request of each worker takes far less.
    assert observed.loads["chat-0"].completed > 3 * SETTINGS.load_concurrency


@pytest.mark.parametrize(
    ("listed", "names", "outcome"),
    [
        (b'{"data": [{"id": "chat"}, {"id": "an adapter"}]}', ["chat", "an adapter"], "pass"),
        (b'{"data": [{"id": "other"}]}', ["other"], "fail"),
        # What it repeats counts where it does not say.
        (b'{"data": 5}', [], "pass"),
        (b'{"data": [{"id": "a\\u001b[2Jb"}]}', ["a [2Jb"], "fail"),
        (b"[" * 100_000, [], "pass"),
        (b'{"data": [{}]}', [], "pass"),
    ],
)
def test_an_engine_that_answers_to_any_name_says_itself_what_it_serves(
    tmp_path: Path, listed: bytes, names: list[str], outcome: str
) -> None:
    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(chat_engine("chat", tp=2), listed=listed) as url:
        replicas = [replace(REPLICA, base_url=url)]
        observed = run(replicas, tmp_path, path, load_s=0)
    assert observed.models == {"chat-0": names}
    found = {one.name: one for one in judge_host("gpu1", replicas, observed, SETTINGS)}
    assert found["model"].outcome == outcome


def test_a_host_of_amd_passes_too(tmp_path: Path) -> None:
    path = programs(tmp_path, **{"amd-smi": AMD_SMI, "systemctl": SYSTEMCTL})
    with engine(chat_engine("chat", tp=2)) as url:
        replicas = [replace(REPLICA, base_url=url)]
        observed = run(replicas, tmp_path, path, AMD)
    verdicts = judge_host("gpu1", replicas, observed, SETTINGS)
    assert {verdict.outcome for verdict in verdicts} == {"pass"}, verdicts
    assert observed.gpus[1].processes[0].pid == "4243"


def test_a_broken_replica_does_not_hide_the_good_one(tmp_path: Path) -> None:
    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(chat_engine("chat", tp=2)) as good, engine(send(500, "dead")) as bad:
        observed = run(
            [replace(REPLICA, base_url=good), replace(REPLICA, name="chat-1", base_url=bad)],
            tmp_path,
            path,
        )
    assert observed.completions["chat-0"].ok
    assert observed.completions["chat-1"].error == "HTTP 500: dead"
    assert list(observed.loads) == ["chat-0"]


def test_a_host_without_the_programs_says_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with engine(chat_engine("chat", tp=2)) as url:
        replicas = [replace(REPLICA, base_url=url)]
        observed = run(replicas, tmp_path, str(tmp_path / "bin"))
    failed = {
        verdict.name: verdict.evidence
        for verdict in judge_host("gpu1", replicas, observed, SETTINGS)
        if verdict.outcome == "fail"
    }
    assert list(failed) == ["gpus", "stability"]
    assert "No such file" in failed["gpus"]


def test_what_parsers_must_recognise_is_asked_for(tmp_path: Path) -> None:
    call = {"function": {"name": "get_weather", "arguments": "{}"}}

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, object]) -> None:
        if "tools" in body:
            message = {"content": None, "tool_calls": [call]}
        elif body["max_tokens"] == MAX_TOKENS:
            message = {"content": "<think>17 times 23"}
        else:
            return chat_engine("chat", tp=2)(handler, body)
        send(200, json.dumps({"choices": [{"message": message}]}))(handler, body)

    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(reply) as url:
        replicas = [replace(REPLICA, base_url=url, abilities=("tool_call", "reasoning"))]
        observed = run(replicas, tmp_path, path)
    outcomes = {
        check.name: check.outcome for check in judge_host("gpu1", replicas, observed, SETTINGS)
    }
    assert (outcomes.pop("tool_call"), outcomes.pop("reasoning")) == ("pass", "fail")
    assert set(outcomes.values()) == {"pass"}


def test_a_hung_engine_does_not_hang_the_host(tmp_path: Path) -> None:
    released = threading.Event()

    def hang(handler: BaseHTTPRequestHandler, body: dict[str, object]) -> None:
        while not released.is_set():
            time.sleep(0.05)

    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(hang) as url:
        try:
            # It comes back while the engine still hangs.
            observed = run([replace(REPLICA, base_url=url)], tmp_path, path, deadline_s=3)
        finally:
            released.set()
    assert observed.unfinished == "not done after 3 s"
    assert observed.before


def test_the_key_is_in_no_argument() -> None:
    program, deadline_s = host_program([replace(REPLICA, key="sk-secret")], SETTINGS, NVIDIA)
    assert "sk-secret" in program
    assert deadline_s > SETTINGS.load_s + 3 * SETTINGS.completion_timeout_s


def test_a_replica_of_another_task_is_asked_for_that(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, object]) -> None:
        asked.append((handler.path, body))
        answer = {"model": "chat", "data": [{"embedding": [0.5] * 64}], "usage": {}}
        send(200, json.dumps(answer))(handler, body)

    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    with engine(reply) as url:
        replicas = [replace(REPLICA, base_url=url, task="embed", embedding_size=64)]
        observed = run(replicas, tmp_path, path)
    outcomes = {one.name: one.outcome for one in judge_host("gpu1", replicas, observed, SETTINGS)}
    assert set(outcomes.values()) == {"pass"}
    assert {"embedding", "load"} <= outcomes.keys() and "stream" not in outcomes
    assert {path for path, _ in asked} == {"/v1/embeddings"}
    # The load has texts of the length of an answer.
    assert str(asked[-1][1]["input"]).split() == ["a"] * (SETTINGS.load_max_tokens // 2)


def test_each_adapter_is_asked_for_by_its_own_name(tmp_path: Path) -> None:
    path = programs(tmp_path, **{"nvidia-smi": NVIDIA_SMI, "systemctl": SYSTEMCTL})
    asked: list[object] = []

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, object]) -> None:
        asked.append(body["model"])
        chat_engine("chat", tp=2)(handler, body)

    listed = b'{"data": [{"id": "chat", "aliases": ["chat", "style"]}, {"id": "law"}]}'
    names = {"style": "chat:style", "law": "chat:law"}
    with engine(reply, listed=listed) as url:
        replicas = [replace(REPLICA, base_url=url, adapters=names)]
        observed = run(replicas, tmp_path, path, load_s=0)
    checks = judge_host("gpu1", replicas, observed, SETTINGS)
    found = {one.subject: one.outcome for one in checks if one.name == "adapter"}
    assert found == {"chat-0: style": "pass", "chat-0: law": "pass"}
    assert {"chat:style", "chat:law"} <= set(asked)
