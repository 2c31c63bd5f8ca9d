"""Two balancers share an address: one loses its power, and new requests go on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import hosts
from tests.lab.conftest import Fleet, Run, wait_until
from tests.lab.inventories import llama_inventory

FIRST, SECOND, GPU_HOST = "lb6", "lb7", "gpu10"
SHARED, FAST = "10.99.0.9", ("--data", "validate=false")
MOVED_S = 5


def inventory(folder: Path, program: str, shared: bool = True) -> Path:
    """An inventory of one GPU host behind two balancers of their own."""
    folder.mkdir(exist_ok=True)
    file = llama_inventory(folder / "two.py", {GPU_HOST: "2x NVIDIA L40S"})
    lines = ", ".join(
        f'("{name}", {{**_ssh, "ssh_hostname": "{hosts.host(name).address}"}})'
        for name in (FIRST, SECOND)
    )
    one = 'balancers = [("lb1", {**_ssh, "ssh_hostname": "10.99.0.10"})]'
    own = f'"program": "{program}", ' + (f'"virtual_address": "{SHARED}", ' if shared else "")
    text = file.read_text()
    for old, new in ((one, f"balancers = [{lines}]"), ('"balancer": {', f'"balancer": {{{own}')):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)
    return file


def holder() -> list[str]:
    """Which of the balancers has the shared address."""
    up = [name for name in (FIRST, SECOND) if hosts.running()[name]]
    asked = {name: hosts.ssh(name, f"ip -o address show to {SHARED}").stdout for name in up}
    return [name for name, text in asked.items() if SHARED in text]


def status(lab: Fleet, timeout_s: int = 2) -> int:
    return lab.ask(url=f"https://{SHARED}", timeout_s=timeout_s)[0]


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def two(
    lab: Fleet, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, Path]]:
    """Both balancers after a good first run."""
    file = inventory(tmp_path_factory.mktemp("two"), request.param)
    with hosts.booted(FIRST, SECOND, GPU_HOST):
        run = lab.deploy(inventory=file)
        assert run.status == 0, run.text
        yield lab, file


def changes(lab: Fleet, file: Path) -> Run:
    run = lab.deploy(*FAST, inventory=file)
    assert run.status == 0, run.text
    return run


@contextmanager
def gone(name: str) -> Iterator[float]:
    """A balancer without power; it has some again afterwards."""
    begin = time.monotonic()
    hosts.power_off(name)
    try:
        yield begin
    finally:
        hosts.power_on(name)


def test_one_has_the_address_and_it_serves(two: tuple[Fleet, Path]):
    lab, file = two
    assert len(holder()) == 1
    assert status(lab, 60) == 200
    assert changes(lab, file).changes == 0


def test_new_requests_go_on_where_one_loses_its_power(two: tuple[Fleet, Path]):
    lab, _ = two
    (before,) = holder()
    with gone(before) as begin:
        wait_until(lambda: status(lab) == 200, "an answer of the other one", 30)
        took_s = time.monotonic() - begin
        print(f"answers again after {took_s:.1f} s")
        assert took_s < MOVED_S
        assert holder() == [name for name in (FIRST, SECOND) if name != before]
    # What comes back leaves the address where it is: each move breaks streams.
    time.sleep(5)
    assert holder() == [name for name in (FIRST, SECOND) if name != before]
    assert status(lab) == 200


def test_a_balancer_whose_program_ends_gives_the_address_up(two: tuple[Fleet, Path]):
    lab, file = two
    (before,) = holder()
    units = "nginx haproxy"
    lab.ssh(before, f"sudo systemctl stop {units} 2>/dev/null || true")
    wait_until(lambda: holder() != [before] and status(lab) == 200, "the other one", 15)
    assert changes(lab, file).changes > 0
    assert status(lab) == 200


def test_an_address_that_is_wanted_no_more_is_given_up(two: tuple[Fleet, Path], tmp_path: Path):
    lab, file = two
    program = "haproxy" if '"program": "haproxy"' in file.read_text() else "nginx"
    changes(lab, inventory(tmp_path / "without", program, shared=False))
    assert holder() == []
    changes(lab, file)
    wait_until(lambda: len(holder()) == 1, "one that has it again", 15)
