"""What the operations do, by what a host says; no host is contacted."""

import base64
import io
import os
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand
from pyinfra.context import ctx_host, ctx_state

from roles.balancer import BalancerState, balancer_of, operations
from roles.balancer.balancer import Balancer
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.drains import Drain
from roles.balancer.facts import BalancerFacts, Completions
from roles.balancer.found import FoundBalancer
from roles.balancer.kinds import KINDS
from roles.balancer.nginx import paths
from roles.balancer.state import STATE, drain, dump_state, parse_state
from roles.balancer.virtual_address.operations import virtual_address
from roles.balancer.virtual_address.render import PACKAGES, VirtualAddress
from roles.balancer.virtual_address.render import files as virtual_files
from roles.host import HostFile

from .fleets import route, settings, state

NGINX = KINDS["nginx"]
OLD = Path(__file__).parents[2] / "data" / "balancer-eaed66b"
CHAT = route()
IDS = [member.id for member in CHAT.members]
# A drained member in the file of the upstreams.
OUT = {"nginx": "server 10.0.0.1:8000 down;", "haproxy": "10.0.0.1:8000 weight 1 disabled"}


@pytest.fixture(params=KINDS)
def balancer(request: pytest.FixtureRequest) -> Balancer:
    """Each program that can be the balancer."""
    return KINDS[request.param]


class Host:
    """Answers facts by their class, and keeps what was not done."""

    name = "lb1"
    print_prefix = "lb1: "

    def __init__(self, facts: dict[Any, Any]):
        self.facts = facts
        self.noops: list[str] = []

    def get_fact(self, fact: Any, *_: Any, **__: Any) -> Any:
        return self.facts[fact]

    def noop(self, why: str) -> None:
        self.noops.append(why)

    def log_styled(self, text: str, log_func: Any, **_: Any) -> None:
        log_func(text)


class State:
    def __init__(self, is_executing: bool = True):
        self.is_executing = is_executing


def commands(operation: Any, facts: dict[Any, Any], executing: bool = True, **arguments: Any):
    """The commands of an operation."""
    with ctx_host.use(Host(facts)), ctx_state.use(State(executing)):
        return list(operation._inner(**arguments))


def standing(balancer: Balancer, of: BalancerState | None = None, **values: Any) -> FoundBalancer:
    """A balancer that serves this state."""
    packages = frozenset(balancer.packages)
    found = FoundBalancer(
        packages=packages, has_main_file=True, enabled=True, active=True, loaded=True
    )
    if of is not None:
        files = {file.path: file.state for file in balancer.upstream_files(of)}
        found = replace(
            found, state=dump_state(of), files=files | {balancer.site: "644 root root x"}
        )
    return replace(found, **values)


def written(command: Any) -> dict[str, str]:
    """The files that travel with a command."""
    data = base64.b64decode(command.connector_arguments["_stdin"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {f"/{m.name}": tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]


def unquoted(command: Any) -> str:
    """The script of a command."""
    (script,) = shlex.split(command.bits[2])
    return script


def drained(
    balancer: Balancer,
    before: FoundBalancer,
    *ids: str,
    operation: Any = operations.drain,
    **more: Any,
):
    arguments = {"balancer": balancer, "replicas": lambda: ids, "owner": "operator", "run": "r"}
    if operation is operations.drain:
        arguments |= {"interrupted": tuple, "note_kept": lambda ids: None}
    else:
        arguments |= {"proved": dict}
    return commands(operation, {BalancerFacts: before}, **(arguments | more))


def test_a_drain_writes_what_follows_from_it_and_reloads(balancer: Balancer):
    (command,) = drained(balancer, standing(balancer, state()), IDS[0])
    files = written(command)
    assert (*files,) == tuple(file.path for file in balancer.upstream_files(state()))
    found = parse_state(files[STATE])
    assert found and [(one.replica, one.owner) for one in found.drains] == [(IDS[0], "operator")]
    assert OUT[balancer.kind] in next(iter(files.values()))
    assert balancer.check() in unquoted(command)
    assert f"systemctl reload {balancer.kind}" in str(command)


def test_a_second_owner_changes_the_state_alone(balancer: Balancer):
    before, _ = drain(state(), [IDS[0]], "watchdog", "r", "s")
    (command,) = drained(balancer, standing(balancer, before), IDS[0])
    assert "systemctl reload" not in str(command) and balancer.check() not in unquoted(command)
    assert f"mv -f {STATE}.pyinfra-new" in str(command)
    (command,) = drained(
        balancer, standing(balancer, before), IDS[0], operation=operations.undrain, owner="watchdog"
    )
    assert f"systemctl reload {balancer.kind}" in str(command)


def test_nothing_where_nothing_changes(balancer: Balancer):
    before, _ = drain(state(), [IDS[0]], "operator", "r", "s")
    assert drained(balancer, standing(balancer, before), IDS[0]) == []
    assert (
        drained(balancer, standing(balancer, state()), IDS[0], operation=operations.undrain) == []
    )
    assert drained(balancer, standing(balancer, state())) == []
    assert drained(balancer, standing(balancer), IDS[0]) == [], "it serves nobody yet"


def test_what_a_killed_run_left_is_loaded(balancer: Balancer):
    before, _ = drain(state(), [IDS[0]], "operator", "r", "s")
    (command,) = drained(balancer, standing(balancer, before, loaded=False), IDS[0])
    assert f"systemctl reload {balancer.kind}" in str(command)


def test_who_has_moved_gets_in_as_it_is_now(balancer: Balancer):
    old = state()
    upstream = replace(old.upstreams[0], failures={IDS[0]: "no answer"})
    before, _ = drain(replace(old, upstreams=(upstream,)), [IDS[0]], "rolling-update", "r", "s")
    now = replace(upstream.members[0], port=8200)
    new = replace(now, id="gpu9/chat-0", address="10.0.0.9")
    (command,) = drained(
        balancer,
        standing(balancer, before),
        IDS[0],
        operation=operations.undrain,
        owner="rolling-update",
        proved=lambda: {"chat": [now, new]},
    )
    text = next(iter(written(command).values()))
    assert " 10.0.0.1:8200" in text and "10.0.0.1:8000" not in text
    assert " 10.0.0.9:8200" in text and "# gpu1/chat-0: out" not in text


def resumed(
    balancer: Balancer,
    before: FoundBalancer,
    serving: dict[str, Any] | None = None,
    wanted: bool = True,
):
    """The commands, and the states that were noted."""
    noted: list[BalancerState] = []
    found = commands(
        operations.resume_drains,
        {BalancerFacts: before},
        balancer=balancer,
        wanted=lambda: wanted,
        serving=lambda: serving or {},
        owner="rolling-update",
        note=noted.append,
        run="r",
    )
    return found, noted


def test_what_a_killed_run_drained_is_taken_back_of_who_serves(balancer: Balancer):
    before, _ = drain(state(), IDS[:2], "rolling-update", "old", "s")
    members = before.upstreams[0].members
    (command,), (noted,) = resumed(balancer, standing(balancer, before), {"chat": [members[0]]})
    assert [one.replica for one in noted.drains] == [IDS[1]]
    assert parse_state(written(command)[STATE]) == noted


@pytest.mark.parametrize("wanted", [True, False])
def test_nothing_is_taken_back_where_nothing_was_left(balancer: Balancer, wanted: bool):
    found, noted = resumed(balancer, standing(balancer, state()), wanted=wanted)
    assert (found, noted) == ([], [state()] if wanted else [])
    assert resumed(balancer, standing(balancer)) == ([], []), "it serves nobody yet"


def test_the_last_member_stays_in(balancer: Balancer, caplog: pytest.LogCaptureFixture):
    before, _ = drain(state(), IDS[:3], "watchdog", "r", "s")
    kept: list[str] = []
    assert drained(balancer, standing(balancer, before), IDS[3], note_kept=kept.extend) == []
    assert kept == [IDS[3]]
    assert f"{IDS[3]} is not drained" in caplog.text
    assert (
        len(drained(balancer, standing(balancer, before), IDS[3], interrupted=lambda: ["chat"]))
        == 1
    )


@pytest.mark.parametrize(
    "change",
    [{"state": "{"}, {"state": "", "old_site": "", "files": None}],
    ids=["a state that cannot be read", "an earlier version that was not taken over"],
)
def test_who_cannot_be_drained_fails_its_host(balancer: Balancer, change: dict[str, Any]):
    if "files" in change:
        change = change | {"files": {balancer.site: "644 root root x"}}
    (command,) = drained(balancer, standing(balancer, **change), IDS[0])
    assert isinstance(command, FunctionCommand)


@pytest.mark.parametrize("operation", [operations.drain, operations.undrain])
def test_replicas_are_named_when_the_run_executes(balancer: Balancer, operation: Any):
    def replicas() -> list[str]:
        raise AssertionError("it is not known yet")

    assert (
        drained(
            balancer,
            standing(balancer, state()),
            operation=operation,
            replicas=replicas,
            executing=False,
        )
        == []
    )


OLD_SITE = (OLD / "llm.aside.conf").read_text()


def test_an_old_site_is_taken_over_before_the_first_drain():
    before = standing(NGINX, old_site=OLD_SITE, files={paths.SITE: "644 root root x"})
    adoption, *rest = drained(NGINX, before, "gpu1/*")
    files = written(adoption)
    assert list(files) == [paths.UPSTREAMS, paths.SITE, STATE]
    assert f"include {paths.UPSTREAMS};" in files[paths.SITE]
    assert "systemctl reload nginx" in str(adoption)
    # The stand-in of a host is as it was before.
    assert [type(command) for command in rest] == [FunctionCommand]


@pytest.mark.parametrize("operation", ["drain", "install"])
def test_an_old_site_that_cannot_be_read(tmp_path: Path, operation: str):
    before = standing(NGINX, old_site="server { }\n", files={paths.SITE: "644 root root x"})
    if operation == "drain":
        found = drained(NGINX, before, "gpu1/*")
    else:
        facts = {BalancerFacts: before}
        found = commands(operations.install, facts, deployment=deployment(NGINX, tmp_path, before))
    assert [type(command) for command in found] == [FunctionCommand]


def deployment(balancer: Balancer, folder: Path, found: FoundBalancer) -> BalancerDeployment:
    given = settings(folder, program=balancer.kind)
    return BalancerDeployment(
        balancer_of(given), given, (CHAT,), "run", found, parse_state(found.state)
    )


def deployed(balancer: Balancer, folder: Path) -> FoundBalancer:
    """A balancer on which a deploy changes nothing."""
    found = deployment(balancer, folder, standing(balancer))
    return standing(
        balancer,
        found.wanted,
        files={file.path: file.state for file in found.files},
        certificate=frozenset(["DNS:a"]),
    )


def run(found: BalancerDeployment) -> list[str]:
    """The commands of a whole deploy, by the operation that gave them."""
    facts = {BalancerFacts: found.found, Completions: ()}
    steps: dict[str, dict[str, Any]] = {
        "install": {},
        "probe_members": {},
        "make_certificate": {"names": ["DNS:a"]},
        "write_site": {},
        "run_program": {},
    }
    return [
        name
        for name, more in steps.items()
        for _ in commands(getattr(operations, name), facts, deployment=found, **more)
    ]


def test_a_second_deploy_does_nothing(balancer: Balancer, tmp_path: Path):
    assert run(deployment(balancer, tmp_path, deployed(balancer, tmp_path))) == []


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"loaded": False}, ["run_program"]),
        ({"active": False}, ["run_program"]),
        ({"enabled": False}, ["run_program"]),
        ({"enabled": False, "active": False}, ["run_program", "run_program"]),
        ({"certificate": frozenset()}, ["make_certificate", "run_program"]),
        ({"files": {}}, ["write_site", "run_program"]),
    ],
)
def test_what_differs_is_made_good(
    balancer: Balancer, tmp_path: Path, change: dict[str, Any], done: list[str]
):
    assert (
        run(deployment(balancer, tmp_path, replace(deployed(balancer, tmp_path), **change))) == done
    )


def test_the_state_alone_needs_no_reload(balancer: Balancer, tmp_path: Path):
    before = deployed(balancer, tmp_path)
    files = dict(before.files) | {STATE: HostFile(STATE, "old").state}
    assert run(deployment(balancer, tmp_path, replace(before, files=files))) == ["write_site"]


def test_a_state_that_cannot_be_read_stops_the_deploy(balancer: Balancer, tmp_path: Path):
    found = deployment(balancer, tmp_path, standing(balancer))
    facts = {BalancerFacts: standing(balancer, state="{")}
    (command,) = commands(operations.install, facts, deployment=found)
    assert isinstance(command, FunctionCommand)


@pytest.mark.parametrize(
    ("packages", "known", "removed"),
    [((), False, True), ((), True, False), (("nginx", "procps"), True, False)],
)
def test_debians_default_site_goes_only_with_a_new_nginx(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: tuple[str, ...],
    known: bool,
    removed: bool,
):
    monkeypatch.setattr(operations.apt.packages, "_inner", lambda **_: iter(["apt-get install"]))
    facts = {BalancerFacts: FoundBalancer(packages=frozenset(packages), has_main_file=known)}
    found = deployment(NGINX, tmp_path, standing(NGINX))
    done = commands(operations.install, facts, deployment=found)
    assert done[0] == "apt-get install"
    assert (done[1:] == [f"rm -f {paths.DEFAULT_SITE}"]) is removed


def test_a_start_loads_the_files_where_the_package_has_started_nginx_with_others(tmp_path: Path):
    # As systemd does: a start of what runs changes nothing.
    stub, loaded = tmp_path / "systemctl", tmp_path / "runs-with"
    stub.write_text(f"#!/bin/sh\n[ $1 = start ] || cp {tmp_path}/site {loaded}\n")
    stub.chmod(0o755)
    loaded.write_text("the package's")
    (tmp_path / "site").write_text("ours")
    script = NGINX.start_script().replace("/etc/nginx/llm", str(tmp_path))
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script], env=os.environ | {"PATH": path}, check=True)
    assert loaded.read_text() == "ours"


@pytest.mark.parametrize("executing", [True, False])
def test_a_change_of_the_program_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, executing: bool
):
    facts = {BalancerFacts: standing(NGINX, state(), others=("haproxy",))}
    found = deployment(NGINX, tmp_path, standing(NGINX))
    assert commands(operations.install, facts, executing, deployment=found) == []
    assert "haproxy serves here: at the end of this deploy nginx takes its place" in caplog.text


VIRTUAL = VirtualAddress("10.0.0.100", "10.0.0.1", ("10.0.0.1", "10.0.0.2"), 443)


def shared(tmp_path: Path, found: FoundBalancer, wanted: VirtualAddress | None):
    """The scripts by which a balancer takes its part in a virtual address."""
    deployment = BalancerDeployment(NGINX, settings(tmp_path), [CHAT], "r", found=found)
    made = commands(virtual_address, {}, deployment=deployment, wanted=wanted)
    return [unquoted(one) for one in made if "sh" in one.bits[:1]]


def test_a_virtual_address_is_checked_written_started_and_left_alone(tmp_path: Path):
    packages = frozenset(PACKAGES)
    (script,) = shared(tmp_path, FoundBalancer(packages=packages), VIRTUAL)
    assert script.index("--config-test") < script.index("mv -f") < script.index("restart")
    there = {file.path: file.state for file in virtual_files(VIRTUAL)}
    standing = FoundBalancer(packages=packages, virtual_address=there, shares=True)
    assert shared(tmp_path, standing, VIRTUAL) == []
    (started,) = shared(tmp_path, replace(standing, shares=False), VIRTUAL)
    assert "restart" in started and "mv -f" not in started
    (removed,) = shared(tmp_path, standing, None)
    assert "disable --now" in removed
    assert shared(tmp_path, FoundBalancer(), None) == []


def persons(balancer: Balancer, before: FoundBalancer, *, end: bool = False, refusal: str = ""):
    """What a person's drain of a host, or its end, sends to a balancer."""
    about = {"balancer": balancer, "refusal": lambda: refusal, "run": "r"}
    if end:
        return commands(
            operations.undrain_by_person, {BalancerFacts: before}, target="gpu1/*", **about
        )
    wanted = Drain("gpu1/*", "operator", "r", "now", reason="fans")
    return commands(operations.drain_by_person, {BalancerFacts: before}, wanted=wanted, **about)


def test_a_persons_drain_is_written_loaded_and_left_alone(balancer: Balancer):
    (command,) = persons(balancer, standing(balancer, state()))
    found = parse_state(written(command)[STATE])
    assert found and [one.reason for one in found.drains] == ["fans"]
    assert "reload" in unquoted(command)
    assert persons(balancer, standing(balancer, found)) == []
    (back,) = persons(balancer, standing(balancer, found), end=True)
    assert parse_state(written(back)[STATE]) == state()
    assert persons(balancer, standing(balancer, state()), end=True) == []


@pytest.mark.parametrize("end", [True, False])
def test_what_is_refused_changes_no_balancer(balancer: Balancer, end: bool):
    (refused,) = persons(balancer, standing(balancer, state()), end=end, refusal="no")
    assert isinstance(refused, FunctionCommand)
