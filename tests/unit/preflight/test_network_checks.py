"""Checks of what a host loads from: archives, indexes, hubs, repositories."""

from dataclasses import replace
from typing import Any

import pytest

from roles.preflight.checks import checks
from tests.unit.preflight.hosts import (
    GIB,
    HUB,
    WEIGHTS,
    all_checks,
    answers,
    assert_only,
    disk,
    disks,
    needs,
    not_passed,
    report,
    two_builds,
)

Parts = dict[str, Any]


INDEX = "https://pypi.org/simple/uv/"
CONFIG = "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json"
NETWORK = [
    (
        {"reach_index": "curl 6 000\ncurl: (6) Could not resolve host: pypi.org"},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "/etc/resolv.conf"),
    ),
    (
        {"reach_index": "python 7 000\n[Errno 111] Connection refused"},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "111]", "https_proxy"),
    ),
    (
        {"reach_index": "curl 28 000"},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "https_proxy"),
    ),
    (
        {"reach_index": "curl 0 404"},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "404", "index_url"),
    ),
    (
        {"reach_index": "curl 60 000\ncurl: (60) self-signed certificate in certificate chain"},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "/usr/local/share/ca-certificates"),
    ),
    (
        {"hung_reach_index": ""},
        "reach-index",
        "fail",
        ("https://pypi.org/simple/uv/", "https_proxy"),
    ),
    (
        {"reach_hub_1": "curl 0 401"},
        "reach-hub-1",
        "fail",
        (
            "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json",
            "401",
            "hub_token_file",
        ),
    ),
    (
        {"reach_hub_1": "curl 28 000", "hub": f"folder {HUB}\nfile {15 * GIB} -"},
        "reach-hub-1",
        "warn",
        ("https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/resolve/main/config.json", "https_proxy"),
    ),
    (
        {"reach_distribution_1": "curl 7 000", "missing_packages": "gcc\nnftables"},
        "reach-distribution",
        "fail",
        ("http://deb.debian.org/debian/dists/bookworm/", "https_proxy"),
    ),
    (
        {"reach_distribution_1": "curl 0 404"},
        "reach-distribution",
        "warn",
        ("http://deb.debian.org/debian/dists/bookworm/", "404", "/etc/apt/sources.list.d"),
    ),
    (
        {"proxies": "https_proxy=***@10.0.0.1:3128"},
        "proxies",
        "warn",
        ("https_proxy=***@10.0.0.1:3128", "/etc/sudoers.d"),
    ),
]

PIP = [
    (
        {"pip_index": "https://pip.local/simple"},
        "pip-index",
        "warn",
        ("https://pip.local/simple", "index_url"),
    ),
]


@pytest.mark.parametrize(("parts", "name", "outcome", "mentions"), [*NETWORK, *PIP])
def test_network(parts: Parts, name: str, outcome: str, mentions: tuple[str, ...]):
    assert_only(not_passed(**parts), name, outcome, mentions)


def test_an_engine_that_is_installed_needs_no_index_and_no_room():
    full: Any = disks(
        _opt_llm_engines=disk("/opt/llm/engines", "/opt", 1), _tmp=disk("/tmp", "/t", 1)
    )
    parts: Parts = {
        "engine": "installed",
        "reach_index": "curl 6 000",
        "reach_index_files": "curl 6 000",
    }
    assert not_passed(disks=full, **parts) == {}


@pytest.mark.parametrize(
    ("wheels", "text"),
    [
        ("", "/srv/old is not on the host"),
        ("folder /srv/old\nwheels 0", "/srv/old holds no wheel"),
        ("folder /srv/old\nwheels 3", None),
    ],
)
def test_each_builds_folder_of_wheels_is_looked_into(wheels: str, text: str | None):
    wanted, own = two_builds(wheelhouse="/srv/old"), "folder /srv/wheels\nwheels 5\n"
    found = not_passed(wanted=wanted, wheelhouse=own + wheels)
    assert found.get("reach-wheelhouse:/srv/old", ("", None))[1] == text
    installed = all_checks(wanted=wanted, engine="installed")
    assert installed["reach-wheelhouse:/srv/old"].outcome == "skipped"


def test_sources_on_the_host_and_by_url_have_names_of_their_own():
    wanted = two_builds(wheelhouse="https://w.local/")
    assert wanted.engine
    archives = ("http://c.local/a.tar.gz", "/srv/a.tar.gz", "/srv/b.tar.gz")
    (first, second) = wanted.engine.engines
    engines = (first, replace(second, archives=archives))
    wanted = replace(wanted, engine=replace(wanted.engine, engines=engines))
    assert [check.name for check in checks(answers(), report(), wanted, 0.0)
            if check.name.startswith(("reach-wheel", "reach-arch"))] == [
        "reach-archive",
        "reach-wheelhouse",
        "reach-wheelhouse:/srv/wheels",
        "reach-archive:/srv/a.tar.gz",
        "reach-archive:/srv/b.tar.gz",
    ]  # fmt: skip


def test_a_hub_that_must_not_be_asked():
    found = not_passed(wanted=needs(hub=None))
    mentions = ("offline", HUB, "15.0 GiB", "services[].weights", "HF_HUB_OFFLINE")
    assert_only(found, "weights:Qwen/Qwen2.5-7B-Instruct", "fail", mentions)


OTHER_HUB = HUB.replace("/var/cache/llm/hub", "/data/hf")


def test_each_model_is_judged_by_its_own_engine():
    """One is whole in its cache, the other one's engine stays offline and has nothing."""
    offline = replace(
        WEIGHTS,
        source="a/b",
        hub_page="a/b/resolve/main/config.json",
        hub_folder="/data/a",
        hub=None,
    )
    wanted = needs(weights=(WEIGHTS, offline))
    found = not_passed(
        wanted=wanted, hub=f"folder {HUB}\nfile {15 * GIB} -", reach_hub_1="curl 28 000"
    )
    assert {name: outcome for name, (outcome, _, _) in found.items()} == {
        "reach-hub-1": "warn",
        "weights:a/b": "fail",
    }
    assert found["weights:a/b"][1].startswith("the engine is set to stay offline, and /data/a")


def test_a_whole_model_does_not_need_a_hub_that_another_one_needs():
    other = replace(
        WEIGHTS, source="a/b", hub_page="a/b/resolve/main/config.json", hub_folder="/data/a"
    )
    gone: Parts = {"reach_hub_1": "curl 28 000", "reach_hub_2": "curl 28 000"}
    whole = f"folder {HUB}\nfile {15 * GIB} -"
    found = not_passed(wanted=needs(weights=(WEIGHTS, other)), hub=whole, **gone)
    assert [found[f"reach-hub-{number}"][0] for number in (1, 2)] == ["warn", "fail"]


def test_a_token_opens_the_models_of_its_own_engine():
    gated = replace(
        WEIGHTS,
        source="a/b",
        hub_page="a/b/resolve/main/config.json",
        hub_folder="/data/a",
        hub_token=True,
    )
    closed: Parts = {"reach_hub_1": "curl 0 401", "reach_hub_2": "curl 0 401"}
    assert list(not_passed(wanted=needs(weights=(gated, WEIGHTS)), **closed)) == ["reach-hub-2"]


def test_a_model_in_two_caches_is_asked_for_once_and_takes_room_twice():
    wanted = needs(weights=(WEIGHTS, replace(WEIGHTS, hub_folder=OTHER_HUB)))
    full: Any = f"{disks()}\n{disk(OTHER_HUB, '/data', 10)}"
    found = checks(answers(disks=full), report(), wanted, 0.0)
    named = [one.name for one in found]
    assert len(named) == len(set(named)), "each name once"
    assert [name for name in named if name.startswith("reach-hub")] == [
        "reach-hub-1",
        "reach-hub-files",
    ]
    (bad,) = [one for one in found if one.outcome == "fail"]
    assert bad.name == "weights:Qwen/Qwen2.5-7B-Instruct-2"
    full = f"{disks()}\n{disk(OTHER_HUB)}".replace(str(200 * 2**20), str(35 * 2**20))
    assert [one.name for one in checks(answers(disks=full), report(), wanted, 0.0)
            if one.outcome == "fail"] == ["disk-together"]  # fmt: skip
