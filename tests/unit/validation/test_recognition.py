"""What is recognised in an answer, and the verdict on it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.engine import DEPLOYMENTS, Served
from roles.validation.observations import Recognition, parse_observations
from roles.validation.recognition import reasoning, tool_call
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import judge_host, judge_recognition
from tests.unit.validation.samples import REPLICA, seen


def called(name: str, arguments: object = '{"city": "Paris"}') -> dict:
    return {"content": None, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("read", "message", "found", "outcome"),
    [
        (tool_call, called("get_weather"), 'calls get_weather({"city": "Paris"})', "pass"),
        (tool_call, called("get_weather", 7), "calls get_weather()", "pass"),
        (tool_call, called("rm"), "", "warn"),
        (tool_call, {"content": "It is sunny."}, "", "warn"),
        (tool_call, {"content": '<tool_call>{"name": "get_weather"}'}, "", "fail"),
        (tool_call, {"tool_calls": "get_weather"}, "", "warn"),
        (tool_call, {"content": "I have no access to get_weather here."}, "", "warn"),
        (tool_call, {"content": 'get_weather(city="Paris")'}, "", "fail"),
        (reasoning, {"reasoning_content": "17 * 23", "content": "400"}, "7 characters", "pass"),
        (reasoning, {"reasoning": "17 * 23"}, "7 characters", "pass"),
        (reasoning, {"content": "400"}, "", "warn"),
        (reasoning, {"content": "<think>17 * 23"}, "", "fail"),
        (reasoning, {"content": "17 * 23</think>400", "reasoning": " "}, "", "fail"),
    ],
)
def test_what_is_recognised(read, message: dict, found: str, outcome: str):
    answer = read(message)
    assert answer["found"].startswith(found)
    check = judge_recognition(read.__name__, "chat-0", Recognition(ok=True, **answer))
    assert (check.name, check.subject, check.outcome) == (read.__name__, "chat-0", outcome)


@pytest.mark.parametrize(
    ("recognised", "outcomes"),
    [
        ({}, [("tool_call", "fail")]),
        ({"chat-0": {"tool_call": Recognition(ok=True, found="calls")}}, [("tool_call", "pass")]),
        ({"chat-0": {"made up": Recognition(ok=True, found="x")}}, [("tool_call", "fail")]),
    ],
)
def test_what_must_be_recognised_is_what_is_judged(recognised: dict, outcomes: list):
    replica = replace(REPLICA, abilities=("tool_call",))
    checks = judge_host("gpu1", [replica], seen(recognised=recognised), ValidationSettings())
    judged = [(one.name, one.outcome) for one in checks]
    assert [one for one in judged if one[0] in ("tool_call", "made up")] == outcomes


def test_an_engine_without_the_parser_fails():
    refused = Recognition(ok=False, error='HTTP 400: "auto" tool choice requires …', status=400)
    check = judge_recognition("tool_call", "chat-0", refused)
    assert check.outcome == "fail"
    assert "HTTP 400" in check.evidence and "tool-call-parser" in check.remedy


@given(
    st.dictionaries(
        st.sampled_from(["content", "tool_calls", "reasoning", "reasoning_content"]),
        st.recursive(
            st.none() | st.text() | st.integers(), lambda inner: st.lists(inner, max_size=2)
        ),
    )
)
def test_any_message_is_read(message: dict):
    for ability, read in (("tool_call", tool_call), ("reasoning", reasoning)):
        text = json.dumps({"recognised": {"chat-0": {ability: {"ok": True, **read(message)}}}})
        assert parse_observations(text).recognised["chat-0"][ability].ok


@pytest.mark.parametrize(
    ("kind", "arguments", "abilities"),
    [
        ("vllm", {}, ()),
        (
            "vllm",
            {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"},
            ("tool_call",),
        ),
        # Without automatic choice it refuses to be asked so.
        ("vllm", {"tool-call-parser": "hermes", "reasoning-parser": "qwen3"}, ("reasoning",)),
        ("vllm", {"reasoning-parser": "none"}, ()),
        ("llama_cpp", {"jinja": True}, ()),
    ],
)
def test_abilities_are_those_of_the_parsers(kind: str, arguments: dict, abilities: tuple):
    served = Served("m", "/weights", arguments=arguments)
    assert DEPLOYMENTS[kind].abilities(served) == abilities
