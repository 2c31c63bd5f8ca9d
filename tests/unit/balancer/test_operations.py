"""What the operations do, by what a host says; no host is contacted."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.deb import DebPackages

from roles.balancer import operations, servers
from roles.balancer.facts import Completions, NginxState
from roles.balancer.nginx import SITE
from roles.balancer.operations import Answers
from roles.host.facts import FileStates

from .fleets import plan, settings

FLEET = plan(gpu1=[8000], gpu2=[8000])
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2"}
GOOD = {"ok": True}
BAD = {"ok": False, "status": 401, "error": "HTTP 401"}


class Host:
    """Answers facts by their class, and keeps what was not done."""

    print_prefix = "lb1: "

    def __init__(self, facts: dict[Any, Any]):
        self.facts = facts
        self.noops: list[str] = []

    def get_fact(self, fact: Any, *_: Any, **__: Any) -> Any:
        return self.facts[fact]

    def noop(self, why: str) -> None:
        self.noops.append(why)


class State:
    def __init__(self, is_executing: bool = True):
        self.is_executing = is_executing


def commands(operation: Any, facts: dict[Any, Any], executing: bool = True, **arguments: Any):
    """The commands of an operation."""
    with ctx_host.use(Host(facts)), ctx_state.use(State(executing)):
        return [str(command) for command in operation._inner(**arguments)]


def answers(folder: Path, results: dict[str, Any], site: dict[str, str], executing: bool = True):
    found = Answers()
    done = commands(
        operations.asked,
        {Completions: results, FileStates: site},
        executing,
        settings=settings(folder),
        candidates=servers(FLEET, ADDRESSES, [], {}),
        model_name="tiny",
        answers=found,
    )
    assert done == []
    return found


@pytest.mark.parametrize(
    ("results", "site", "none"),
    [
        ({"gpu1/r0": BAD, "gpu2/r0": BAD}, {SITE: "644 root root x"}, True),
        ({"gpu1/r0": BAD, "gpu2/r0": BAD}, {}, False),
        ({"gpu1/r0": BAD, "gpu2/r0": GOOD}, {SITE: "644 root root x"}, False),
    ],
)
def test_a_site_is_kept_where_no_replica_answers(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    results: dict[str, Any],
    site: dict[str, str],
    none: bool,
):
    found = answers(tmp_path, results, site)
    assert found.none is none
    assert ("no replica answers as planned" in caplog.text) is none
    chain = {
        "settings": settings(tmp_path),
        "plan": FLEET,
        "addresses": ADDRESSES,
        "drained": [],
        "answers": found,
    }
    assert bool(commands(operations.site, {FileStates: site}, **chain)) is not none
    state = {"enabled": True, "active": True, "loaded": False}
    assert bool(commands(operations.serving, {NginxState: state}, answers=found)) is not none
    names = {"path": "/x.pem", "names": ["DNS:a"], "answers": found}
    no_certificate = {operations.CertificateNames: frozenset()}
    assert bool(commands(operations.self_signed, no_certificate, **names)) is not none
    # An nginx that does not run is started, with whatever site there is.
    state = {"enabled": True, "active": False, "loaded": False}
    (start,) = commands(operations.serving, {NginxState: state}, answers=found)
    assert "systemctl start nginx" in start


def test_a_dry_run_asks_nobody(tmp_path: Path):
    assert answers(tmp_path, {"gpu1/r0": BAD}, {}, executing=False) == Answers()


@pytest.mark.parametrize("operation", [operations.set_aside, operations.take_back])
def test_addresses_are_asked_when_the_run_executes(operation: Any):
    asked: list[str] = []

    def addresses() -> list[str]:
        asked.append("now")
        return ["10.0.0.1"] if len(asked) > 1 else []

    assert commands(operation, {}, executing=False, addresses=addresses) == [] and not asked
    assert commands(operation, {}, addresses=addresses) == []
    assert len(commands(operation, {}, addresses=addresses)) == 1
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("packages", "files", "removed"),
    [
        ({}, {}, True),
        ({}, {"/etc/nginx/nginx.conf": "644 root root x"}, False),
        ({"nginx": ["1"]}, {}, False),
    ],
)
def test_debians_default_site_goes_only_with_a_new_nginx(
    monkeypatch: pytest.MonkeyPatch, packages: dict[str, Any], files: dict[str, str], removed: bool
):
    monkeypatch.setattr(operations.apt.packages, "_inner", lambda **_: iter(["apt-get install"]))
    facts = {DebPackages: packages, FileStates: files}
    done = commands(operations.installed, facts, packages=["nginx", "openssl"])
    assert done[0] == "apt-get install"
    assert (done[1:] == ["rm -f /etc/nginx/sites-enabled/default"]) is removed
