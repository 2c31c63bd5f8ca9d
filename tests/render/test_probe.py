"""The probe's completions against a stand-in engine on loopback."""

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from roles.host.probe import chat, chat_stream, embed, in_parallel, message, rerank
from tests.unit.launch.stand_in import GOOD, Reply, engine, send


def test_a_completion_names_model_tokens_and_replica() -> None:
    with engine(send(200, json.dumps(GOOD), X_LLM_Replica="10.0.0.1:8001")) as url:
        answer = chat(url, "k", "m", timeout_s=60)
    assert answer.pop("seconds") >= 0
    assert answer == {
        "ok": True,
        "status": 200,
        "tokens": 1,
        "model": "m",
        "fingerprint": "f",
        "replica": "10.0.0.1:8001",
    }


def test_the_key_the_prompt_and_the_limit_are_sent() -> None:
    seen: list[Any] = []

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seen.extend([handler.path, handler.headers["Authorization"], body])
        send(200, json.dumps(GOOD))(handler, body)

    with engine(reply) as url:
        chat(url, "k", "m", timeout_s=60, max_tokens=7, prompt="Hi")
    assert seen[:2] == ["/v1/chat/completions", "Bearer k"]
    assert seen[2]["messages"] == [{"role": "user", "content": "Hi"}]
    assert seen[2]["max_tokens"] == 7


@pytest.mark.parametrize(
    ("reply", "status", "part"),
    [
        (send(401, "no key"), 401, "HTTP 401: no key"),
        (send(500), 500, "HTTP 500"),
        (send(302, Location="http://127.0.0.1:9/"), 302, "HTTP 302"),
        (send(200, "not json"), None, "Expecting value"),
        (send(200, "[]"), None, "not a chat completion"),
        (send(200, "{}"), None, "not a chat completion"),
        (send(200, "{}", Content_Length="99"), None, "IncompleteRead"),
        (send(200, json.dumps({"usage": {"completion_tokens": 0}})), 200, "no token"),
    ],
)
def test_a_failed_completion_says_why(reply: Reply, status: int | None, part: str) -> None:
    with engine(reply) as url:
        answer = chat(url, "k", "m", timeout_s=60)
    assert not answer["ok"]
    assert answer["status"] == status
    assert part in answer["error"]


def test_a_closed_port_is_a_failure() -> None:
    with engine(send(200)) as url:
        pass
    assert "refused" in chat(url, "k", "m", timeout_s=60)["error"]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with engine(send(200, json.dumps(GOOD))) as url:
        assert chat(url, "k", "m", timeout_s=60)["ok"]


@pytest.mark.parametrize(
    ("parts", "ok", "part"),
    [
        (["data: {}\n\n", "data: {}\n\n", "data: [DONE]\n\n"], True, ""),
        (["data: {}\n\n", "data: {}\n\n"], False, "2 chunks, [DONE] False"),
        (["data: {}\n\n", "data: [DONE]\n\n"], False, "1 chunks, [DONE] True"),
        (['data: {}\n\ndata: {"error": "engine dead"}\n\n'], False, "in the stream: engine dead"),
        (["data: nothing\n\n", "data: []\n\n", "data: [DONE]\n\n"], True, ""),
    ],
)
def test_a_stream_must_come_in_chunks_and_end(parts: list[str], ok: bool, part: str) -> None:
    with engine(send(200, *parts)) as url:
        answer = chat_stream(url, "k", "m", timeout_s=60)
    assert answer["ok"] is ok
    assert part in answer.get("error", "")


def test_a_stream_that_trickles_ends_in_time() -> None:
    def trickle(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        send(200)(handler, body)
        for _ in range(80):
            time.sleep(0.05)
            try:
                handler.wfile.write(b"data: {}\n\n")
            except OSError:
                return

    with engine(trickle) as url:
        answer = chat_stream(url, "k", "m", timeout_s=1)
    assert answer == {"ok": False, "status": None, "error": "timed out"}


def test_results_keep_the_order_of_items() -> None:
    assert in_parallel(lambda number: number * 2, range(5)) == [0, 2, 4, 6, 8]
    assert in_parallel(str, []) == []


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (send(400, "no parser"), "HTTP 400: no parser"),
        (send(200, "[]"), "not a chat completion"),
        (send(200, '{"choices": []}'), "not a chat completion"),
        (send(200, '{"choices": [{"message": "x"}]}'), "not a chat completion"),
        (send(200, "7"), "not a chat completion"),
        (send(200, "{"), "Expecting"),
    ],
)
def test_a_message_that_is_none_says_why(reply: Reply, part: str) -> None:
    with engine(reply) as url:
        answer = message(url, "k", {"model": "m", "messages": [], "max_tokens": 1}, timeout_s=60)
    assert not answer["ok"] and part in answer["error"]


def test_a_message_is_returned_whole() -> None:
    found = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    with engine(send(200, json.dumps({"choices": [{"message": found}]}))) as url:
        answer = message(url, "k", {"model": "m", "messages": [], "max_tokens": 1}, timeout_s=60)
    assert answer == {"ok": True, "status": 200, "message": found}


VLLM_RANKS = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
SGLANG_RANKS = [{"index": 0, "score": 0.1, "document": "x"}, {"index": 1, "score": 0.9}]


@pytest.mark.parametrize(
    ("ask", "answer", "found"),
    [
        (
            embed,
            {"model": "m", "data": [{"embedding": [0.5, -1]}], "usage": {"prompt_tokens": 3}},
            {"length": 2, "tokens": 3, "model": "m"},
        ),
        (embed, {"data": [{"embedding": [0]}]}, {"length": 1, "tokens": 0, "model": "asked"}),
        (
            rerank,
            {"model": "m", "results": VLLM_RANKS, "usage": {"total_tokens": 9}},
            {"order": [1, 0], "tokens": 9, "model": "m"},
        ),
        (rerank, SGLANG_RANKS, {"order": [1, 0], "model": "asked"}),
    ],
)
def test_what_stands_for_a_completion(ask: Any, answer: object, found: dict[str, object]) -> None:
    with engine(send(200, json.dumps(answer), X_LLM_Replica="10.0.0.1:8001")) as url:
        result = ask(url, "k", "asked", timeout_s=60)
    assert {name: result[name] for name in found} == found
    assert (result["ok"], result["replica"]) == (True, "10.0.0.1:8001")


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (embed, "not json"),
        (embed, "[]"),
        (embed, '{"data": []}'),
        (embed, '{"data": [{"embedding": []}]}'),
        (embed, '{"data": [{"embedding": "AAAA"}]}'),
        (embed, '{"data": [{"embedding": [NaN]}]}'),
        (embed, '{"data": [{"embedding": [1]}], "usage": {"prompt_tokens": "x"}}'),
        (embed, '{"data": [{"embedding": [1]}], "usage": 5}'),
        (rerank, '{"results": []}'),
        (rerank, '[{"index": 0, "score": 1}]'),
        (rerank, '[{"index": 0, "score": 1}, {"index": 1, "score": null}]'),
        (rerank, '[{"index": 0, "score": 1}, {"index": "1", "score": 1}]'),
        (rerank, '[{"index": [], "score": 1}]'),
        (rerank, "5"),
    ],
)
def test_a_wrong_answer_stands_for_none(ask: Any, answer: str) -> None:
    with engine(send(200, answer)) as url:
        result = ask(url, "k", "m", timeout_s=60)
    assert not result["ok"] and result["error"]
