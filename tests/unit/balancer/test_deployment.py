"""What a deploy writes and removes, by what it finds and by what the members answer."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from roles.balancer import BalancerState, Route, balancer_of
from roles.balancer.completions import ServiceResults
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.found import FoundBalancer
from roles.balancer.nginx import paths
from roles.balancer.state import STATE

from .fleets import members, route, settings, state

CHAT = route()
CODE = route("code", *members("code", gpu1=[9000]))


def deployment(
    folder: Path,
    *routes: Route,
    old: BalancerState | None = None,
    files: Iterable[str] = (),
    failed: Iterable[str] = (),
    keeps_key: Iterable[str] = (),
) -> BalancerDeployment:
    given = settings(folder)
    answers = {
        one.service: ServiceResults(
            one.service,
            frozenset(m.id for m in one.members),
            {m.id: "HTTP 401" for m in one.members if m.id in set(failed)},
            one.service in set(keeps_key),
        )
        for one in routes
    }
    standing = FoundBalancer(files=dict.fromkeys(files, "644 root root x"))
    return BalancerDeployment(balancer_of(given), given, routes, "run", standing, old, answers)


def written(found: BalancerDeployment) -> set[str]:
    return {file.path for file in found.files}


def all_of(*routes: Route) -> list[str]:
    return [m.id for one in routes for m in one.members]


KEYS = {service: paths.engine_key(service) for service in ("chat", "code")}


def test_a_fresh_balancer(tmp_path: Path):
    found = deployment(tmp_path, CHAT, CODE)
    assert written(found) == {
        paths.UPSTREAMS,
        STATE,
        *KEYS.values(),
        paths.client_keys("chat"),
        paths.client_keys("code"),
        paths.SITE,
    }
    assert [file.mode for file in found.files if "/keys/" in file.path] == ["600"] * 4
    assert found.files[0].path == paths.UPSTREAMS and found.files[-1].path == paths.SITE
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("old", "files", "failed", "nothing"),
    [
        (state(CHAT), [paths.SITE], all_of(CHAT), True),
        # Of an earlier version that was not taken over.
        (None, [paths.SITE], all_of(CHAT), True),
        (None, [], all_of(CHAT), False),
        (state(CODE), [paths.SITE], all_of(CHAT), False),
        (state(CHAT), [paths.SITE], all_of(CHAT)[1:], False),
    ],
)
def test_everything_stays_where_no_member_answers(
    tmp_path: Path, old: BalancerState | None, files: list[str], failed: list[str], nothing: bool
):
    found = deployment(tmp_path, CHAT, old=old, files=files, failed=failed)
    assert found.nothing_answers is nothing


def test_one_service_stays_while_the_other_moves_on(tmp_path: Path):
    old = state(replace(CHAT, members=members(gpu1=[7000])), CODE)
    found = deployment(tmp_path, CHAT, CODE, old=old, files=KEYS.values(), failed=all_of(CHAT))
    assert found.unanswered == {"chat"} and not found.nothing_answers
    assert KEYS["chat"] not in written(found) and KEYS["code"] in written(found)
    assert KEYS["chat"] not in found.unused_files
    assert found.wanted.upstreams[0].members == members(gpu1=[7000])


def test_a_key_stays_while_engines_expect_it(tmp_path: Path):
    found = deployment(tmp_path, CHAT, CODE, files=KEYS.values(), keeps_key=["code"])
    assert KEYS["code"] not in {*written(found), *found.unused_files}
    assert KEYS["chat"] in written(found)
    assert len(found.warnings) == 1
    # There is nothing to keep where the balancer has none.
    assert KEYS["code"] in written(deployment(tmp_path, CHAT, CODE, keeps_key=["code"]))


def test_what_is_no_longer_used_goes(tmp_path: Path):
    there = [KEYS["code"], paths.OLD_KEYS, paths.CERTIFICATE, paths.SELF_SIGNED, paths.SITE]
    found = deployment(tmp_path, CHAT, files=there)
    assert found.unused_files == sorted([KEYS["code"], paths.OLD_KEYS, paths.CERTIFICATE])


def test_who_vanished_is_named(tmp_path: Path):
    found = deployment(tmp_path, CHAT, old=state(CHAT, CODE))
    (message,) = found.warnings
    assert message.startswith("gpu1/code-0 was in the upstream and is in no plan any more")
    assert "its host may still run it" in message
    found.taken_down = lambda: {"gpu1/code-0"}
    (message,) = found.warnings
    assert "may still run" not in message


def test_members_that_gave_no_completion_are_one_line_an_upstream(tmp_path: Path):
    found = deployment(tmp_path, CHAT, failed=all_of(CHAT))
    assert [message.count("gpu") for message in found.warnings] == [len(all_of(CHAT))]
    assert [message.count("gpu") for message in found.last_resort_warnings] == [len(all_of(CHAT))]


def test_drained_members_are_not_asked(tmp_path: Path):
    drained = replace(CHAT, drained=frozenset(["gpu1/chat-0"]))
    question = deployment(tmp_path, drained).probe_program
    assert "gpu2/chat-0" in question and "gpu1/chat-0" not in question


@pytest.mark.parametrize(
    ("others", "failed", "keeps_key", "stays"),
    [
        (["haproxy"], [], [], False),
        (["haproxy"], all_of(CHAT)[1:], [], False),
        # The other one's file has the key that the engines take, and this one's has not.
        (["haproxy"], [], ["code"], True),
        (["haproxy"], all_of(CHAT), [], True),
        ([], all_of(CHAT), ["code"], False),
    ],
)
def test_a_program_takes_no_place_while_a_service_does_not_answer_as_planned(
    tmp_path: Path, others: list[str], failed: list[str], keeps_key: list[str], stays: bool
):
    given = {"failed": failed, "keeps_key": keeps_key}
    found = deployment(tmp_path, CHAT, CODE, old=state(CHAT, CODE), **given)
    found.found = replace(found.found, others=tuple(others))
    assert (found.replacement_problem is not None) is stays
    # The key that the engines take may be in the other one's files.
    assert ("/etc/haproxy/llm/keys/chat.engine" in found.probe_program) is bool(others)
