"""Whatever a host answers: a value, or an error that fails this host alone; and so what follows."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from roles.balancer import state as states
from roles.balancer.facts import BalancerFacts, Completions
from roles.balancer.nginx.takeover import take_over
from roles.driver.facts import AvailablePackages, DriverReport, FetchedKey, Refusal
from roles.engine import VllmSettings
from roles.engine.facts import InstalledEngines
from roles.hardware import bus_difference, difference, findings, summary
from roles.hardware.facts import HostReport
from roles.host.facts import Answers, FileStates
from roles.interconnect.verdicts import parse_answer
from roles.launch.facts import LaunchFacts, NotServing
from roles.launch.state import previous_gpus, previous_ports, read_manifest
from roles.preflight.answers import parse_preflight
from roles.preflight.checks import checks
from roles.reboot.operations import CurrentBoot
from roles.tuning.facts import TuningState
from roles.validation.facts import Observations
from roles.validation.settings import ValidationSettings
from roles.validation.verdicts import judge_host
from roles.watchdog.facts import WatchdogFacts, WatchdogStatus
from tests.unit.hardware.hosts import output as hardware_output
from tests.unit.hardware.hosts import query
from tests.unit.preflight.hosts import needs
from tests.unit.preflight.hosts import output as preflight_output
from tests.unit.validation.samples import REPLICA

ODD = st.sampled_from(
    [None, True, -1, 2**53, 10**400, 1e999, float("nan"), "", "7" * 5000, "\0", "\ud800", "\x1b[2J"]
)
JSON = st.recursive(
    ODD | st.integers() | st.floats() | st.text(max_size=9) | st.just([[[[]]]]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def broken(whole: Any) -> st.SearchStrategy[Any]:
    """A good answer with any JSON in the place of one of its values, or without it."""
    places = list(paths(whole))

    def put(choice: tuple[tuple[Any, ...], Any, bool]) -> Any:
        path, value, left_out = choice
        copy = json.loads(json.dumps(whole))
        if not path:
            return value
        at = copy
        for key in path[:-1]:
            at = at[key]
        if left_out:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        return copy

    return st.tuples(st.sampled_from(places), JSON, st.booleans()).map(put)


def paths(value: Any, above: tuple[Any, ...] = ()) -> Any:
    yield above
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in inner:
        yield from paths(one, (*above, key))


COMPLETION = {
    "ok": True,
    "status": 200,
    "seconds": 0.1,
    "tokens": 1,
    "model": "m",
    "fingerprint": "v-tp1-a",
}
OBSERVED = {
    "vendor": "nvidia",
    "gpus": {
        "gpus": {"ok": True, "text": "0, GPU-a, 21000, 0\n"},
        "processes": {"ok": True, "text": ""},
    },
    "cgroups": {"10": "0::/a"},
    "samples": ["0, 90\n"],
    "completions": {REPLICA.name: COMPLETION},
    "streams": {REPLICA.name: {"ok": True, "status": 200, "chunks": 2}},
    "loads": {
        REPLICA.name: {"completed": 1, "failed": 0, "tokens": 9, "seconds": 1.0, "error": ""}
    },
    "units_before": {REPLICA.unit: "MainPID=1\nActiveState=active"},
    "units_after": {REPLICA.unit: "MainPID=1\nActiveState=active"},
    "unfinished": "",
}
COMPLETIONS = [
    {
        "service": "chat",
        "keeps_key": False,
        "results": {"g/c-0": {"ok": False, "status": None, "error": "x"}},
    }
]
MANIFEST = {
    "schema": 1,
    "replicas": [{"name": "a-0", "port": 8001, "digest": "ab", "gpus": [0], "service": "a"}],
}
MEASURED = {
    "gpus": [0, 1],
    "p2p": True,
    "outcome": "works",
    "gb_s": 1.5,
    "log": "x",
    "library": "nccl 2",
    "detail": "d",
}
STATE = json.loads(
    states.dump_state(
        states.BalancerState(
            (states.Upstream("a", "llm_a", ()),), (states.Drain("g/a-0", "operator", "r", "s"),)
        )
    )
)


@given(broken(OBSERVED))
def test_validation_judges_any_observations(answer: Any):
    with suppress(FactProcessError):
        seen = Observations().process([json.dumps(answer)])
        assert seen and all(
            check.evidence is not None
            for check in judge_host("gpu1", [REPLICA], seen, ValidationSettings())
        )


@given(broken(COMPLETIONS))
def test_balancers_hear_any_completions(answer: Any):
    with suppress(FactProcessError):
        for one in Completions().process([json.dumps(answer)]):
            assert all(reason.isprintable() for reason in one.failed.values())


@given(broken(MANIFEST))
def test_any_manifest_is_gone_by_or_refused(answer: Any):
    with suppress(ValueError):
        state = LaunchFacts.default()
        entries = read_manifest(json.dumps(answer))
        state = type(state)(manifest=entries)
        assert all(0 < port < 65536 for port in previous_ports(state))
        assert all(gpu >= 0 for gpu in previous_gpus(state))


@given(broken(STATE) | st.just([[]]))
def test_any_state_of_a_balancer_is_read_or_refused(answer: Any):
    for text in (json.dumps(answer), "[" * 99_999):
        with suppress(ValueError):
            states.parse_state(text)


@given(broken(MEASURED), broken({"done": True}))
def test_any_measuring_is_a_verdict_or_a_problem(one: Any, other: Any):
    deep = ["[" * 99_999, f'{{"gpus": {"[" * 300}{"]" * 300}}}']
    lines = [f"@@ {text}" for text in (json.dumps(one), json.dumps(other), *deep)]
    found = parse_answer(lines, VllmSettings(), None, [(0, 1)])
    assert found.problems and all(text.isprintable() for text in found.problems)


FACTS: dict[str, Callable[[list[str]], object]] = {
    fact.__name__: fact().process
    for fact in (
        *(
            Observations,
            Completions,
            LaunchFacts,
            NotServing,
            BalancerFacts,
            DriverReport,
            FileStates,
        ),
        *(
            AvailablePackages,
            FetchedKey,
            Refusal,
            InstalledEngines,
            HostReport,
            Answers,
            CurrentBoot,
        ),
        *(TuningState, WatchdogFacts, WatchdogStatus),
    )
}
LINES = st.sampled_from(
    [
        *(
            "@@@ hardware",
            "@@@ driver",
            "@@@ launch",
            "@@@ engines",
            "@@ state",
            "@@ service",
            "@@ end",
        ),
        *(
            "key x",
            "failed \x1b[2J",
            "a | " + "7" * 5000 + " | b",
            "error \x1b[2J",
            "boot \x00",
            "[" * 9999,
        ),
    ]
)


@pytest.mark.parametrize("name", FACTS)
@given(st.lists(LINES | st.text(st.characters(), max_size=20), min_size=1, max_size=8))
def test_any_lines_are_a_fact_or_fail_their_host(name: str, lines: list[str]):
    try:
        FACTS[name](lines)
    except FactProcessError as error:
        assert str(error).isprintable() and error.__cause__ is None


@given(st.data())
def test_any_answers_about_a_host_are_judged(data: st.DataObject):
    odd = st.sampled_from(
        ["7" * 5000, "-1", "\0", "\x1b[2J", "", "inf", "nan", "99999999999999999", "\ud800"]
    )

    def spoilt(lines: list[str]) -> list[str]:
        at = data.draw(st.integers(0, len(lines) - 1))
        words = lines[at].split(" ") or [""]
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(odd)
        return [*lines[:at], " ".join(words), *lines[at + 1 :]]

    try:
        seen = HostReport().process(spoilt(hardware_output(query=query())))
        read = parse_preflight(Answers().process(spoilt(preflight_output())))
    except (FactProcessError, ValueError):
        return
    assert checks(read, seen, needs(), 0.0)
    declared = needs().expected
    assert declared and all(
        isinstance(one(declared, seen), str | None) for one in (bus_difference, difference)
    )
    if seen.hardware:
        assert summary(seen.hardware.gpus) and isinstance(
            list(findings(declared, seen.hardware)), list
        )


@pytest.mark.parametrize(
    "line",
    ["upstream a {\n", "upstream a {\nserver 1.1.1.1:1; # a/" + "a/" * 9 + ":x\n", " \n", "{\n"],
)
def test_an_old_site_is_read_in_time(line: str):
    with suppress(ValueError):
        take_over(line * (200_000 // len(line)), "run", "now")
