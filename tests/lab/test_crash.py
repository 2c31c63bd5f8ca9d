"""A replica that crashes in the middle of a change starts what it was running."""

import contextlib
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import hosts
from tests.lab.conftest import Fleet, Run, wait_until
from tests.lab.hosts import WWW
from tests.lab.paths import CONTROL_ADDRESS, HTTP_PORT
from tests.lab.services import BALANCER, FAST, Replica, Services

HOST = "gpu6"
GPUS = {HOST: "4x NVIDIA A10G"}
NAMES = [f"alpha-{number}" for number in range(4)]
ENGINE = "http://10.99.0.22:8002"
"""The second replica, which is not reached."""
BROKEN = "b99999"
# It ends by itself, but not before one that is killed meanwhile is back.
LLAMA_SERVER = """#!/bin/sh
[ "$1" != --version ] || exit 0
sleep 4
echo "this build does not start" >&2
exit 1
"""


class One(Services):
    """One service on one host, whose replicas restart one after the other."""

    def present(self) -> Any:
        return self.inventory([self.service("alpha", {})], GPUS)

    def broken(self) -> Any:
        """Another version, another user and another key at once; the version does not start."""
        services = [self.service("alpha", {}, engine_key=2)]
        launch = {"start_timeout_s": 60, "user": "llm-other", "drain_timeout_s": 7}
        return self.inventory(services, GPUS, engine=broken_engine(), launch=launch)


def broken_engine() -> dict[str, Any]:
    """An archive of an engine that installs well and does not start, where hosts get theirs."""
    folder = WWW / "broken"
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "llama.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(f"llama-{BROKEN}/llama-server")
        member.size, member.mode = len(LLAMA_SERVER), 0o755
        archive.addfile(member, io.BytesIO(LLAMA_SERVER.encode()))
    data = (folder / "llama.tar.gz").read_bytes()
    return {
        "version": BROKEN,
        "archive": f"http://{CONTROL_ADDRESS}:{HTTP_PORT}/broken/llama.tar.gz",
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@pytest.fixture(scope="module")
def one(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[One]:
    """The service on a fresh host."""
    with hosts.booted(BALANCER, HOST):
        made = One(tmp_path_factory.mktemp("crash"))
        made.apply(made.present(), *FAST)
        yield made


def next_folder(one: One) -> str:
    """The folder that the first replica would start from."""
    return one.ssh(HOST, "readlink /etc/llm/replicas/alpha-0/current").strip()


@contextlib.contextmanager
def in_background(run: Callable[[], Run]) -> Iterator[list[Run]]:
    """A run meanwhile; it is over, and in the list, afterwards."""
    done: list[Run] = []
    thread = threading.Thread(target=lambda: done.append(run()))
    thread.start()
    try:
        yield done
    finally:
        thread.join()


def killed(one: One, pause: threading.Lock) -> Replica:
    """Kill the second replica, while it has no request, and return it as it comes back."""
    pid = one.replicas(HOST)["alpha-1"].pid
    with pause:
        # systemd is still to see it when the next request comes: it must be gone by then.
        one.ssh(HOST, f"sudo kill -9 {pid}; while sudo kill -0 {pid} 2>&-; do sleep 0.05; done")

    def back() -> bool:
        found = one.replicas(HOST).get("alpha-1")
        return found is not None and found.pid not in ("0", pid) and "llama" in found.program

    wait_until(back, "its restart")
    return one.replicas(HOST)["alpha-1"]


def test_one_that_crashes_during_a_change_starts_what_it_ran(one: One):
    before, folder = one.replicas(HOST), next_folder(one)
    assert sorted(before) == NAMES
    service, pause = one.service("alpha", {}), threading.Lock()

    def ask() -> int:
        with pause:
            return one.completion(service)

    with one.asking(ask) as statuses:
        broken = one.broken()
        with in_background(lambda: one.deploy(*FAST, inventory=broken)) as runs:
            wait_until(lambda: next_folder(one) != folder, "the first replica's move")
            back = killed(one, pause)
            answers = [
                one.status(BALANCER, ENGINE, "lab/alpha", one.key("alpha-engine", number))
                for number in (1, 2)
            ]
            # The change was still under way, and the first replica not yet put back.
            assert next_folder(one) != folder
        run = runs[0]
    assert (back.folder, back.program) == (before["alpha-1"].folder, before["alpha-1"].program)
    assert answers == [200, 401], run.text
    assert set(statuses) == {200}, run.text

    assert run.status == 1
    assert "this build does not start" in run.text
    assert f"The old settings are back, and serve: {', '.join(NAMES)}." in run.text, run.text
    after = one.replicas(HOST)
    assert {name: (each.folder, each.program) for name, each in after.items()} == {
        name: (each.folder, each.program) for name, each in before.items()
    }
    # The replicas that the update did not reach were left alone.
    assert [after[name].pid == before[name].pid for name in NAMES] == [False, False, True, True]
    assert after["alpha-1"].pid == back.pid
    assert one.ssh(HOST, "ps -C llama-server -o user= | sort -u").split() == ["llm-engine"]
    assert one.upstreams() == {"alpha": {f"{HOST}/{name}": True for name in NAMES}}


def test_what_was_put_back_is_what_is_planned(one: One):
    before = one.replicas(HOST)
    run = one.apply(one.present(), *FAST)
    assert run.changes == 0, run.text
    assert one.replicas(HOST) == before


def test_one_that_crashes_later_starts_what_was_put_back(one: One):
    before = one.replicas(HOST)["alpha-1"]
    after = killed(one, threading.Lock())
    assert (after.folder, after.program) == (before.folder, before.program)
