"""What engines, files and other hosts say, and that nonsense is no evidence."""

import fcntl
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine.sglang.start import WATCH as SGLANG_WATCH
from roles.watchdog.on_host.agent import Board, Peer, peer_members, state_line
from roles.watchdog.on_host.breaker import Member
from roles.watchdog.on_host.exposition import METRICS, exposition, replica_rows
from roles.watchdog.on_host.files import (
    DAMAGED,
    MOST_BYTES,
    Replica,
    locked,
    read_json,
    read_replicas,
    write_whole,
)
from roles.watchdog.on_host.helper import port_of
from roles.watchdog.on_host.judge import first
from roles.watchdog.on_host.saved import Saved, boot_id
from roles.watchdog.on_host.scrape import kind_of, kind_of_proof, total
from roles.watchdog.on_host.units import Unit, parse_units

# As vLLM 0.33 and llama.cpp b11434 write them.
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {model}"} 3.0
vllm:num_requests_waiting{engine="0",model_name="a {model}"} 2.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 7.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 4.0
vllm:iteration_tokens_total_count{engine="1",model_name="m"} 5.0
"""
# As 0.5.23 prints it (observability/metrics_collector.py).
SGLANG = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 2.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 1.0
sglang:realtime_tokens_total{engine_type="unified",mode="prefill_compute",model_name="m"} 70.0
sglang:realtime_tokens_total{engine_type="unified",mode="decode",model_name="m"} 30.0
sglang:realtime_tokens_created{engine_type="unified",mode="decode",model_name="m"} 1.76e+09
"""
LLAMA = "llamacpp:n_decode_total 41\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n"


@pytest.mark.parametrize(
    ("text", "names", "value"),
    [
        (VLLM, ["vllm:iteration_tokens_total_count"], 9),
        (VLLM, ["vllm:num_requests_running", "vllm:num_requests_waiting"], 5),
        (SGLANG, SGLANG_WATCH.steps, 100),
        (SGLANG, SGLANG_WATCH.pending, 3),
        (LLAMA, ["llamacpp:n_decode_total"], 41),
        (LLAMA, ["llamacpp:requests_processing", "llamacpp:requests_deferred"], 1),
        ("", ["a"], None),
        ("ab 1", ["a"], None),
        ("a 1 1700000000000", ["a"], 1),
        ('a{x="} 7"} 2', ["a"], 2),
        ("a nan", ["a"], None),
        ("a +Inf", ["a"], None),
        ("a -1", ["a"], None),
        ("a", ["a"], None),
        ("a{", ["a"], None),
        ("a 1\na x", ["a"], None),
    ],
)
def test_a_page_of_metrics_is_summed_over_labels(text: str, names: list[str], value: float | None):
    assert total(text, names) == value


@given(st.text(), st.sampled_from(["a", "vllm:x"]))
def test_any_text_is_a_page_without_harm(text: str, name: str):
    found = total(f"{name}{text}", [name])
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("command", "port"),
    [
        ("/lib/llama-server\0--model\0b\0--port\x0041234\0--host\x00127.0.0.1\0", 41234),
        ("/bin/ollama\0serve\0", 0),
        ("x\0--port", 0),
        ("x\0--port\0", 0),
        ("x\0--port\0-5\0", 0),
        ("x\0--port\x0099999\0", 0),
        ("", 0),
    ],
)
def test_the_port_of_an_engines_own_process(command: str, port: int):
    assert port_of(command) == port


def answer(content: Any = "Hello", tokens: Any = 1) -> bytes:
    choice = {"message": {"content": content}}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (200, answer(), "good"),
        # One token may be the begin of a thought, which is no content.
        (200, answer(None), "good"),
        (200, answer("!!!!"), "good"),
        (200, answer("!!!!!!!!"), "wrong"),
        (200, answer(tokens=0), "wrong"),
        (200, answer(tokens="1"), "wrong"),
        (200, answer(["x"]), "wrong"),
        (200, b"", "wrong"),
        (200, b"{}", "wrong"),
        (200, b"[" * 100_000, "wrong"),
        (200, b'{"choices": [], "usage": {"completion_tokens": 1}}', "wrong"),
        (500, b"", "wrong"),
        (503, b"", "busy"),
        (429, b"", "busy"),
        (401, b"", "unfit"),
        (404, b"", "unfit"),
    ],
)
def test_what_an_answer_to_a_probe_says(status: int, text: bytes, kind: str):
    assert kind_of(status, text) == kind


@pytest.mark.parametrize(
    ("proof", "kind"),
    [
        ({"ok": True, "status": 200, "length": 64}, "good"),
        ({"ok": False, "status": None, "error": "timed out"}, "silent"),
        ({"ok": False, "status": 503, "error": "HTTP 503"}, "busy"),
        ({"ok": False, "status": 500, "error": "HTTP 500"}, "wrong"),
        ({"ok": False, "status": 401, "error": "HTTP 401"}, "unfit"),
    ],
)
def test_what_a_vector_or_an_order_says(proof: dict[str, Any], kind: str):
    assert kind_of_proof(proof) == kind


ENTRY = {"name": "q-0", "service": "q", "port": 8001, "model": "m", "engine": "kind", "gpus": [0]}
WATCH = {"path": "/metrics", "steps": ["s"], "pending": ["p"], "keyed": False}


def manifest(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "replicas": list(entries)}))
    return path


def test_an_entry_says_what_is_watched_or_its_engine_does(tmp_path: Path):
    own = ENTRY | {"name": "q-1", "watch": WATCH | {"steps": ["other"]}}
    other = ENTRY | {"name": "q-2", "engine": "unknown", "group": "g-0", "task": "embed"}
    found = read_replicas(manifest(tmp_path, ENTRY, own, other), {"kind": WATCH})
    watched = {name: one.watch and one.watch["steps"] for name, one in found.items()}
    assert watched == {"q-0": ["s"], "q-1": ["other"], "q-2": None}
    assert [one.group for one in found.values()] == ["", "", "g-0"]
    assert [one.task for one in found.values()] == ["generate", "generate", "embed"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"task": "sing"},
        {"task": ["embed"]},
        {"name": "a b"},
        {"name": 5},
        {"port": "8001"},
        {"port": 0},
        {"port": True},
        {"gpus": ["x"]},
        {"group": ["g"]},
        {"group": "g 0"},
        {"watch": {"path": "/metrics"}},
        {"watch": WATCH | {"path": "metrics"}},
        {"watch": WATCH | {"steps": [5]}},
        {"watch": 5},
    ],
)
def test_a_damaged_entry_is_no_replica(tmp_path: Path, wrong: dict[str, Any]):
    with pytest.raises(DAMAGED):
        read_replicas(manifest(tmp_path, ENTRY, ENTRY | wrong), {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"replicas": 5}', "[" * 99_999, "\0\xff"])
def test_a_cut_manifest_is_none(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DAMAGED):
        read_replicas(tmp_path / "manifest.json", {})


def test_a_huge_file_is_not_read(tmp_path: Path):
    (tmp_path / "huge").write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match="larger"):
        read_json(tmp_path / "huge")


def test_a_lock_counts_while_a_process_holds_it(tmp_path: Path):
    path = tmp_path / "lock"
    assert not locked(path)
    path.write_text("a run that crashed\n")
    assert not locked(path)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert locked(path)
    assert not locked(path)


def test_units_are_read_by_their_names():
    text = (
        "Id=llm-engine@q-0.service\nActiveState=active\nInvocationID=abc\n\n"
        "ActiveState=activating\nId=llm-engine@q-1.service\nInvocationID=\n"
    )
    found = parse_units(text, ["q-0", "q-1", "q-2"])
    assert found == {"q-0": Unit(True, "abc"), "q-1": Unit(False, ""), "q-2": Unit(False, "")}


def test_a_part_says_whom_it_waits_for():
    text = "Id=llm-engine@q-0.service\nActiveState=active\nInvocationID=abc\nStatusText="
    waits = {one: parse_units(text + one, ["q-0"])["q-0"].waits for one in ("waits for b", "x", "")}
    assert waits == {"waits for b": "waits for b", "x": "", "": ""}


def test_a_replica_over_several_hosts_is_watched_on_its_head(tmp_path: Path):
    head = ENTRY | {"group": "q-0.a", "rank": 0}
    part = ENTRY | {"name": "q-1", "group": "q-1.b", "rank": 1, "head": "10.0.0.2"}
    assert list(read_replicas(manifest(tmp_path, head, part), {"kind": WATCH})) == ["q-0"]


PEER = Peer("b", "10.0.0.2", {"q-0": "q", "q-1": "q"})


def test_hosts_understand_each_other():
    line = state_line(
        "b", [("q", Member("b", "q-0", "out", True, 12.34, "g"))], {"q-0": {"closed": True}}
    )
    assert peer_members(PEER, json.loads(line)) == [
        ("q", Member("b", "q-0", "out", True, 12.3, "g")),
        ("q", Member("b", "q-1", "unknown", False, 0)),
    ]


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "5", "null", '{"replicas": 5}', '{"replicas": [5]}', '{"replicas": [{}]}',
     '{"replicas": [{"name": "q-0", "state": "out"}]}',
     '{"replicas": [{"name": "q-0", "state": "out", "intends": 1, "since_s": "x"}]}',
     '{"replicas": [{"name": ["q-0"], "state": "out", "intends": 1, "since_s": 0}]}'],
)  # fmt: skip
def test_an_answer_of_a_host_that_is_none(text: str):
    with pytest.raises(DAMAGED):
        peer_members(PEER, json.loads(text))


def test_the_agent_port_answers_names_and_state():
    board = Board()
    board.words, board.state = {"q-0": "up 100%", "q-1": ""}, '{"host": "a"}'
    assert board.answer("q-0") == "up 100%\n"
    # Nothing leaves a balancer at what it knows.
    assert [board.answer(one) for one in ("q-1", "q-2", "")] == ["", "", ""]
    assert board.answer("state") == '{"host": "a"}\n'


def test_the_metrics_have_their_names_and_labels():
    replica = Replica("q-0", "q", 8001, 'm"', WATCH, [0])
    text = exposition(replica_rows(replica, first(5)._replace(steps=1e17), True, 7.5))
    assert 'llm_watchdog_replica_state{replica="q-0",service="q",state="starting"} 1' in text
    assert 'llm_watchdog_replica_in_rotation{replica="q-0",service="q"} 0' in text
    assert 'llm_watchdog_replica_proof_age_seconds{replica="q-0",service="q"} 2.5' in text
    # What is not known is not there.
    assert "llm_watchdog_replica_pending_requests{" not in text
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")] == [
        *METRICS
    ]


def test_the_docs_list_every_metric_with_its_unit_and_labels():
    page = (Path(__file__).parents[3] / "docs/healing.md").read_text()
    rows = re.findall(r"(?m)^\| `(llm_\w+)` \|([^|]*)\|([^|]*)\|", page)
    listed = [
        (name, unit.strip(), tuple(re.findall(r"`(\w+)`", labels))) for name, unit, labels in rows
    ]
    assert listed == [(name, unit, labels) for name, (_, unit, labels, _) in METRICS.items()]


def test_labels_are_escaped():
    rows = [("llm_watchdog_unreadable", {"what": 'a"b\\c\nd'}, 1)]
    assert 'llm_watchdog_unreadable{what="a\\"b\\\\c\\nd"} 1' in exposition(rows)


def test_what_outlives_the_watchdog(tmp_path: Path):
    saved = Saved(tmp_path / "state.json")
    saved.load()
    saved.states["q-0"] = ("out", "abc", True)
    saved.histories["q-0"] = [(5.0, "restart")]
    saved.reboots = [1.7e9]
    saved.write(saved.snapshot())
    again = Saved(tmp_path / "state.json")
    again.load()
    assert (again.states, again.histories, again.reboots) == (
        saved.states,
        saved.histories,
        saved.reboots,
    )
    # Another boot has another clock, and other processes; its reboots count on.
    text = (tmp_path / "state.json").read_text().replace(boot_id(), "another")
    write_whole(tmp_path / "state.json", text)
    other = Saved(tmp_path / "state.json")
    other.load()
    assert (other.states, other.histories, other.reboots) == ({}, {}, [1.7e9])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"reboots": 5}', '{"reboots": [], "boot": 1}'])
def test_counts_that_cannot_be_read_begin_anew(tmp_path: Path, text: str):
    (tmp_path / "state.json").write_text(text)
    saved = Saved(tmp_path / "state.json")
    saved.load()
    assert (saved.states, saved.histories) == ({}, {})
