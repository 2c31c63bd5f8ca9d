"""The endpoint, asked for real over TLS on loopback, and what its answers mean."""

import itertools
import ssl
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from roles.balancer import BalancerState, Drain, Member, Upstream
from roles.validation.balancer import (
    Endpoint,
    EndpointObservations,
    ask_endpoint,
    judge_endpoint,
    reasons_out,
    replica_of,
)
from roles.validation.observations import Completion
from roles.validation.settings import ValidationSettings
from tests.unit.launch.stand_in import Reply, chat_engine, engine, send
from tests.unit.validation.certificate import self_signed

SETTINGS = ValidationSettings(completion_timeout_s=5, balancer_rounds=3)
UPSTREAMS = ("10.0.0.1:8001", "10.0.0.2:8001")


def spreading(*replicas: str) -> Reply:
    """A balancer that hands requests to one replica after the other."""
    turns = itertools.cycle([chat_engine(replica=replica) for replica in replicas])

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        next(turns)(handler, body)

    return reply


def outcomes(url: str, pem: str | None, key: str = "k") -> dict[str, tuple[str, str]]:
    endpoint = Endpoint(url, "m", UPSTREAMS, "nginx")
    verdicts = judge_endpoint("lb1", endpoint, ask_endpoint(endpoint, key, pem, SETTINGS))
    return {verdict.name: (verdict.outcome, verdict.evidence) for verdict in verdicts}


def test_an_endpoint_as_planned_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    pem, context = self_signed(tmp_path)
    with engine(spreading(*UPSTREAMS), context) as url:
        found = outcomes(url, pem)
    assert {outcome for outcome, _ in found.values()} == {"pass"}
    assert list(found) == ["completion", "stream", "wrong key", "replicas"]
    assert found["replicas"][1] == "2 of 2 answered in 2 requests"


def test_an_endpoint_of_another_task_is_asked_for_that(tmp_path: Path) -> None:
    turns = itertools.cycle(UPSTREAMS)
    ranks = '[{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]'

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        right = handler.headers["Authorization"] == "Bearer k"
        status = 404 if handler.path != "/v1/rerank" else 200 if right else 401
        send(status, ranks, X_LLM_Replica=next(turns))(handler, body)

    pem, context = self_signed(tmp_path)
    with engine(reply, context) as url:
        endpoint = Endpoint(url, "m", UPSTREAMS, "nginx", task="rerank")
        checks = judge_endpoint("lb1", endpoint, ask_endpoint(endpoint, "k", pem, SETTINGS))
    assert [one.name for one in checks] == ["ranking", "wrong key", "replicas"]
    assert {one.outcome for one in checks} == {"pass"}


def test_a_replica_that_never_answers_is_named(tmp_path: Path) -> None:
    pem, context = self_signed(tmp_path)
    with engine(spreading(UPSTREAMS[0]), context) as url:
        found = outcomes(url, pem)
    assert found["replicas"] == (
        "warn",
        "1 of 2 answered in 6 requests; not seen: 10.0.0.2:8001",
    )


@pytest.mark.parametrize("presented", ["127.0.0.2", "127.0.0.1"])
def test_only_the_pinned_certificate_is_trusted(tmp_path: Path, presented: str) -> None:
    pem, _ = self_signed(tmp_path)
    _, context = self_signed(tmp_path, presented)
    with engine(chat_engine(), context) as url:
        found = outcomes(url, pem)
    assert found["completion"][0] == "fail"
    assert "CERTIFICATE_VERIFY_FAILED" in found["completion"][1]


def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    pem, context = self_signed(tmp_path, "127.0.0.2")
    with engine(chat_engine(), context) as url:
        assert "IP address mismatch" in outcomes(url, pem)["completion"][1]


def test_without_a_pinned_certificate_the_systems_are_trusted(tmp_path: Path) -> None:
    _, context = self_signed(tmp_path)
    with engine(chat_engine(), context) as url:
        assert "CERTIFICATE_VERIFY_FAILED" in outcomes(url, None)["completion"][1]


def test_what_is_no_certificate_is_an_ssl_error() -> None:
    endpoint = Endpoint("https://127.0.0.1:9", "m", UPSTREAMS, "nginx")
    with pytest.raises(ssl.SSLError):
        ask_endpoint(endpoint, "k", "nonsense", SETTINGS)


GOOD = Completion(ok=True, status=200, seconds=0.1, tokens=1, replica=UPSTREAMS[0])
SEEN = EndpointObservations(
    GOOD,
    Completion(ok=True, status=200, chunks=3),
    Completion(False, "HTTP 401", status=401),
    (GOOD,),
)


@pytest.mark.parametrize(
    ("changes", "check", "outcome", "part"),
    [
        ({"wrong_key": GOOD}, "wrong key", "fail", "a wrong key was served"),
        ({"wrong_key": Completion(False, "HTTP 502", 502)}, "wrong key", "fail", "HTTP 502"),
        ({"spread": (GOOD, Completion(False, "HTTP 502"))}, "replicas", "fail", "1 of 2 requests"),
        ({"spread": (replace(GOOD, replica=None),)}, "replicas", "warn", "does not say"),
        ({"stream": Completion(False, "0 chunks")}, "stream", "fail", "0 chunks"),
    ],
)
def test_a_departure_is_named(changes: dict[str, Any], check: str, outcome: str, part: str) -> None:
    verdicts = judge_endpoint(
        "lb1", Endpoint("u", "m", UPSTREAMS, "nginx"), replace(SEEN, **changes)
    )
    (verdict,) = [verdict for verdict in verdicts if verdict.name == check]
    assert verdict.outcome == outcome
    assert part in verdict.evidence


@pytest.mark.parametrize(
    ("header", "replica"),
    [
        (None, None),
        ("", None),
        ("10.0.0.1:8001", "10.0.0.1:8001"),
        ("10.0.0.1:8001, 10.0.0.2:8001", "10.0.0.2:8001"),
        ("[fd00::1]:8001", "[fd00::1]:8001"),
    ],
)
def test_the_last_upstream_tried_is_the_one_that_answered(
    header: str | None, replica: str | None
) -> None:
    assert replica_of(header) == replica


def test_an_upstream_that_gets_no_requests_says_why():
    answers = (Completion(True, status=200, replica=UPSTREAMS[0]),)
    drained, left = "10.0.0.2:8001", "10.0.0.3:8001"
    members = (
        Member("gpu1/m-0", "gpu1", "10.0.0.1", 8001),
        Member("gpu2/m-0", "gpu2", "10.0.0.2", 8001),
    )
    state = BalancerState(
        (Upstream("m", "llm-m", members),), (Drain("gpu2/m-0", "operator", "r", "t"),)
    )
    why = reasons_out(state, [drained, left])
    endpoint = Endpoint("https://lb1", "m", (*UPSTREAMS, left), "nginx")
    seen = EndpointObservations(answers[0], answers[0], Completion(False, status=401), answers)
    check = {one.name: one for one in judge_endpoint("lb1", endpoint, seen, why)}["replicas"]
    assert check.outcome == "warn"
    assert f"{drained} (drained), {left} (not in the upstream)" in check.evidence
    assert "deploys/status.py" in check.remedy
